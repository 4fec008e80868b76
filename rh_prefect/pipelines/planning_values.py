"""Values during planning: known values, and the known properties of values that a step has not made yet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from rh_prefect.catalog.model import text_of
from rh_prefect.media.media import Media

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.planned_steps import PlannedStep


FRAME_SECONDS = 1 / 24
"""Seconds by which a generated clip is longer than requested: a 5 s clip has 121 frames of 1/24 s."""


class Span(NamedTuple):
    """The minimum, the expected and the maximum value of a number."""

    least: float
    expected: float
    most: float

    def plus(self, other: Span) -> Span:
        """Returns the sums of the minimum, the expected and the maximum values."""
        return Span(self.least + other.least, self.expected + other.expected, self.most + other.most)

    def less(self, other: Span) -> Span:
        """Returns the difference, from `self.least - other.most` to `self.most - other.least`."""
        return Span(self.least - other.most, self.expected - other.expected, self.most - other.least)

    def times(self, factor: float) -> Span:
        """Returns the span with all three values multiplied."""
        return Span(self.least * factor, self.expected * factor, self.most * factor)


def exactly(number: float) -> Span:
    """Returns the span of a known number: its three values are equal."""
    return Span(number, number, number)


class Absent:
    """A missing value: an empty field, a skipped step, or the previous item of the first item."""

    def __repr__(self) -> str:
        """Returns a name for test messages."""
        return "ABSENT"


ABSENT = Absent()

EMPTY: Mapping[str, Any] = MappingProxyType({})
"""One empty mapping, shared to save memory in plans with thousands of steps."""


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A file that exists, or that a step will make."""

    kind: str  # Its kind; `file` if that is not known
    key: str  # Identifies its content: `sha256:…` if that is known, else a key of the step that makes it
    media: Media | None = None  # Its facts, once it exists
    seconds: Span | None = None  # How long it is, if `media` does not say it, or another file may take its place
    maker: PlannedStep | None = field(default=None, compare=False)  # The step that makes it
    label: str = ""  # A short name of what made it
    facts: Mapping[str, Any] = field(default_factory=lambda: EMPTY, compare=False)  # Further facts, such as `starts`
    # Where a run reads it, with the signature of a link; `media` has it without, as plans and pages show it
    address: str = field(default="", compare=False, repr=False)
    problem: str = field(default="", compare=False)  # Why it cannot be used, of an item of a list that is skipped
    # The review in which it was chosen, which may save it under another name
    review: PlannedStep | None = field(default=None, compare=False, repr=False)

    @property
    def located(self) -> Media | None:
        """The file where a run reads it; no page shows this address."""
        return self.media and self.media.at(self.address or self.media.uri)

    @property
    def length(self) -> Span | None:
        """The length of the file in seconds; None if the file has no length, or if the length is not known."""
        if self.seconds is None and self.media is not None and self.media.seconds is not None:
            return exactly(self.media.seconds)
        return self.seconds

    @property
    def is_settled(self) -> bool:
        """Whether the content of the file is known."""
        return self.media is not None or self.key.startswith("sha256:")


@dataclass(frozen=True, slots=True, repr=False)
class Unknown:
    """A string, number or boolean whose value is not known."""

    kind: str  # Its type
    key: str  # Identifies the value by the step that makes it
    span: Span | None = None  # The characters of a text, or the number itself
    maker: PlannedStep | None = field(default=None, compare=False)  # The step that makes it
    is_settled: bool = False  # Whether a request is hashed with `key` and not with the value, as for expiring ids
    sent: str | None = field(default=None, compare=False)  # What is sent in its place, once it is known


@dataclass(frozen=True, slots=True, repr=False)
class Items:
    """A list of values, which may belong to items of a fan-out."""

    values: tuple[Any, ...]  # The values; none of them is absent
    owners: tuple[Frame | None, ...] = ()  # The items
    sure: tuple[bool, ...] = ()  # Whether the value exists even in the cheapest course of the run
    count: Unknown | None = None  # How many there are, if the list itself is not known yet

    @classmethod
    def of(cls, triples: Sequence[tuple[Any, Frame | None, bool]], count: Unknown | None = None) -> Items:
        """Returns a list from the result of `pairs`."""
        values, owners, sure = zip(*triples, strict=True) if triples else ((), (), ())
        return cls(values, owners, sure, count)

    def pairs(self) -> Iterator[tuple[Any, Frame | None, bool]]:
        """Yields each value, with its item if it has one, and whether the value certainly exists."""
        size = len(self.values)
        yield from zip(self.values, self.owners or (None,) * size, self.sure or (True,) * size, strict=True)


@dataclass(frozen=True, slots=True, repr=False)
class Maybe:
    """A value that may be absent, because a condition is undecided; steps that use the value wait."""

    value: Any  # The value, if it exists
    by: tuple[PlannedStep, ...] = field(default=(), compare=False)  # The steps that decide it


def maybe(value: Any, by: Iterable[PlannedStep] | None) -> Any:
    """Returns a value whose existence some steps decide; `by` is None if the value certainly exists."""
    if by is None or value is ABSENT:
        return value
    if isinstance(value, Maybe):
        return Maybe(value.value, tuple(dict.fromkeys([*by, *value.by])))
    return Maybe(value, tuple(by))


def certain(value: Any) -> Any:
    """Returns the value of a `Maybe`, as if it certainly existed, and any other value unchanged."""
    return value.value if isinstance(value, Maybe) else value


def parts(value: Any) -> Iterable[Any]:
    """Returns the values directly inside a value; empty for a string, a number or a file."""
    match value:
        case StepOutput() | Maybe():
            return (value.value,)
        case Items():
            return value.values
        case dict():
            return value.values()
        case list() | tuple():
            return value
    return ()


