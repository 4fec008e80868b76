"""The output of a planned step: the recorded result, or a placeholder with its known properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rh_prefect.pipelines.file_model import Parse
from rh_prefect.pipelines.parsed_answers import InvalidAnswerError, answer_type, read_answer
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Work
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    EMPTY,
    File,
    Items,
    Maybe,
    Span,
    Unknown,
    as_items,
    content,
    digest,
    exactly,
    maybe,
    number_of,
)
from rh_prefect.pipelines.types import FILES, Type, of_literal


def value_of(draft: Draft, work: Work) -> Any:
    """Returns the file or the content of one take, or a placeholder if the take does not exist yet."""
    instance, known = draft.instance, work.known
    if (parse := instance.step.get("parse")) is not None:
        return _answer(draft, work, parse)
    if known is not None and known.state == "=":
        if instance.kind == "string":
            return known.value if isinstance(known.value, str) else "".join(known.texts[:1])
        if (first := known.output(instance.file_kind)) is not None:
            content = known.counts_as.get(first.sha256, first.sha256)
            return File(instance.kind, f"sha256:{content}", first, None, instance, instance.model, draft.facts)
    if instance.kind == "string":
        return Unknown("string", f"{work.key}.text", None, instance)
    return File(instance.kind, work.key, None, draft.seconds, instance, instance.model, draft.facts)


def _answer(draft: Draft, work: Work, parse: Parse) -> Any:
    """Returns a parsed answer: its known content, or a placeholder for each item that it can have."""
    kind = answer_type(parse)
    found = _known(draft, work, parse)
    if isinstance(found, list):
        return Items(tuple(_with_handles(draft, one, kind, number) for number, one in enumerate(found)))
    if isinstance(found, dict):
        return _with_handles(draft, found, kind, 0)
    return _unknown(draft, work, kind) if found is None else found


def _known(draft: Draft, work: Work, parse: Parse) -> Any:
    known = work.known
    if known is None or known.state != "=":
        return None
    if known.value is not None or not known.texts:
        return known.value
    try:
        return read_answer(known.texts[0], parse, at_most=draft.instance.at_most)
    except InvalidAnswerError:
        return None


def _with_handles(draft: Draft, value: dict[str, Any], kind: Type, number: int) -> dict[str, Any]:
    handles = {name for name, one in kind.fields.items() if one.kind == "handle"}
    return {name: _handle(draft, name, number, one) if name in handles else one for name, one in value.items()}


def _handle(draft: Draft, name: str, number: int, value: Any) -> Unknown:
    """Returns a placeholder for an expiring id of RunningHub; in hashes, the request that gave the id replaces it."""
    key, sent = f"handle:{draft.base}.{number}.{name}", value if isinstance(value, str) else None
    return Unknown("handle", key, Span(1, 20, 100), draft.instance, draft.is_settled, sent)


def _unknown(draft: Draft, work: Work, kind: Type) -> Any:
    if kind.kind == "string":
        # Not the key of the text without parse, which has the blanks and fences that parse removes.
        return placeholder(kind, draft.instance, f"{work.key}.answer")
    size = draft.instance.at_most or 1
    missing = [placeholder(kind.one, draft.instance, f"{work.key}.{number}") for number in range(size)]
    values = tuple(_with_handles(draft, one, kind, number) for number, one in enumerate(missing))
    if not kind.many:
        return values[0]
    bounds = Unknown("integer", f"{work.key}.count", Span(1, size, size), draft.instance)
    return Items(values, (None,) * size, tuple(number == 0 for number in range(size)), bounds)


def undecided_result(candidates: Sequence[Any], by: PlannedStep | None, key: str) -> Any:
    """Returns a placeholder for one of several results, with the price of the first; steps that use it wait."""
    value = candidates[0]
    match value:
        case File():
            facts = _undecided_fields([one.facts if isinstance(one, File) else EMPTY for one in candidates], by, key)
            return replace(value, key=key + value.key, media=None, seconds=value.length, maker=by, facts=facts or EMPTY)
        case Unknown():
            return replace(value, key=key + value.key, maker=by, is_settled=False)
        case str() | int() | float():
            span = exactly(len(value)) if isinstance(value, str) else number_of(value)
            return Unknown(of_literal(value).kind, key + digest(value), span, by)
        case dict():
            return _undecided_fields([one for one in candidates if isinstance(one, dict)], by, key)
        case Items() | list():
            return _undecided_list([as_items(one) for one in candidates if isinstance(one, Items | list)], by, key)
    return value


def _undecided_fields(mappings: Sequence[Mapping[str, Any]], by: PlannedStep | None, key: str) -> dict[str, Any]:
    """Returns placeholders for the fields of one of several mappings; a field may be absent if not all have it."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in mappings for name in one):
        given = [one[name] for one in mappings if content(one.get(name, ABSENT)) not in (ABSENT, None)]
        if given:
            field = undecided_result([content(one) for one in given], by, f"{key}{name}:")
            is_sure = len(given) == len(mappings) and not any(isinstance(one, Maybe) for one in given)
            found[name] = field if is_sure else maybe(field, () if by is None else (by,))
    return found


def _undecided_list(lists: Sequence[Items], by: PlannedStep | None, key: str) -> Items:
    """Returns a placeholder for one of several lists, as long as the longest of them."""
    longest, sizes = max(lists, key=lambda one: len(one.values)), [len(one.values) for one in lists]
    values = [undecided_result([content(one)], by, f"{key}[{number}]:") for number, one in enumerate(longest.values)]
    fewest = min(sum(sure for _, _, sure in one.pairs()) for one in lists)
    count = Unknown("integer", f"{key}.count", Span(fewest, sizes[0], max(sizes)), by)
    return Items(tuple(values), sure=tuple(number < fewest for number in range(len(values))), count=count)


def placeholder(kind: Type, instance: PlannedStep, key: str) -> Any:
    """Returns a placeholder for a result that is still missing; the placeholder shows a plan which steps need it."""
    if kind.many:
        count = Unknown("integer", f"{key}.count", None, instance)
        return Items((placeholder(kind.one, instance, f"{key}[]"),), (None,), (False,), count)
    fields = {name: placeholder(one, instance, f"{key}.{name}") for name, one in kind.fields.items()}
    if kind.kind in FILES:
        return File(kind.kind, key, maker=instance, label=instance.model, facts=fields)
    # Half of the maximum is the expected length
    return fields or Unknown(kind.kind, key, Span(0, kind.max / 2, kind.max) if kind.max else None, instance)
