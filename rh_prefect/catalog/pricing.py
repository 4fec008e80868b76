"""Estimates the cost of a call before the call is made."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from rh_prefect.catalog.model import Model, Price, PriceTable, text_of


def estimate(model: Model, payload: Mapping[str, object], *, seconds: float | None = None) -> Price | None:
    """Returns the estimated cost of a call; None if the catalogue does not determine the cost.

    `payload` is the request as it will be sent, keyed by wire key; omitted parameters take their defaults. `seconds` is
    the length of the input, for models whose price depends on this length (upscalers, motion control, lip sync).
    """
    table = model.price
    if table is None:
        return None
    unit = _unit_price(table, model, payload)
    units = _units(table, model, payload, seconds)
    if unit is None or units is None:
        return None
    # `price_note` names other billed items, or says that the price is old: the call may cost more.
    return Price(unit * units, table.currency, lower_bound=table.unit == "second, from" or bool(model.price_note))


def _unit_price(table: PriceTable, model: Model, payload: Mapping[str, object]) -> Decimal | None:
    if table.fixed is not None:
        return table.fixed
    payload_values = tuple(text_of(_value(model, payload, key)) for key in table.by)
    return next((amount for values, amount in table.rows if values == payload_values), None)


def _units(table: PriceTable, model: Model, payload: Mapping[str, object], seconds: float | None) -> Decimal | None:
    """Returns the number of units that a call uses; None if the parameters do not determine this number."""
    value = _value(model, payload, table.per) if table.per else seconds
    match table.unit:
        case "call":
            return Decimal(1)
        case "image":
            return _number(value) if table.per and _counts(table, model, payload) else Decimal(1)
        case "second" | "second, from":
            return _number(value)
        case "1000 characters":
            return Decimal(len(value)) / 1000 if isinstance(value, str) else None
        case "5 seconds":  # a unit that has begun counts as a whole
            length = _number(value)
            return None if length is None else (length / 5).to_integral_value(ROUND_CEILING)


def _counts(table: PriceTable, model: Model, payload: Mapping[str, object]) -> bool:
    return all(text_of(_value(model, payload, key)) == value for key, value in table.per_when)


def _value(model: Model, payload: Mapping[str, object], key: str) -> object:
    value = payload.get(key)
    if value is not None:
        return value
    param = model.find_param(key)
    return None if param is None else param.default


def _number(value: object) -> Decimal | None:
    """Reads a positive number; None for `auto`, `-1` and `0`, which leave the choice to the model or the input."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