def undecided_in(value: Any) -> Iterator[Maybe]:
    """Yields the undecided parts of a value."""
    if isinstance(value, Maybe):
        yield value
    for one in parts(value):
        yield from undecided_in(one)


def deciders_of(values: Iterable[Maybe]) -> list[PlannedStep]:
    """Returns the steps that decide whether some values exist."""
    return list(dict.fromkeys(one for value in values for one in value.by))


@dataclass(frozen=True, slots=True, repr=False)
class StepOutput:
    """The output of a step; `$(step)` is its `value`."""

    value: Any  # The result
    takes: tuple[Any, ...] = ()  # Every take's
    label: str = ""  # A short name of what made it
    # The step, even if the result is a known text; None for a used file
    maker: PlannedStep | None = field(default=None, compare=False)


def content(value: Any) -> Any:
    """Returns the result in a step's output, as if it certainly existed, and any other value unchanged."""
    value = certain(value)
    return value.value if isinstance(value, StepOutput) else value


def as_items(values: Items | list[Any]) -> Items:
    """Returns a list as `Items`."""
    return values if isinstance(values, Items) else Items(tuple(values))


@dataclass(slots=True, eq=False, repr=False)
class Frame:
    """The names that references can use in one item, or outside of fan-outs."""

    outer: Frame | None = None  # The frame around it
    names: dict[str, Any] = field(default_factory=dict)  # Values by name
    id: str = ""  # The item's id, with those of the items around it: `anna/calm-5`
    is_sure: bool = True  # Whether the item exists even in the cheapest course of the run
    row: str = ""  # The row that it comes from, for messages
    is_pending: bool = False  # Whether it is not known yet that there is such an item
    # The steps that decide whether the item's steps are made: those that conditions refer to, and those without a
    # result that the item is taken from
    waits_for: Sequence[PlannedStep] = ()
    # What is wrong with the item, or with the values that a used file's parameters were given
    problems: Sequence[str] = ()
    by: tuple[PlannedStep, ...] | None = None  # The steps that decide whether it exists; None if it certainly exists
    # For each step of the item with an undecided condition, by the step's path: the steps that decide the condition
    undecided: dict[tuple[str | int, ...], tuple[PlannedStep, ...]] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()  # The item's number, after those of the items around it; empty outside of fan-outs
    is_numbered: bool = False  # Whether its id is, or has in it, its number
    # For an id with a number, or below one: a hash of the item, which it keeps when its number changes
    meaning: str = ""
    is_named: bool = True  # Whether its id, and those of the items around it, are known; they choose the takes

    def find(self, name: str) -> Any:
        """Returns the value of a name in this frame or in a frame around it; `ABSENT` if no frame has the name."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame.names[name]
            frame = frame.outer
        return ABSENT

    def around(self) -> Iterator[Frame]:
        """Yields this frame and the frames around it, the inner ones first."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.outer

    def wait_for(self, steps: Iterable[PlannedStep]) -> None:
        """Makes the item's existence depend on some steps."""
        steps = list(steps)
        self.by = tuple(dict.fromkeys([*(self.by or ()), *steps]))
        self.waits_for = tuple(dict.fromkeys([*self.waits_for, *steps]))

    def deciders(self, at: tuple[str | int, ...] = ()) -> tuple[PlannedStep, ...]:
        """Returns the steps that decide whether the item, the items around it, and its step at the path `at` exist."""
        by = (step for frame in self.around() for step in frame.by or ())
        return tuple(dict.fromkeys([*self.undecided.get(at, ()), *by]))

    @property
    def row_around(self) -> str:
        """The row of the item, or of the nearest item around it with a row."""
        return next((frame.row for frame in self.around() if frame.row), "")

    @property
    def problems_around(self) -> list[str]:
        """The problems of the item and of the items around it."""
        return [problem for frame in self.around() for problem in frame.problems]


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """A group of steps with its items."""

    frames: list[Frame]  # Its items; of a group without fan-out its one frame
    is_fan_out: bool  # Whether it is a fan-out
    # How many of its items there will be at most, if it is not known yet which ones `limit` leaves
    chosen: int | None = None
    count: Unknown | None = None  # How many items there are, if the list that they are taken from is not known yet


def characters(value: Any) -> Span:
    """Returns how many characters a value has as a string; the maximum is infinite for a string without a limit."""
    value = certain(value)
    if isinstance(value, Unknown):
        if value.kind in ("number", "integer", "boolean"):
            return Span(1, 5, 25)
        return value.span or Span(0, 300, math.inf)
    return exactly(0 if value is ABSENT else len(text_of(value)))


def problems_of(item: Any) -> Sequence[str]:
    """Returns the problems of an item in a table or in a list of files."""
    if isinstance(item, File):
        return (item.problem,) if item.problem else ()
    return item.get("\0problems", ()) if isinstance(item, dict) else ()


def digest(value: Any) -> str:
    """Returns a short hash of JSON data, for keys within one plan."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def leaves(value: Any) -> Iterator[Any]:
    """Yields the individual values in the lists and mappings of a step's parameter."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
    else:
        yield value


def makers(value: Any) -> Iterator[PlannedStep]:
    """Yields the steps that make a value."""
    if isinstance(value, File | Unknown) and value.maker is not None:
        yield value.maker
    for one in parts(value):
        yield from makers(one)


def number_of(value: Any) -> Span | None:
    """Converts a value to a number, known or unknown; returns None for a value that is not a number."""
    value = certain(value)
    if isinstance(value, Unknown):
        return value.span if value.kind in ("number", "integer") else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return exactly(number) if math.isfinite(number) else None
