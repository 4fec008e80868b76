"""Evaluates the references in a file's values for one item, as far as the plan knows the results."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rh_prefect.catalog.model import text_of
from rh_prefect.media.input_files import shown
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    EMPTY,
    File,
    Frame,
    Group,
    Items,
    Maybe,
    Span,
    StepOutput,
    Unknown,
    certain,
    characters,
    content,
    deciders_of,
    digest,
    exactly,
    maybe,
    number_of,
    undecided_in,
)
from rh_prefect.pipelines.references import Names, Reference, Template, parse, texts_in
from rh_prefect.pipelines.references import shown as shown_text
from rh_prefect.pipelines.types import FACTS, NUMBERS, Type, of_items, of_literal

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.planned_steps import PlannedStep

_LONGEST_SLUG = 80
_SLUG = Span(1, 40, _LONGEST_SLUG)


def lookup(reference: Reference, frame: Frame) -> Any:
    """Returns the value of a reference: the first of its options that exists.

    If it is not known which option exists, the range of the value or of its length covers all possible options; the
    range is unknown if that of one option is unknown. If the options are lists, the longest list is returned.
    """
    if len(reference.options) == 1 and reference.fallback is None:  # as most are
        return _result(follow(reference.options[0], frame))
    options: list[Any] = []
    by: list[PlannedStep] = []
    is_open = False
    for names in reference.options:
        found = _result(follow(names, frame))
        if found is ABSENT:
            continue
        options.append(certain(found))
        if not isinstance(found, Maybe):
            break
        is_open, by = True, [*by, *found.by]
    else:
        options += [] if reference.fallback is None else [reference.fallback]
    return maybe(_either(options), by if is_open else None) if options else ABSENT


def maker_of(reference: Reference, frame: Frame) -> PlannedStep | None:
    """Returns the step that makes a reference's value; None if no step makes it."""
    names = next((one for one in reference.options if _result(follow(one, frame)) is not ABSENT), ())
    values = [certain(follow(names[:end], frame)) for end in range(len(names), 0, -1)]
    return next((one.maker for one in values if isinstance(one, StepOutput) and one.maker is not None), None)


def _either(options: Sequence[Any]) -> Any:
    first, *others = options
    if isinstance(first, Items):
        return max((one for one in options if isinstance(one, Items)), key=lambda one: len(one.values))
    if isinstance(first, dict):
        return _either_field([one for one in options if isinstance(one, dict)])
    if all(one == first for one in others):
        return first
    if isinstance(first, File):
        files = [one for one in options if isinstance(one, File)]
        facts, seconds = _either_field([one.facts for one in files]) or EMPTY, _hull([one.length for one in files])
        return replace(first, media=None, seconds=seconds, facts=facts)
    kind, key = type_of(first).kind, f"or:{digest([one.key if isinstance(one, Unknown) else one for one in options])}"
    span = _hull([(number_of if kind in NUMBERS else characters)(one) for one in options])
    return replace(first, span=span) if isinstance(first, Unknown) else Unknown(kind, key, span)


def _either_field(options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the fields of the first of several mappings that has them; a field that not all have may be absent."""
    found = {name: one for each in reversed(options) for name, one in each.items()}
    return {name: one if all(name in each for each in options) else maybe(one, ()) for name, one in found.items()}


def _hull(spans: Sequence[Span | None]) -> Span | None:
    """Returns the range that covers all ranges; None if one of them is not known."""
    known = [one for one in spans if one is not None]
    if len(known) < len(spans):
        return None
    return Span(min(one.least for one in known), max(one.expected for one in known), max(one.most for one in known))


def follow(names: Names, frame: Frame) -> Any:
    """Returns the value of a dotted name: the first part names a value, and each further part names a field."""
    value = frame.find(names[0])
    for name in names[1:]:
        value = part(value, name)
    return value


def _result(value: Any) -> Any:
    if isinstance(value, Maybe):
        return maybe(_result(value.value), value.by)
    value = value.value if isinstance(value, StepOutput) else value
    return ABSENT if value is None else value


def part(value: Any, name: str) -> Any:
    """Returns a field of a value; for a list, the field of each item."""
    match value:
        case Maybe():
            return maybe(part(value.value, name), value.by)
        case StepOutput():
            return _of_output(value, name)
        case Group(is_fan_out=False):
            return value.frames[0].names.get(name, ABSENT)
        case Group():
            return _of_items(value, name)
        case Items():
            if name == "count":
                undecided = list(undecided_in(value))
                is_open = undecided or not all(value.sure)
                return value.count or maybe(len(value.values), deciders_of(undecided) if is_open else None)
            return _open_like([value], _flat((part(one, name), owner, sure) for one, owner, sure in value.pairs()))
        case File():
            return _of_file(value, name)
        case dict():
            return value.get(name, ABSENT)
        case list():
            return part(Items(tuple(value)), name)
        case Unknown() if name == "slug":
            return replace(value, kind="string", key=f"{value.key}.slug", span=_SLUG, is_settled=False, sent=None)
        case str() | int() | float() if name == "slug":
            return slug(text_of(value))
    return ABSENT


def slug(text: str) -> str:
    """Converts a string to a part of a file name: letters, digits and single dashes, without accents."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    found = re.sub(r"[\W_]+", "-", plain.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-")
    return found or digest(text)[:8]


