"""Builds the recipe for one edit of one item: checks the values, and computes the request and the length."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from rh_prefect.pipelines.check.literal_conversion import edit_value, no_caption
from rh_prefect.pipelines.edits import DEFAULT_OVERLAP, EDITS, Edit, EditParam
from rh_prefect.pipelines.evaluation import named, type_of
from rh_prefect.pipelines.file_model import EditStep
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.step_drafts import (
    Draft,
    evaluated,
    failed_places,
    files_in,
    plain,
    problem_in,
    without_places,
)
from rh_prefect.pipelines.plan.work_identity import mark
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Items,
    Span,
    Unknown,
    as_items,
    certain,
    digest,
    exactly,
    number_of,
)
from rh_prefect.pipelines.types import edit_misfit


def draft_edit(draft: Draft, step: EditStep, failed: Container[PlannedStep]) -> None:
    """Drafts the recipe of an edit of one item; `failed` are the steps that this run cannot make."""
    edit = EDITS[step.edit]
    draft.instance.model = edit.name
    given = {name: certain(evaluated(draft, ("with", name), value)) for name, value in step.with_.items()}
    lists = _without_failed(_aligned(given), step, failed)
    for name, value in lists.items():
        draft.wrong(("with", name), problem_in(value))
    values = {name: plain(value) for name, value in lists.items() if value is not ABSENT}
    first = next(iter(files_in(values.get(edit.params[0].name))), None)
    draft.instance.kind = edit.output if edit.output != "same" else "file" if first is None else first.kind
    for param in edit.params:
        if param.name in values:
            given_values = _as_list(values[param.name], param)
            values[param.name], wrong = _edit_values(param, step.with_[param.name], given_values)
            draft.wrong(("with", param.name), wrong)
    filed = [param.name for param in edit.params if param.takes_files and param.name in values]
    has_files = draft.problems or any(files_in(values[name]) for name in filed)
    if filed and not has_files and "seconds" not in values:  # then `mix` is silent
        draft.wrong(("with", filed[0]), f"{filed[0]} has no items, so {edit.name} has no input")
    if not draft.problems:
        draft.wrong(("with", "at"), _unequal_lists(edit, lists, values))
    if edit.name == "captions" and ("text" in values) == ("file" in values):
        draft.wrong(("with",), "captions takes either `text`, or `file` with an SRT or WebVTT file")
    else:
        draft.wrong(("with", "text"), no_caption(edit.name, values.get("text")))
    draft.set_values(values)
    draft.seconds = _edit_seconds(edit, lists, values)
    if edit.has_starts:
        clips, overlap = values.get(edit.params[0].name, []), _overlap(edit, values)
        draft.facts = {"starts": _starts(lists.get(edit.params[0].name), clips, overlap)}


def _as_list(value: Any, param: EditParam) -> Any:
    return [value] if param.many and not isinstance(value, list) else value


def _aligned(values: dict[str, Any]) -> dict[str, Any]:
    """Keeps, in the lists of results of a group, only the items that all these lists contain."""
    lists = {name: value for name, value in values.items() if isinstance(value, Items) and any(value.owners)}
    if len(lists) < 2:
        return values
    owned = ({id(owner) for owner in one.owners if owner is not None} for one in lists.values())
    common = set.intersection(*owned)
    if not common:
        return values
    found = dict(values)
    for name, one in lists.items():
        # A value without an item, such as `$(intro)` in `[$(intro), $(each.clip)]`, belongs to no item of the group.
        other = {n for n, owner in enumerate(one.owners) if owner is not None and id(owner) not in common}
        found[name] = without_places(one, other)
    return found


def _without_failed(values: dict[str, Any], step: EditStep, failed: Container[PlannedStep]) -> dict[str, Any]:
    """Removes the values of failed steps from the lists, and the values at the same positions of equally long lists."""
    if step.require != "any":
        return values
    lists = {name: as_items(value) for name, value in values.items() if isinstance(value, Items | list)}
    places = {name: failed_places(one, failed) for name, one in lists.items()}
    found = dict(values)
    for name, one in lists.items():
        beside = (places[other] for other, two in lists.items() if len(two.values) == len(one.values))
        if lost := set[int]().union(*beside):
            found[name] = without_places(one, lost)
    return _aligned(found)


def _edit_values(param: EditParam, written: Any, value: Any) -> tuple[Any, str]:
    """Returns the known values of an edit's parameter, converted, and a clause about the first wrong value."""
    if isinstance(value, list) and param.many:
        found = [_edit_values(replace(param, many=False), written, one) for one in value]
        return [one for one, _ in found], next((wrong for _, wrong in found if wrong), "")
    if isinstance(value, Unknown) and not param.takes_files:  # of an enum, it does not have the options
        return value, ""
    wrong = edit_misfit(type_of(value), param, named(value, written))
    is_read = wrong or param.takes_files or isinstance(value, File | list | dict)
    return (value, wrong) if is_read else edit_value(param, value)


