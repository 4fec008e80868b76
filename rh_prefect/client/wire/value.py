"""What all values of the wire have in common, and the page that lists come in."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen value that goes to JSON and back."""

    model_config = ConfigDict(frozen=True)


Item = TypeVar("Item", bound=Value)


class Page(Value, Generic[Item]):
    """One page of a list.

    Each kind of page is a class of its own: Prefect's stored results find a class by its name, and `Page[…]` has none.

    Attributes:
        items: What is on it.
        number: Its number, from 1.
        total: How many items all pages have, if known.
        has_next: Whether there is another page behind it.
    """

    items: tuple[Item, ...] = ()
    number: int = 1
    total: int | None = None
    has_next: bool = False