def _of_output(output: StepOutput, name: str) -> Any:
    if name == "takes":
        return Items(tuple(StepOutput(one, label=output.label) for one in output.takes))
    if name == "label":
        return output.label
    return part(output.value, name)


def _of_items(group: Group, name: str) -> Any:
    if name == "count" and group.chosen is not None:
        keys = digest([frame.id for frame in group.frames])
        return Unknown("integer", f"count:{keys}", Span(0, group.chosen, group.chosen))
    if name == "count":
        waits_for = dict.fromkeys(one for frame in group.frames if frame.is_pending for one in frame.waits_for)
        is_open = any(frame.is_pending for frame in group.frames)
        return group.count or maybe(len(group.frames), waits_for if is_open else None)
    found = [maybe(frame.names.get(name, ABSENT), frame.by) for frame in group.frames]
    items = _flat((one, frame, frame.is_sure) for one, frame in zip(found, group.frames, strict=True))
    return _open_like([group, *found], items)


def _open_like(sources: Sequence[Any], items: Items) -> Items:
    """Returns the list; its length counts as unknown if the length of one of its sources is unknown."""
    counts = (one.count for one in map(certain, sources) if isinstance(one, Items | Group))
    return replace(items, count=next(filter(None, counts), None))


def _flat(found: Iterable[tuple[Any, Frame | None, bool]]) -> Items:
    """Returns one list of all present values, in order, without nesting."""
    triples: list[tuple[Any, Frame | None, bool]] = []
    for given, owner, is_sure in found:
        value, by = certain(given), given.by if isinstance(given, Maybe) else None
        if isinstance(value, Group) and value.is_fan_out:
            frames = [(maybe(one.names, one.by), one, one.is_sure) for one in value.frames]
            triples += [(maybe(names, by), frame, is_sure and sure) for names, frame, sure in frames]
        elif isinstance(value, Items):
            triples += [(maybe(one, by), own or owner, is_sure and sure) for one, own, sure in value.pairs()]
        elif _result(value) is not ABSENT:
            triples.append((given, owner, is_sure))
    return Items.of(triples)


def _joined(values: Sequence[Any]) -> Items:
    """Returns one list of individual values and the values of inner lists, as for `[$(intro), $(each.clip)]`."""
    items = _flat((value, None, True) for value in values)
    lists = [one for one in map(certain, values) if isinstance(one, Items) and one.count is not None]
    counts = [one.count for one in lists if one.count is not None]
    if not counts:
        return items
    known = len(items.values) - sum(len(one.values) for one in lists)
    span = exactly(known)
    for count in counts:
        span = span.plus(count.span or exactly(0))
    return replace(items, count=Unknown("integer", digest([one.key for one in counts]), span, counts[0].maker))


def results(items: Items) -> tuple[Any, ...]:
    """Returns the values of a list, with steps replaced by their results."""
    return tuple(_result(value) for value in items.values)


def _of_file(file: File, name: str) -> Any:
    if name in file.facts:
        return file.facts[name]
    if name not in FACTS["video"]:
        return ABSENT
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
    is_whole = name == "milliseconds"
    if file.media is not None and file.media.seconds is not None:
        return round(file.media.seconds * 1000) if is_whole else file.media.seconds
    if file.media is not None and name not in FACTS.get(file.media.kind, ()):
        return ABSENT  # of a picture that was given for a `file`; it would never be known
    span = file.seconds.times(1000 if is_whole else 1) if file.seconds is not None else None
    return Unknown("integer" if is_whole else "number", f"{file.key}.{name}", span, file.maker, file.is_settled)


