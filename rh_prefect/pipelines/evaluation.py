"""Evaluates references: what a value of the file stands for in one item, as far as a plan knows it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rh_prefect.catalog.model import text_of
from rh_prefect.media.input_files import shown
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    Doubts,
    File,
    Frame,
    Group,
    Items,
    Span,
    StepOutput,
    Undecided,
    Unknown,
    characters,
    digest,
    exactly,
    makers,
)
from rh_prefect.pipelines.references import Names, Reference, Template, parse
from rh_prefect.pipelines.references import shown as shown_text
from rh_prefect.pipelines.types import Type, of_items, of_literal

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.planned_steps import Instance

_LONGEST_SLUG = 80


def lookup(reference: Reference, frame: Frame) -> Any:
    """Returns the value of a reference: the first of its options that exists.

    While it is not known whether that one exists, its length covers those of the next options, up to a certain one; of
    lists, it is the longest one.

    Args:
        reference: It.
        frame: The names at its place.
    """
    options: list[Any] = []
    for names in reference.options:
        found, doubts = follow(names, frame)
        if _result(found) is not ABSENT:
            options.append(_result(found))
            if not doubts - frame.doubts:
                break
    else:
        options += [] if reference.fallback is None else [reference.fallback]
    return _either(options) if options else ABSENT


def maker_of(reference: Reference, frame: Frame) -> Instance | None:
    """Returns the step that a reference's value comes from, also where that is a known text; None if there is none.

    Args:
        reference: It.
        frame: The names at its place.
    """
    names = next((one for one in reference.options if _result(follow(one, frame)[0]) is not ABSENT), ())
    values = [follow(names[:end], frame)[0] for end in range(len(names), 0, -1)]
    return next((one.maker for one in values if isinstance(one, StepOutput) and one.maker is not None), None)


def _either(options: Sequence[Any]) -> Any:
    first, *others = options
    if others and isinstance(first, File) and first.length is not None:
        lengths = [one.length for one in others if isinstance(one, File)]
        return replace(first, seconds=_hull([first.length, *filter(None, lengths)]))
    if isinstance(first, Unknown) and first.span is not None:
        return replace(first, span=_hull([first.span, *filter(None, map(_span_of, others))]))
    if isinstance(first, Items):
        return max((one for one in options if isinstance(one, Items)), key=lambda one: len(one.values))
    return first


def _span_of(value: Any) -> Span | None:
    if isinstance(value, Unknown):
        return value.span
    return exactly(len(value)) if isinstance(value, str) else None


def _hull(spans: Sequence[Span]) -> Span:
    return Span(min(one.least for one in spans), max(one.expected for one in spans), max(one.most for one in spans))


def follow(names: Names, frame: Frame, failed: Collection[str] = ()) -> tuple[Any, set[Undecided]]:
    """Returns the value of a name and its fields, and the undecided conditions of the steps on the way to it.

    Args:
        names: The name and the fields.
        frame: The names at their place.
        failed: See `conditions.doubts_of_choices`.
    """
    value = frame.find(names[0])
    found = {*doubts_of(value, failed)}
    for name in names[1:]:
        if name == "count" and _is_open_list(value):
            found.add(Undecided())
        value = part(value, name)
        found |= doubts_of(value, failed)
    return value, found


def doubts_of(value: Any, failed: Collection[str] = ()) -> Doubts:
    """Returns the undecided conditions of the step that a value comes from; of a list, of its items, too.

    Args:
        value: The value of a name, or a part of one.
        failed: See `conditions.doubts_of_choices`.
    """
    match value:
        case StepOutput():
            return value.doubts
        case File() | Unknown():
            return value.maker.doubts if value.maker is not None else frozenset()
        case Items():
            pairs = [(one, owner) for one, owner, _ in value.pairs() if not _is_of(failed, one, owner)]
            owners = {id(owner): owner.doubts for _, owner in pairs if owner is not None}
            return Doubts().union(*(doubts_of(one) for one, _ in pairs), *owners.values())
        case Group(is_fan_out=False):
            return value.frames[0].doubts
    return frozenset()


def _is_of(failed: Collection[str], value: Any, owner: Frame | None) -> bool:
    """Returns whether a value of a list is one of a failed step, or of an item that waits for one."""
    if not failed:
        return False
    waits_for = () if owner is None else owner.waits_for
    return any(maker.address in failed for maker in (*makers(value), *waits_for))


def _is_open_list(value: Any) -> bool:
    """Returns whether a list, or a group with items, may turn out shorter."""
    if isinstance(value, Group):
        return any(one.is_pending for one in value.frames)
    return isinstance(value, Items) and not all(value.sure)


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
            return _open_like([value], _flat((part(one, name), owner, sure) for one, owner, sure in value.pairs()))
        case File():
            return _of_file(value, name)
        case dict():
            return value.get(name, ABSENT)
        case list():
            return part(Items(tuple(value)), name)
        case Unknown() if name == "slug":
            return replace(value, kind="string", key=f"{value.key}.slug", is_settled=False, sent=None)
        case str() | int() | float() if name == "slug":
            return slug(text_of(value))
    return ABSENT


def slug(text: str) -> str:
    """Returns a text as a part of a file's name: letters, digits and single dashes; an accent is left out.

    Args:
        text: The text; of one without a letter or digit, the result is a hash.
    """
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    found = re.sub(r"[\W_]+", "-", plain.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-")
    return found or digest(text)[:8]


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
        return group.count or len(group.frames)
    found = [frame.names.get(name, ABSENT) for frame in group.frames]
    items = _flat((one, frame, frame.is_sure) for one, frame in zip(found, group.frames, strict=True))
    return _open_like([group, *found], items)


def _open_like(sources: Sequence[Any], items: Items) -> Items:
    """Returns a list that is as long as a list of an answer: its length is not known while that of a source is not."""
    counts = (one.count for one in sources if isinstance(one, Items | Group))
    return replace(items, count=next(filter(None, counts), None))


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


def _joined(values: Sequence[Any]) -> Items:
    """Returns one list of single values and of the values of lists, as `[$(intro), $(each.clip)]` means it."""
    items = _flat((value, None, True) for value in values)
    counts = [one.count for one in values if isinstance(one, Items) and one.count is not None]
    if not counts:
        return items
    known = len(items.values) - sum(len(one.values) for one in values if isinstance(one, Items) and one.count)
    span = exactly(known)
    for count in counts:
        span = span.plus(count.span or exactly(0))
    return replace(items, count=Unknown("integer", digest([one.key for one in counts]), span, counts[0].maker))


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
        items = [one for one in (evaluate(one, frame) for one in value) if one is not ABSENT]
        return _joined(items) if any(isinstance(one, Items) for one in items) else items
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


def type_of(value: Any) -> Type:
    """Returns the type of a value, as `check` has it for a value of which only that is known.

    Args:
        value: A value, or its type.
    """
    match value:
        case Type():
            return value
        case File() | Unknown():
            return Type(value.kind)
        case StepOutput():
            return type_of(value.value)
        case Items():
            return of_items([type_of(one) for one in value.values])
        case list():
            return of_items([type_of(one) for one in value])
        case dict():
            return Type("object", fields={name: type_of(one) for name, one in value.items()})
    return of_literal(value)


def named(value: Any, written: Any) -> str:
    """Returns how a message names a value: a known one as it is, another one as it is written.

    Args:
        value: The value.
        written: What stands for it in the file.
    """
    text = written if isinstance(value, File | Unknown | StepOutput | list | dict) else value
    return "this" if isinstance(text, list | dict) else shown_text(text)
