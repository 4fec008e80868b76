"""What models cost: amounts, and the tables that say what a unit of work costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

PLACEHOLDER = Decimal(9999)
"""From here on an amount is a placeholder: RunningHub's price files show 0 or 9999 where there is no price yet."""

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

    @property
    def least(self) -> Decimal:
        """The least that one unit costs."""
        return min(self._amounts)

    @property
    def _amounts(self) -> list[Decimal]:
        return [self.fixed] if self.fixed is not None else [amount for _, amount in self.rows]

    def __str__(self) -> str:
        """Reads like `0.69 to 1.04 CNY per second`."""
        low, high = money(self.least), money(max(self._amounts))
        unit, _, more = self.unit.partition(", ")
        span = low if low == high else f"{low} to {high}"
        return f"{'from ' if more else ''}{span} {self.currency} per {unit}"


def money(amount: Decimal) -> str:
    """Writes an amount with two digits after the point, or as many as it needs.

    Args:
        amount: How much.
    """
    exact = f"{amount.normalize():f}"
    return exact if len(exact.partition(".")[2]) > 2 else f"{amount:.2f}"


def is_placeholder(amount: Decimal) -> bool:
    """Tells whether a listed amount stands for "no price yet".

    Args:
        amount: The amount of one unit, or of a call.
    """
    return amount <= 0 or amount >= PLACEHOLDER


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


def decode_price(raw: Mapping[str, Any]) -> PriceTable | None:
    """Reads a price from the slim file, without placeholders; None where nothing else is in it.

    Args:
        raw: Its JSON object.
    """
    fixed = None if raw.get("fixed") is None else Decimal(str(raw["fixed"]))
    rows = tuple((tuple(values), Decimal(str(amount))) for *values, amount in raw.get("rows", ()))
    listed = tuple((values, amount) for values, amount in rows if not is_placeholder(amount))
    if not listed and (fixed is None or is_placeholder(fixed)):
        return None
    return PriceTable(
        unit=raw["unit"],
        per=raw.get("per"),
        per_when=tuple(raw.get("per_when", {}).items()),
        fixed=fixed,
        by=tuple(raw.get("by", ())),
        rows=listed,
        currency=raw.get("currency", "CNY"),
    )
