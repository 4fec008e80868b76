"""The models that an emulator runs, and their prices from the catalogue's tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from rh_prefect.catalog.model import Model, Output, Param, PriceTable, Rule
from rh_prefect.catalog.registry import models as catalogued
from rh_prefect.emulator.request_texts import spelled


class Models:
    """All models by endpoint; requests to endpoints without a model get code 1001."""

    def __init__(self) -> None:
        self._added: dict[str, Model] = {}
        self._catalogued: dict[str, Model] = {}

    def find(self, endpoint: str) -> Model | None:
        """Finds a model by its endpoint in any spelling; added models override those of the catalogue."""
        if not self._catalogued:  # at the first submit: reading the catalogue takes time
            every = catalogued()
            aliases = {alias: model for model in every for alias in model.aliases}
            self._catalogued = aliases | {model.endpoint: model for model in every}
        return self._added.get(endpoint) or self._catalogued.get(endpoint)

    def add(self, model: Model) -> None:
        """Adds a model, or replaces the model with the same endpoint."""
        self._added[model.endpoint] = model


def new_model(
    endpoint: str,
    *,
    output: Output = "image",
    params: Iterable[Param] = (),
    rules: Iterable[Rule] = (),
    price: PriceTable | Decimal | str | int | None = None,
) -> Model:
    """Creates a model that the catalogue lacks; see `Emulator.add_model`."""
    table = price if isinstance(price, PriceTable | None) else PriceTable("call", fixed=Decimal(str(price)))
    family = endpoint.partition("/")[0]
    return Model(endpoint, endpoint, output, family, params=tuple(params), rules=tuple(rules), price=table)


_BLOCK_SECONDS: Final = 5


def price_of(model: Model, payload: Mapping[str, object], *, seconds: float | None) -> Decimal | None:
    """Returns the price of a request.

    Args:
        model: The model.
        payload: The parameters that were sent; missing ones count with their defaults.
        seconds: The length of the input in seconds, if the input has a length.

    Returns:
        The amount; None if no row of the table matches, or the request does not state the number of units.
    """
    if model.price is None:
        return None
    defaults = {param.key: param.default for param in model.params}
    facts = {**defaults, **payload}
    amount = _amount(model.price, facts)
    units = _units(model.price, facts, seconds)
    return None if amount is None or units is None else amount * units


def _amount(table: PriceTable, facts: Mapping[str, object]) -> Decimal | None:
    """Returns the fixed price, or the amount in the matching row; None if no row matches."""
    if table.fixed is not None:
        return table.fixed
    asked = [spelled(facts.get(key)) for key in table.by]
    fitting = (amount for values, amount in table.rows if list(values) == asked)
    return next(fitting, None)


def _units(table: PriceTable, facts: Mapping[str, object], seconds: float | None) -> Decimal | None:
    """Counts the units of a request."""
    counted = facts.get(table.per) if table.per else seconds
    if table.unit == "call":
        return Decimal(1)
    if table.unit == "image":
        is_set = table.per and all(spelled(facts.get(key)) == value for key, value in table.per_when)
        return _positive(counted) if is_set else Decimal(1)
    if table.unit == "1000 characters":
        return Decimal(len(counted)).scaleb(-3) if isinstance(counted, str) else None
    length = _positive(counted)
    if length is not None and table.unit == "5 seconds":
        return Decimal(math.ceil(length / _BLOCK_SECONDS))
    return length


def _positive(value: object) -> Decimal | None:
    """Reads a number above 0; `auto` and -1 leave the choice to the model."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(spelled(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
