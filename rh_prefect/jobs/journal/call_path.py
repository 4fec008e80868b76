"""Where in a run a paid call is made: what tells two calls with equal requests apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Likeness = Literal["same", "other", "unclear"]
"""Whether two descriptions are of one thing, of two things, or cannot tell."""


class Place(BaseModel):
    """Which of the calls of one name in one run a call is.

    Attributes:
        in_order: Whether the run itself makes its calls one after the other, so that the number is the same each time;
            False for calls from asyncio tasks and threads of the caller's own.
        given: Hash of the arguments as they were given; None where they cannot be compared.
        number: Which of the calls of this name and with these arguments it is, from 1. Outside of program order each
            asyncio task or thread of the caller's counts for itself.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    in_order: bool = False
    given: str | None = None
    number: int = 1

    def likeness(self, other: Place) -> Likeness:
        """Compares two places of calls with the same names."""
        if self.in_order != other.in_order or self.given != other.given:
            return "unclear"
        if self.number == other.number:
            return "same" if self.in_order else "unclear"
        return "unclear" if self.given is None else "other"


class Step(BaseModel):
    """One Prefect run between the root flow run and a paid call.

    Attributes:
        name: Name of the flow or task.
        place: Which of the calls of this name in the run around it this is.
        arguments: Parameter -> hash of its value; None for a value that cannot be compared.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    place: Place = Place()
    arguments: Mapping[str, str | None] = Field(default_factory=dict)


class Address(BaseModel):
    """Where a paid call is made.

    Attributes:
        steps: The runs between the root flow run and the call, outermost first.
        place: The call's own place in the innermost of them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: tuple[Step, ...] = ()
    place: Place = Place()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the runs, outermost first."""
        return tuple(step.name for step in self.steps)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the runs and of the call, outermost first."""
        return (*(step.place.number for step in self.steps), self.place.number)

    @property
    def digest(self) -> str:
        """A hash of the whole; 12 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def places_like(self, other: Address) -> Likeness:
        """Compares where the runs and the call stand; needs equal names."""
        return _whole(self._compare_places(other))

    def is_beside(self, other: Address) -> bool:
        """Whether both stand in one and the same run, at two places of it; needs equal names."""
        first = next((part for part in self._compare_places(other) if part != "same"), "same")
        return first == "other"

    def arguments_like(self, other: Address, *, common_only: bool) -> Likeness:
        """Compares what the runs were given; needs as many runs.

        Args:
            other: The other address.
            common_only: Whether parameters that only one side has are left out, as after an edit that adds a default.
        """
        pairs = zip(self.steps, other.steps, strict=True)
        return _whole([_arguments_like(one.arguments, two.arguments, common_only) for one, two in pairs])

    def _compare_places(self, other: Address) -> list[Likeness]:
        steps = zip(self.steps, other.steps, strict=True)
        parts = [mine.place.likeness(theirs.place) for mine, theirs in steps]
        return [*parts, self.place.likeness(other.place)]

    def __str__(self) -> str:
        """The way to the call, as in `branch #2 > call #1`; a number with `?` is not one of program order."""
        return " > ".join(
            [*(f"{step.name} {_number(step.place)}" for step in self.steps), f"call {_number(self.place)}"]
        )


def _arguments_like(mine: Mapping[str, str | None], theirs: Mapping[str, str | None], common_only: bool) -> Likeness:
    if not common_only and mine.keys() != theirs.keys():
        return "other"
    common = mine.keys() & theirs.keys()
    known = [name for name in common if mine[name] is not None and theirs[name] is not None]
    if any(mine[name] != theirs[name] for name in known):
        return "other"
    return "same" if len(known) == len(common) else "unclear"


def _whole(parts: list[Likeness]) -> Likeness:
    if "other" in parts:
        return "other"
    return "unclear" if "unclear" in parts else "same"


def _number(place: Place) -> str:
    return f"#{place.number}" if place.in_order else f"#{place.number}?"
