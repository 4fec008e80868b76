"""Prices a model's request from the catalogue's price table; the emulator's own reading of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from rh_prefect.catalog.model import Model, PriceTable
from rh_prefect.emulator.request_texts import spelled

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
