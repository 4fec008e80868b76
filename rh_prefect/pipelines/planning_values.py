"""Values during planning: known ones, and partial information on values that a step has not made yet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rh_prefect.catalog.model import text_of
from rh_prefect.media.media import Media
from rh_prefect.media.source import shown
from rh_prefect.pipelines.references import Names, Reference, Template, parse

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.planned_steps import Instance

Doubts: TypeAlias = frozenset[tuple[int, tuple[str | int, ...]]]
"""Conditions that are not decided yet: each by the id of the frame and the path of the step that has it."""

FRAME_SECONDS = 1 / 24
"""How much longer than asked a generated clip is: a 5 s clip has 121 frames of a 24th of a second."""


class Span(NamedTuple):
    """A number that is known within bounds."""

    least: float
    expected: float
    most: float

    def plus(self, other: Span) -> Span:
        """The sum."""
        return Span(self.least + other.least, self.expected + other.expected, self.most + other.most)

    def times(self, factor: float) -> Span:
        """A multiple."""
        return Span(self.least * factor, self.expected * factor, self.most * factor)


def exactly(number: float) -> Span:
    """A number that is known."""
    return Span(number, number, number)


class Absent:
    """A missing value: an empty field, a skipped step, or the previous item of the first item."""

    def __repr__(self) -> str:
        """Returns a text for messages of tests."""
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A file that exists or that a step will make.

    Attributes:
        kind: Its kind; `file` where that is not known.
        key: Stands for its content: `sha256:…` once that is known, else what it is made by.
        media: Its facts, once it is there.
        seconds: How long it is, where `media` does not say it, or another file may take its place.
        maker: The step that makes it.
        label: A short name of what made it.
        facts: Further facts, such as `starts`.
        address: Where a run reads it, with the signature of a link; `media` has it without, as plans and pages show it.
    """

    kind: str
    key: str
    media: Media | None = None
    seconds: Span | None = None
    maker: Instance | None = field(default=None, compare=False)
    label: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    address: str = field(default="", compare=False, repr=False)

    @property
    def length(self) -> Span | None:
        """Its length in seconds; None where it has none, or it is not known."""
        if self.seconds is None and self.media is not None and self.media.seconds is not None:
            return exactly(self.media.seconds)
        return self.seconds

    @property
    def is_settled(self) -> bool:
        """Whether its content is known."""
        return self.media is not None or self.key.startswith("sha256:")


@dataclass(frozen=True, slots=True, repr=False)
class Unknown:
    """A text, number or boolean that is not known yet.

    Attributes:
        kind: Its type.
        key: What it is made by.
        span: The characters of a text, or the number itself.
        maker: The step that makes it.
        is_settled: Whether `key` says all that counts for a request, as for an id that ends at RunningHub.
        sent: What is sent in its place, once it is known.
    """

    kind: str
    key: str
    span: Span | None = None
    maker: Instance | None = field(default=None, compare=False)
    is_settled: bool = False
    sent: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Items:
    """A list, each value with the item that it belongs to.

    Attributes:
        values: The values; none of them is absent.
        owners: The items.
        sure: Whether the value is there in the cheapest course of the run, too.
        count: How many there are, where the list itself is not known yet.
    """

    values: tuple[Any, ...]
    owners: tuple[Frame | None, ...] = ()
    sure: tuple[bool, ...] = ()
    count: Unknown | None = None

    def pairs(self) -> Iterator[tuple[Any, Frame | None, bool]]:
        """Values with their items."""
        size = len(self.values)
        yield from zip(self.values, self.owners or (None,) * size, self.sure or (True,) * size, strict=True)


@dataclass(frozen=True, slots=True, repr=False)
class StepOutput:
    """The output of a step; `$(step)` is its `value`.

    Attributes:
        value: The result.
        takes: Every take's.
        label: A short name of what made it.
        cost: What it cost.
        doubts: The undecided conditions on which it depends whether the step is made.
    """

    value: Any
    takes: tuple[Any, ...] = ()
    label: str = ""
    cost: Any = ABSENT
    doubts: Doubts = frozenset()