def _unequal_lists(edit: Edit, lists: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Returns the problem if `at` does not have one time for each item; empty if a length is not known."""
    first = "text" if edit.param("text") is not None else edit.params[0].name
    pair = [(lists.get(name), values.get(name)) for name in (first, "at")]
    if not all(isinstance(value, list) for _, value in pair):
        return ""
    if any(isinstance(one, Items) and (one.count is not None or not all(one.sure)) for one, _ in pair):
        return ""
    items, times = (len(value or ()) for _, value in pair)
    return (
        "" if items == times else f"at needs one time for each item of {first}: {first} has {items}, but at has {times}"
    )


def _edit_seconds(edit: Edit, lists: Mapping[str, Any], values: Mapping[str, Any]) -> Span | None:
    match edit.length:
        case "sum" | "overlapped":
            first = edit.params[0].name
            return _sum(lists.get(first), files_in(values.get(first)), _overlap(edit, values))
        case "input":
            source = next(iter(files_in(values.get(edit.params[0].name))), None)
            return None if source is None else source.length
        case "seconds":
            seconds = values.get("seconds")
            if seconds is not None:
                return number_of(seconds)
            spoken = [one.length for one in files_in(values.get(edit.params[0].name))]
            known = [one for one in spoken if one is not None]
            return known[0] if len(known) == 1 == len(spoken) else None
    return None


def _overlap(edit: Edit, values: Mapping[str, Any]) -> Span | None:
    """Returns the seconds for which two clips are shown together; None if they are not known."""
    if edit.length != "overlapped":
        return exactly(0)
    return number_of(values.get("seconds", DEFAULT_OVERLAP))


def _sum(listed: Any, files: list[File], overlap: Span | None) -> Span | None:
    sure = [is_sure for _, _, is_sure in listed.pairs()] if isinstance(listed, Items) else [True] * len(files)
    found = exactly(0)
    for number, (file, is_sure) in enumerate(zip(files, sure)):
        length = file.length
        if length is None or overlap is None:
            return None
        length = length.less(overlap) if number else length
        found = found.plus(length if is_sure else Span(0, length.expected, length.most))
    return found


def _starts(listed: Any, files: list[Any], overlap: Span | None) -> Items:
    """Returns the start of each clip, as far as the lengths of earlier clips are known."""
    owners = listed.owners if isinstance(listed, Items) else ()
    starts: list[Any] = []
    at, before = exactly(0), [str(overlap)] if overlap != exactly(0) else []
    are_known = overlap is not None
    for file in files:
        starts.append(at.expected if are_known else Unknown("number", f"start:{digest(before)}", at))
        length = file.length if isinstance(file, File) else None
        at = at.plus(length or Span(0, 0, 0)).less(overlap or Span(0, 0, 0))
        before.append(str(mark(file)))
        are_known &= isinstance(file, File) and file.media is not None
    return Items(tuple(starts), owners, count=listed.count if isinstance(listed, Items) else None)
