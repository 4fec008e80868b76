"""Reads JSON values of any type without raising, and defines the base class of the parsed values."""

from __future__ import annotations

import json
from decimal import Decimal, DecimalException
from math import isfinite
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

LONGEST_NUMBER: Final = 40
"""Maximum number of digits before the decimal point in an amount or an id."""


def loads(body: bytes | str) -> object:
    """Decodes JSON with all digits of numbers, as `int` or `Decimal`; None for `null` and for invalid JSON."""
    try:
        return json.loads(body, parse_float=_number, parse_constant=str)
    except (ValueError, RecursionError):
        return None


def _number(digits: str) -> object:
    try:
        return Decimal(digits)
    except DecimalException:
        return digits


def text(value: object) -> str:
    """Returns a string or number as a string, with all digits; null, booleans and containers become an empty string."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate could be neither logged nor stored
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return ""
    return str(int(value)) if isinstance(value, Decimal) and _is_whole(value) else str(value)


def _is_whole(value: Decimal) -> bool:
    return value.is_finite() and value.adjusted() < LONGEST_NUMBER and value == value.to_integral_value()


def amount(value: object) -> Decimal | None:
    """Reads an amount that may be sent as a string, a number or null."""
    try:
        number = Decimal(text(value).strip())
    except DecimalException:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < LONGEST_NUMBER else None


def count(value: object) -> int | None:
    """Reads a whole number that may be sent as a string, a number or null."""
    number = amount(value)
    return None if number is None else int(number)


def flag(value: object) -> bool:
    """Reads an on/off value that may be sent as a boolean, a number or a word."""
    return value is True or text(value).strip().lower() in {"1", "true", "yes"}


def shown(value: object) -> str:
    """Returns the value of an input field as a user would type it."""
    return str(value).lower() if isinstance(value, bool) else compact(value)


def plain(value: object) -> object:
    """Converts a value for `json.dumps`: a fraction becomes a `float`, or a string if no float can represent it."""
    try:
        return _plain(value)
    except RecursionError:
        return None


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {text(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return text(value)
    if not isinstance(value, Decimal):
        return value
    number = float(value)
    return number if isfinite(number) else str(value)


def unfold(value: object) -> object:
    """Decodes a string that itself contains JSON, as in `promptTips` and `traceback`."""
    while isinstance(value, str) and value.lstrip().startswith(("{", "[", '"')):
        inner = loads(value)
        if inner is None or inner == value:
            return value
        value = inner
    return value


def table(value: object) -> dict[str, object]:
    """Returns the value, decoded with `unfold`, if it is a dictionary; otherwise an empty dictionary."""
    found = unfold(value)
    return found if isinstance(found, dict) else {}


def rows(value: object) -> list[object]:
    """Returns the value as a list: null becomes an empty list, and any other value becomes its only item."""
    found = unfold(value)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def first_text(source: dict[str, object], *names: str) -> str:
    """Returns the first of the named fields that is not empty, as a string; an empty string if all are empty."""
    return next((found for name in names if (found := text(source.get(name)).strip())), "")


def compact(value: object) -> str:
    """Formats a value as one line for a user."""
    if value is None or isinstance(value, str | int | Decimal):
        return text(value)
    try:
        return text(json.dumps(value, ensure_ascii=False, default=str))
    except (ValueError, RecursionError):
        return "..."


Text = Annotated[str, BeforeValidator(lambda value: text(value).strip())]
Upper = Annotated[str, BeforeValidator(lambda value: text(value).strip().upper())]
OptionalText = Annotated[str | None, BeforeValidator(lambda value: text(value).strip() or None)]
Amount = Annotated[Decimal | None, BeforeValidator(amount)]
Count = Annotated[int | None, BeforeValidator(count)]
Number = Annotated[int, BeforeValidator(lambda value: count(value) or 0)]
Flag = Annotated[bool, BeforeValidator(flag)]


def wire(*names: str, default: object = "", repr: bool = True) -> Any:  # noqa: A002, as of `Field`
    """Declares a field of a `Value`, with the names that the field may have in a response."""
    return Field(default=default, validation_alias=AliasChoices(*names), repr=repr)


class Value(BaseModel):
    """A frozen value that can be converted to JSON and back."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    @classmethod
    def read(cls, source: dict[str, object], **known: object) -> Self:
        """Reads each `wire` field from the first of its names that has a value; else uses `known` or the default."""
        for field, info in cls.model_fields.items():
            names = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else ()
            values = (source.get(str(name)) for name in names)
            found = next((value for value in values if value is not None and not _is_blank(value)), None)
            if found is not None:
                known[field] = found
        return cls.model_validate(known)


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


Item = TypeVar("Item", bound=Value)


class Page(Value, Generic[Item]):
    """One page of a list.

    Each kind of page is a separate class, because Prefect finds the class of a stored result by its name, and `Page[…]`
    has no name.
    """

    items: tuple[Item, ...] = ()  # The items on the page
    number: int = 1  # The number of the page, from 1
    total: Count = wire("total", "totalCount", default=None)  # The number of items on all pages, if known
    has_next: Flag = wire("hasNext", default=False)  # Whether there is another page