@dataclass(slots=True, eq=False, repr=False)
class Frame:
    """The names that can be referenced in one item.

    Attributes:
        outer: The frame around it.
        names: Values by name.
        id: The item's id, with those of the items around it: `anna/calm-5`.
        number: Its number among its siblings, from 1.
        is_sure: Whether the item is there in the cheapest course of the run, too.
        row: The row that it comes from, for messages.
        is_pending: Whether it is not known yet that there is such an item.
        waits_for: The steps that decide whether the item's steps are made: those that conditions refer to, and those
            without a result that the item is taken from.
        problems: What is wrong with the values that a used file's parameters were given.
        doubts: The undecided conditions of the groups and files around it.
    """

    outer: Frame | None = None
    names: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    number: int = 0
    is_sure: bool = True
    row: str = ""
    is_pending: bool = False
    waits_for: Sequence[Instance] = ()
    problems: Sequence[str] = ()
    doubts: Doubts = frozenset()

    def find(self, name: str) -> Any:
        """The value of a name; absent where there is none."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame.names[name]
            frame = frame.outer
        return ABSENT

    @property
    def row_around(self) -> str:
        """The row of the item, or of the item around it."""
        frame: Frame | None = self
        while frame is not None and not frame.row:
            frame = frame.outer
        return "" if frame is None else frame.row

    @property
    def problems_around(self) -> list[str]:
        """What is wrong with the values of the files around it; a run knows them only later than its plan."""
        around = [] if self.outer is None else self.outer.problems_around
        return [*self.problems, *around]


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """A group after it was expanded.

    Attributes:
        frames: Its items; of a group without fan-out its one frame.
        is_fan_out: Whether it is a fan-out.
        chosen: How many of its items there will be at most, where it is not known yet which ones `limit` leaves.
    """

    frames: list[Frame]
    is_fan_out: bool
    chosen: int | None = None


def lookup(reference: Reference, frame: Frame) -> Any:
    """Returns the value of a reference: the first of its options that exists.

    While it is not known whether that one exists, its length covers those of the next options, up to a certain one.

    Args:
        reference: It.
        frame: The names at its place.
    """
    options: list[Any] = []
    for names in reference.options:
        found = _result(_follow(names, frame))
        if found is not ABSENT:
            options.append(found)
            if not _is_doubtful(found, frame):
                break
    return _either(options) if options else ABSENT


def _is_doubtful(value: Any, frame: Frame) -> bool:
    maker = value.maker if isinstance(value, File | Unknown) else None
    return maker is not None and bool(maker.doubts - frame.doubts)


def _either(options: Sequence[Any]) -> Any:
    first, *others = options
    if others and isinstance(first, File) and first.length is not None:
        lengths = [one.length for one in others if isinstance(one, File)]
        return replace(first, seconds=_hull([first.length, *filter(None, lengths)]))
    if isinstance(first, Unknown) and first.span is not None:
        return replace(first, span=_hull([first.span, *filter(None, map(_span_of, others))]))
    return first


def _span_of(value: Any) -> Span | None:
    if isinstance(value, Unknown):
        return value.span
    return exactly(len(value)) if isinstance(value, str) else None


def _hull(spans: Sequence[Span]) -> Span:
    return Span(min(one.least for one in spans), max(one.expected for one in spans), max(one.most for one in spans))


def _follow(names: Names, frame: Frame) -> Any:
    value = frame.find(names[0])
    for name in names[1:]:
        value = part(value, name)
        if value is ABSENT:
            break
    return value


def _result(value: Any) -> Any:
    value = value.value if isinstance(value, StepOutput) else value
    return ABSENT if value is None else value


def part(value: Any, name: str) -> Any:
    """Returns a field of a value; of a list, the field of each item.

    Args:
        value: The value.
        name: The field.
    """
    match value:
        case StepOutput():
            return _of_output(value, name)
        case Group(is_fan_out=False):
            return value.frames[0].names.get(name, ABSENT)
        case Group():
            return _of_items(value, name)
        case Items():
            if name == "count":
                return value.count or len(value.values)
            return _flat((part(one, name), owner, sure) for one, owner, sure in value.pairs())
        case File():
            return _of_file(value, name)
        case dict():
            return value.get(name, ABSENT)
    return ABSENT


def _of_output(output: StepOutput, name: str) -> Any:
    if name == "takes":
        return Items(tuple(StepOutput(one, label=output.label) for one in output.takes))
    if name == "label":
        return output.label
    return output.cost if name == "cost" else part(output.value, name)


def _of_items(group: Group, name: str) -> Any:
    if name == "count" and group.chosen is not None:
        keys = digest([frame.id for frame in group.frames])
        return Unknown("integer", f"count:{keys}", Span(0, group.chosen, group.chosen))
    if name == "count":
        return len(group.frames)
    return _flat((frame.names.get(name, ABSENT), frame, frame.is_sure) for frame in group.frames)


def _flat(found: Iterable[tuple[Any, Frame | None, bool]]) -> Items:
    """Returns one list of all present values, in order; lists do not nest."""
    values: list[Any] = []
    owners: list[Frame | None] = []
    sure: list[bool] = []
    for value, owner, is_sure in found:
        if isinstance(value, Group) and value.is_fan_out:
            values.extend([_one_frame(frame) for frame in value.frames])
            owners.extend(value.frames)
            sure.extend(frame.is_sure and is_sure for frame in value.frames)
        elif isinstance(value, Items):
            values.extend(value.values)
            owners.extend([own or owner for own in value.owners or (None,) * len(value.values)])
            sure.extend(is_sure and own for own in value.sure or (True,) * len(value.values))
        elif _result(value) is not ABSENT:
            values.append(value)
            owners.append(owner)
            sure.append(is_sure)
    return Items(tuple(values), tuple(owners), tuple(sure))


def _one_frame(frame: Frame) -> dict[str, Any]:
    return frame.names


def results(items: Items) -> tuple[Any, ...]:
    """Returns the values of a list, with steps replaced by their results."""
    return tuple(_result(value) for value in items.values)


def _of_file(file: File, name: str) -> Any:
    if name in file.facts:
        return file.facts[name]
    if name in ("seconds", "milliseconds"):
        return _length(file, name)
    if file.media is None:
        kind = "integer" if name in ("width", "height", "size") else "string"
        return Unknown(kind, f"{file.key}.{name}", maker=file.maker)
    if name == "uri":
        return shown(file.media)
    if name == "stem":
        return PurePosixPath(file.media.name).stem
    found = getattr(file.media, name, None)
    return ABSENT if found is None else found


def _length(file: File, name: str) -> Any:
    factor = 1000 if name == "milliseconds" else 1
    if file.media is not None and file.media.seconds is not None:
        seconds = file.media.seconds
        return round(seconds * 1000) if name == "milliseconds" else seconds
    span = file.seconds.times(factor) if file.seconds is not None else None
    return Unknown("number" if factor == 1 else "integer", f"{file.key}.{name}", span, file.maker, file.is_settled)


def evaluate(value: Any, frame: Frame) -> Any:
    """Returns a value of the file with its references replaced.

    Args:
        value: Plain JSON data.
        frame: The names at its place.
    """
    if isinstance(value, str):
        return evaluate_text(parse(value), frame)
    if isinstance(value, dict):
        found = {name: evaluate(one, frame) for name, one in value.items()}
        return {name: one for name, one in found.items() if one is not ABSENT}
    if isinstance(value, list):
        return [one for one in (evaluate(one, frame) for one in value) if one is not ABSENT]
    return ABSENT if value is None else value


def evaluate_text(template: Template, frame: Frame) -> Any:
    """Replaces the references in a text; a text that is a single reference keeps that value's type.

    Args:
        template: The text.
        frame: The names at its place.
    """
    if template.only is not None:
        return lookup(template.only, frame)
    if template.literal is not None:
        return template.literal
    parts = [part if isinstance(part, str) else lookup(part, frame) for part in template.parts]
    if any(isinstance(one, Unknown) for one in parts):
        return _unknown_text(parts)
    return "".join("" if one is ABSENT else text_of(one) for one in parts)


def _unknown_text(parts: Sequence[Any]) -> Unknown:
    span = exactly(0)
    for one in parts:
        span = span.plus(characters(one))
    unknown = [one for one in parts if isinstance(one, Unknown)]
    key = digest([one.key if isinstance(one, Unknown) else text_of(one) for one in parts])
    settled = all(one.is_settled for one in unknown)
    known = [one.sent if isinstance(one, Unknown) else "" if one is ABSENT else text_of(one) for one in parts]
    sent = None if None in known else "".join(filter(None, known))
    return Unknown("string", f"text:{key}", span, unknown[0].maker, settled, sent)


def characters(value: Any) -> Span:
    """Returns the number of characters of a value as text."""
    if isinstance(value, Unknown):
        return value.span if value.kind == "string" and value.span is not None else Span(0, 300, 2000)
    return exactly(0 if value is ABSENT else len(text_of(value)))


def digest(value: Any) -> str:
    """A short hash of JSON data, for keys within one plan."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def makers(value: Any) -> Iterator[Instance]:
    """Yields the steps that a value comes from."""
    match value:
        case File() | Unknown():
            if value.maker is not None:
                yield value.maker
        case StepOutput():
            yield from makers(value.value)
        case Items():
            for one in value.values:
                yield from makers(one)
        case dict():
            for one in value.values():
                yield from makers(one)
        case list() | tuple():
            for one in value:
                yield from makers(one)


def number_of(value: Any) -> Span | None:
    """Converts a value to a number, known or unknown; returns None if it is not a number."""
    if isinstance(value, Unknown):
        return value.span if value.kind in ("number", "integer") else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return exactly(number) if math.isfinite(number) else None