def evaluate(value: Any, frame: Frame) -> Any:
    """Returns a value in the file with its references replaced by their values."""
    if isinstance(value, str):
        return evaluate_text(parse(value), frame)
    if isinstance(value, dict):
        found = {name: evaluate(one, frame) for name, one in value.items()}
        return {name: one for name, one in found.items() if one is not ABSENT}
    if isinstance(value, list):
        items = [one for one in (evaluate(one, frame) for one in value) if one is not ABSENT]
        return _joined(items) if any(isinstance(certain(one), Items) for one in items) else items
    return ABSENT if value is None else value


def evaluate_text(template: Template, frame: Frame) -> Any:
    """Replaces the references in a string; a string that is a single reference becomes the referenced value."""
    if template.only is not None:
        return lookup(template.only, frame)
    if template.literal is not None:
        return template.literal
    parts = [part if isinstance(part, str) else lookup(part, frame) for part in template.parts]
    if any(isinstance(one, Unknown | Maybe) for one in parts):
        return _unknown_text(parts)
    return "".join("" if one is ABSENT else text_of(one) for one in parts)


def wrong_texts(written: Any, frame: Frame) -> Iterator[str]:
    """Yields a clause for each reference within a text whose value is absent, or cannot be a part of a text."""
    for _, text in texts_in(written):
        template = parse(text) if "$(" in text else None
        if template is not None and template.only is None:
            yield from filter(None, (no_text(one, frame) for one in template.references))


def no_text(reference: Reference, frame: Frame) -> str:
    """Returns a clause if the value of a reference is absent, or cannot be a part of a text; empty otherwise."""
    value = certain(lookup(reference, frame))
    if value is ABSENT:
        names = " or ".join(map(".".join, reference.options))
        return f'{reference.text} has no value; write $({names} or "a default")'
    if isinstance(value, str | int | float | Unknown):
        return ""
    return f"{reference.text} is {type_of(value).words}, but a string can contain only strings and numbers"


def lacking(reference: Reference, frame: Frame) -> tuple[Any, str] | None:
    """Returns a value and a field, such as a misspelt one, that the reference names and the value lacks."""
    for names in reference.options:
        for end in range(1, len(names)):
            owner = content(follow(names[:end], frame))
            # A parameter or a cell is there, even if it is empty.
            is_there = isinstance(owner, dict) and names[end] in owner
            if (
                isinstance(owner, dict | File | str | int | float)
                and not is_there
                and part(owner, names[end]) is ABSENT
            ):
                return owner, names[end]
    return None


def _unknown_text(parts: Sequence[Any]) -> Any:
    span, by = exactly(0), deciders_of(one for one in parts if isinstance(one, Maybe))
    is_open, parts = any(isinstance(one, Maybe) for one in parts), [certain(one) for one in parts]
    for one in parts:
        span = span.plus(characters(one))
    unknown = [one for one in parts if isinstance(one, Unknown)]
    key = digest([one.key if isinstance(one, Unknown) else text_of(one) for one in parts])
    settled = all(one.is_settled for one in unknown)
    known = [one.sent if isinstance(one, Unknown) else "" if one is ABSENT else text_of(one) for one in parts]
    sent = None if None in known else "".join(filter(None, known))
    maker = unknown[0].maker if unknown else None
    return maybe(Unknown("string", f"text:{key}", span, maker, settled, sent), by if is_open else None)


def type_of(value: Any) -> Type:
    """Returns the type of a value, so that known and unknown values are checked in the same way."""
    match value:
        case Type():
            return value
        case File() | Unknown():
            return Type(value.kind)
        case StepOutput() | Maybe():
            return type_of(value.value)
        case Items():
            return of_items([type_of(one) for one in value.values])
        case list():
            return of_items([type_of(one) for one in value])
        case dict():
            return Type("object", fields={name: type_of(one) for name, one in value.items()})
    return of_literal(value)


def named(value: Any, written: Any) -> str:
    """Returns a value's name for messages: a known string or number, `this` for a list, or the text in the file."""
    text = written if isinstance(value, File | Unknown | StepOutput | Maybe | list | dict) else value
    return "this" if isinstance(text, list | dict) else shown_text(text)
