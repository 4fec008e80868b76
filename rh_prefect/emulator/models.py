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
    """All models by their endpoints; any other endpoint is 1001."""

    def __init__(self) -> None:
        self._added: dict[str, Model] = {}
        self._catalogued: dict[str, Model] = {}

    def find(self, endpoint: str) -> Model | None:
        """Finds a model; one that was added goes before one of the catalogue."""
        if not self._catalogued:  # at the first submit: reading the catalogue takes time
            self._catalogued = {model.endpoint: model for model in catalogued()}
        return self._added.get(endpoint) or self._catalogued.get(endpoint)

    def add(self, model: Model) -> None:
        """Adds a model, or replaces the one of its endpoint."""
        self._added[model.endpoint] = model


def new_model(
    endpoint: str,
    *,
    output: Output = "image",
    params: Iterable[Param] = (),
    rules: Iterable[Rule] = (),
    price: PriceTable | Decimal | str | int | None = None,
) -> Model:
    """Describes a model that the catalogue does not have.

    Args:
        endpoint: What comes after `/openapi/v2/`.
        output: What it makes.
        params: Its parameters.
        rules: What holds for several of them together.
        price: What it costs: a table, or the amount of each call; None for no published price.
    """
    table = price if isinstance(price, PriceTable | None) else PriceTable("call", fixed=Decimal(str(price)))
    family = endpoint.partition("/")[0]
    return Model(endpoint, endpoint, output, family, params=tuple(params), rules=tuple(rules), price=table)


_BLOCK_SECONDS: Final = 5


def price_of(model: Model, payload: Mapping[str, object], *, seconds: float | None) -> Decimal | None:
    """Prices a request.

    Args:
        model: The model.
        payload: The parameters that were sent; the others count with their defaults.
        seconds: The length of the input, where it has one.

    Returns:
        The amount; None where no row of the table fits, or the number of units is not in the request.
    """
    if model.price is None:
        return None
    defaults = {param.key: param.default for param in model.params}
    facts = {**defaults, **payload}
    amount = _amount(model.price, facts)
    units = _units(model.price, facts, seconds)
    return None if amount is None or units is None else amount * units


def _amount(table: PriceTable, facts: Mapping[str, object]) -> Decimal | None:
    """Finds the row that fits; a fixed price has no rows."""
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
    """Reads a number above 0; a word such as `auto` is not one, and -1 leaves the choice to the model."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(spelled(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
