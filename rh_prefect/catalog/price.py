"""What a call costs, as far as that can be known before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rh_prefect.catalog.entry import Model

Unit = Literal["call", "second", "second, from", "image", "1000 characters", "5 seconds"]


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of money.

    Attributes:
        amount: How much.
        currency: Of what, as in `CNY`.
        lower_bound: Whether it may cost more: the vendor says "from".
    """

    amount: Decimal
    currency: str = "CNY"
    lower_bound: bool = False

    def __str__(self) -> str:
        """Reads like `0.35 CNY` or `from 6.40 CNY`."""
        return f"{'from ' if self.lower_bound else ''}{money(self.amount)} {self.currency}"


@dataclass(frozen=True, slots=True)
class PriceTable:
    """What one unit of a model's work costs.

    Attributes:
        unit: What is counted.
        per: The wire key of the parameter that says how many units a call takes: a duration, a number of images, a
            text. None where it is one, or where the input's own length counts.
        per_when: `per` counts only where these parameters have these values; else it is one unit.
        fixed: The price of a unit, where it is always the same.
        by: The wire keys of the parameters that the price of a unit depends on.
        rows: Their values, in the order of `by` and as text, and the price of a unit.
        currency: Of all amounts.
    """

    unit: Unit
    per: str | None = None
    per_when: tuple[tuple[str, str], ...] = ()
    fixed: Decimal | None = None
    by: tuple[str, ...] = ()
    rows: tuple[tuple[tuple[str, ...], Decimal], ...] = ()
    currency: str = "CNY"

    def __str__(self) -> str:
        """Reads like `0.69 to 1.04 CNY per second`."""
        amounts = [self.fixed] if self.fixed is not None else [amount for _, amount in self.rows]
        low, high = money(min(amounts)), money(max(amounts))
        unit, _, more = self.unit.partition(", ")
        span = low if low == high else f"{low} to {high}"
        return f"{'from ' if more else ''}{span} {self.currency} per {unit}"


def estimate(model: Model, payload: Mapping[str, object], *, seconds: float | None = None) -> Price | None:
    """Says what a call will cost.

    Args:
        model: The model.
        payload: The request as it will be sent, by wire keys; what it leaves out counts with its default.
        seconds: How long the input is, for models that are priced by that (upscalers, motion control, lip sync).

    Returns:
        The price, or None where it is not known: no published price, a combination without one, a length that the
        model chooses itself, or an input whose length was not given.
    """
    table = model.price
    if table is None:
        return None
    unit = _unit_price(table, model, payload)
    units = _units(table, model, payload, seconds)
    if unit is None or units is None:
        return None
    return Price(unit * units, table.currency, lower_bound=table.unit == "second, from")


def money(amount: Decimal) -> str:
    """Writes an amount with two digits after the point, or as many as it needs.

    Args:
        amount: How much.
    """
    exact = f"{amount.normalize():f}"
    return exact if len(exact.partition(".")[2]) > 2 else f"{amount:.2f}"


def text_of(value: object) -> str:
    """Writes a value as the API writes it in a string: `true` for True, `5` for 5 and for 5.0.

    Args:
        value: A string, boolean or number.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _unit_price(table: PriceTable, model: Model, payload: Mapping[str, object]) -> Decimal | None:
    if table.fixed is not None:
        return table.fixed
    wanted = tuple(text_of(_value(model, payload, key)) for key in table.by)
    return next((amount for values, amount in table.rows if values == wanted), None)


def _units(table: PriceTable, model: Model, payload: Mapping[str, object], seconds: float | None) -> Decimal | None:
    """How many units a call takes."""
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
        case "5 seconds":  # begun ones count whole
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
    """Reads a positive number; `auto`, `-1` and `0` leave it to the model or to the input, so there is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None


def decode_price(raw: Mapping[str, Any]) -> PriceTable:
    """Reads a price from the slim file.

    Args:
        raw: Its JSON object.
    """
    fixed = raw.get("fixed")
    return PriceTable(
        unit=raw["unit"],
        per=raw.get("per"),
        per_when=tuple(raw.get("per_when", {}).items()),
        fixed=None if fixed is None else Decimal(str(fixed)),
        by=tuple(raw.get("by", ())),
        rows=tuple((tuple(values), Decimal(str(amount))) for *values, amount in raw.get("rows", ())),
        currency=raw.get("currency", "CNY"),
    )
