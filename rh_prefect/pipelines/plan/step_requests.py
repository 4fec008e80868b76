"""Builds the request or recipe for one step of one item: checks its values, and computes its identity and price."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model, Param
from rh_prefect.catalog.validation import check, check_file
from rh_prefect.errors import MediaError, UnknownModelError
from rh_prefect.pipelines.check import Checked, edit_value, feed, wrong_fields
from rh_prefect.pipelines.check.paid import no_such_model
from rh_prefect.pipelines.document import Path
from rh_prefect.pipelines.edits import EDITS, Edit, EditParam
from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.plan.counts import count_of
from rh_prefect.pipelines.plan.identity import is_settled, mark
from rh_prefect.pipelines.plan.planned_steps import FREE, Instance, Money
from rh_prefect.pipelines.plan.request_price import input_seconds, output_seconds, price_of
from rh_prefect.pipelines.plan.subtitle_time_check import equal_times
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Frame,
    Items,
    Span,
    StepOutput,
    Unknown,
    characters,
    digest,
    evaluate,
    exactly,
    makers,
    number_of,
    results,
)
from rh_prefect.pipelines.site_graphs import SavedGraph, SavedGraphs, UnreadGraph, node_digests

_ENDPOINTS = {"workflow": "run/workflow/{}", "app": "run/ai-app/{}", "graph": "proxy"}
_LINK = "https://stand-in.invalid/file"


@dataclass(slots=True, repr=False)
class Draft:
    """The unsubmitted request or recipe of one step of one item.

    Attributes:
        instance: The step's place in the plan.
        frame: The item.
        kind: What it makes.
        endpoint: Path below `/openapi/v2/`; empty for edits.
        params: The parameters, files by content and unknown values by what makes them.
        is_settled: Whether everything in `params` is known.
        base: The hash of the request, or of the recipe.
        price: What one take costs.
        seconds: How long the result is.
        problems: What is wrong: the parameter, or the step's key, and a clause.
        notes: What is worth knowing.
        facts: Further facts of the result.
    """

    instance: Instance
    frame: Frame
    kind: str
    endpoint: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    is_settled: bool = True
    base: str = ""
    price: Money = FREE
    seconds: Span | None = None
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def draft_paid(
    step: Step,
    at: Path,
    path: str,
    frame: Frame,
    checked: Checked,
    failed: Collection[str] = (),
    saved: SavedGraphs | None = None,
) -> Draft:
    """Makes the request of a paid step.

    Args:
        step: Its declaration.
        at: Its path in the file.
        path: Its name with the groups around it.
        frame: The item.
        checked: The file.
        failed: Steps that this run cannot make; see `Choices`.
        saved: The graphs of workflows and apps; None where they were not read.
    """
    instance = Instance(path, frame.id, step, at, is_sure=frame.is_sure)
    instance.attempts = step.attempts or checked.file.attempts or 1
    instance.reuse = step.reuse or checked.file.reuse or instance.reuse
    if step.model is not None:
        draft = _of_model(step, instance, frame, failed)
    else:
        draft = _of_graph(step, instance, frame, failed)
        _add_graph(draft, checked, saved or {})
    _count(draft)
    return draft


def _count(draft: Draft) -> None:
    """Evaluates `takes` and `at_most`; a wrong one is a problem, since each multiplies the price."""
    step, instance = draft.instance.step, draft.instance
    _, wrong = count_of("takes", step.takes, draft.frame)
    if wrong:
        draft.problems.append((("takes",), wrong))
    if step.parse is not None:
        instance.at_most, wrong = count_of("at_most", step.parse.at_most, draft.frame)
        if wrong:
            draft.problems.append((("parse", "at_most"), wrong))


def _of_graph(step: Step, instance: Instance, frame: Frame, failed: Collection[str]) -> Draft:
    """Drafts a saved workflow, an app or a graph of nodes, whose fields are in no catalogue."""
    name = str(getattr(step, step.action))
    instance.model = f"{step.action} {name}"
    kind = step.assume.kind if step.assume is not None else None
    endpoint = _ENDPOINTS[step.action].format(name)
    draft = Draft(instance, frame, _kind_of(kind or "file"), endpoint)
    values = {key: _plain(_without_failed(evaluate(value, frame), step, failed)) for key, value in step.with_.items()}
    values = {key: value for key, value in values.items() if value is not ABSENT}
    draft.params = {key: mark(value) for key, value in values.items()}
    draft.is_settled = is_settled(values)
    instance.values = dict(values)
    files = [one for value in values.values() for one in _files(value)]
    _finish(draft, None, {}, files, list(values.values()))
    return draft


def _add_graph(draft: Draft, checked: Checked, saved: SavedGraphs) -> None:
    """Adds the fingerprint of the graph without the fields that the step sets."""
    instance, step = draft.instance, draft.instance.step
    fields = list(draft.params)
    if step.graph is not None:
        instance.graph = checked.graphs.get(step.graph, {})
    else:
        found = saved.get((step.action, str(getattr(step, step.action))))
        if not isinstance(found, SavedGraph):
            _add_unread(draft, found)
            return
        instance.graph, instance.saved_graph = found.nodes, found.whole
        if step.action == "workflow":
            draft.problems.extend(wrong_fields(instance.graph, instance.model, instance.values))
    instance.nodes = node_digests(instance.graph, fields)
    present = digest(instance.nodes)
    if step.pin and step.pin != present:
        instance.forbidden = (
            f"pin is {step.pin}, and the graph of {instance.model} is {present} now. What to do: put the graph back, "
            "or write its present fingerprint as pin, which makes a new result."
        )
    draft.params["graph"] = step.pin or present


def _add_unread(draft: Draft, found: UnreadGraph | None) -> None:
    """Adds the pinned fingerprint, or that of the last run: an existing result does not need the graph itself."""
    instance, pin = draft.instance, draft.instance.step.pin
    instance.unread_graph = found.reason if found is not None else ""
    used = found.used.get(frozenset(draft.params)) if found is not None else None
    if pin:
        draft.params["graph"] = pin
    elif used is not None:
        draft.params["graph"], instance.nodes = used.fingerprint, used.nodes
        draft.notes.append(f"the graph of {instance.model} cannot be read; a result of the last run's graph is used.")
    else:
        instance.is_unread = True
        draft.notes.append(f"the graph of {instance.model} was not read, so that earlier results are not found.")


def _of_model(step: Step, instance: Instance, frame: Frame, failed: Collection[str]) -> Draft:
    name = evaluate(step.model, frame)
    instance.model = name if isinstance(name, str) else str(step.model)
    try:
        model = catalog.get(instance.model)
    except UnknownModelError:
        draft = Draft(instance, frame, "file")
        draft.problems.append((("model",), no_such_model(instance.model)))
        return draft
    draft = Draft(instance, frame, _kind_of(model.output), model.endpoint)
    by_reference = "$(" in str(step.model)
    values = _values(draft, step, model, frame, by_reference, failed)
    _feed(draft, step, model, frame, values, failed)
    payload = _check(draft, model, values)
    draft.is_settled = is_settled(values)
    instance.values = dict(values)
    files = [one for param in model.media_params for one in _files(values.get(param.name))]
    _finish(draft, model, payload, files, list(values.values()))
    _check_files(draft, model, values)
    return draft


def _without_failed(value: Any, step: Step, failed: Collection[str]) -> Any:
    """Removes the values of steps that this run cannot make from a list, for a step with `require: any`."""
    if step.require != "any" or not failed or not isinstance(value, Items):
        return value
    pairs = [one for one in value.pairs() if not any(maker.address in failed for maker in makers(one[0]))]
    values, owners, sure = zip(*pairs) if pairs else ((), (), ())
    return Items(values, owners, sure, value.count)


def _values(
    draft: Draft, step: Step, model: Model, frame: Frame, by_reference: bool, failed: Collection[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, written in step.with_.items():
        param = model.find_param(name)
        value = _plain(_without_failed(evaluate(written, frame), step, failed))
        if param is None and by_reference:
            draft.notes.append(f"{model.name} has no {name}; the parameter is not sent to this model.")
        elif value is not ABSENT:
            values[param.name if param is not None else name] = value
    return values


def _plain(value: Any) -> Any:
    """Replaces the steps in a list by their results."""
    if isinstance(value, Items):
        return list(results(value))
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, StepOutput) else value


def _feed(
    draft: Draft, step: Step, model: Model, frame: Frame, values: dict[str, Any], failed: Collection[str]
) -> None:
    sources = step.from_ if isinstance(step.from_, list) else [step.from_] if step.from_ else []
    for source in sources:
        value = _plain(_without_failed(evaluate(source, frame), step, failed))
        first = next(iter(_files(value)), None)
        if first is None:
            continue
        param, fault = feed(model, first.kind, {*values})
        if param is None:
            draft.problems.append((("from",), fault.replace("this", str(source), 1)))
        else:
            values[param.name] = value


def _files(value: Any) -> list[File]:
    if isinstance(value, File):
        return [value]
    if isinstance(value, list):
        return [one for item in value for one in _files(item)]
    return []


def _check(draft: Draft, model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the values, with stand-ins for unknown ones; returns them by wire names, for the price."""
    params = {name: model.find_param(name) for name in values}
    stand_ins = {name: _stand_in(value, params[name]) for name, value in values.items()}
    found = check(model, stand_ins)
    draft.problems.extend((_key_of(problem, values), problem) for problem in found.problems)
    draft.notes.extend(notice for notice in found.notices if "no parameter" not in notice)
    marks, payload = dict(found.values), dict(found.values)
    for name, value in values.items():
        param = params[name]
        if param is not None and _holds_unknown(value):
            several = param.multiple and not isinstance(value, list)
            marks[param.key] = mark([value] if several else value)
            payload[param.key] = value
    draft.params = {**marks, **{key: mark(value) for key, value in found.extra.items()}}
    return payload


def _holds_unknown(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_unknown(one) for one in value)
    if isinstance(value, dict):
        return any(_holds_unknown(one) for one in value.values())
    return isinstance(value, File | Unknown)


def _stand_in(value: Any, param: Param | None) -> Any:
    if isinstance(value, list):
        return [_stand_in(one, param) for one in value]
    if isinstance(value, dict):
        return {name: _stand_in(one, None) for name, one in value.items()}
    if isinstance(value, File):
        return _LINK
    return _likely(value, param) if isinstance(value, Unknown) else value


def _likely(value: Unknown, param: Param | None) -> Any:
    """Returns a value that the parameter accepts, for one that is not known yet."""
    if param is not None and param.options:
        return param.default if isinstance(param.default, str) and param.default else param.options[0]
    if param is not None and param.type == "bool":
        return True
    if value.kind in ("number", "integer"):
        number = value.span.expected if value.span is not None else 1
        if param is not None and param.min is not None:
            number = max(number, param.min)
        if param is not None and param.max is not None:
            number = min(number, param.max)
        return round(number) if param is None or param.type == "int" else number
    if value.kind == "boolean":
        return True
    longest = param.max_length if param is not None and param.max_length is not None else 100
    return "x" * max(1, min(longest, round(characters(value).expected)))


def _key_of(problem: str, values: Mapping[str, Any]) -> Path:
    """Returns the position of a problem from the catalogue: the parameter at its beginning, else the model."""
    name = problem.partition(" ")[0]
    return ("with", name) if name in values else ("model",)


def _check_files(draft: Draft, model: Model, values: Mapping[str, Any]) -> None:
    for param in model.media_params:
        for file in _files(values.get(param.name)):
            media = file.media
            if media is None:
                continue
            extension = media.name.rpartition(".")[2].lower() if "." in media.name else None
            try:
                check_file(model, param, extension=extension, size=media.size, kind=media.kind, source=media.name)
            except MediaError as error:
                problem = error.message.removesuffix(" Nothing was sent; use another file.").rstrip(".")
                draft.problems.append((("with", param.name), problem))


def _finish(
    draft: Draft, model: Model | None, payload: Mapping[str, Any], files: list[File], values: list[Any]
) -> None:
    step, instance = draft.instance.step, draft.instance
    assumed = None
    if step.assume is not None and step.assume.seconds is not None:
        assumed = number_of(evaluate(step.assume.seconds, draft.frame))
        values.append(evaluate(step.assume.seconds, draft.frame))
    timed = [one for one in files if one.kind in ("video", "audio")]
    length = input_seconds(timed, assumed)
    draft.price = price_of(model, payload, seconds=length, assume=step.assume, attempts=instance.attempts)
    if draft.price.is_open and (step.assume is None or step.assume.price is None):
        draft.notes.append(_no_price(instance, model))
    draft.seconds = output_seconds(model, payload, files, assumed)
    _link(instance, values)


def _no_price(instance: Instance, model: Model | None) -> str:
    remedy = "assume: {price: …} gives one."
    if model is None:
        return f"the catalogue does not have the price of {instance.model}; {remedy}"
    if model.price is None:
        return f"the catalogue has no price of {model.name}; {remedy}"
    more = f" ({model.price_note})" if model.price_note else ""
    return f"the price of {model.name} can be higher{more}; {remedy}"


def _link(instance: Instance, values: list[Any]) -> None:
    instance.needs = list(dict.fromkeys(maker for value in values for maker in makers(value)))


# -- edits -------------------------------------------------------------------------------------------------------------


def draft_edit(step: Step, at: Path, path: str, frame: Frame, failed: Collection[str] = ()) -> Draft:
    """Makes the recipe of an edit.

    Args:
        step: Its declaration.
        at: Its path in the file.
        path: Its name with the groups around it.
        frame: The item.
        failed: Steps that this run cannot make; see `Choices`.
    """
    edit = EDITS[str(step.edit)]
    instance = Instance(path, frame.id, step, at, model=edit.name, is_sure=frame.is_sure)
    lists = {name: _without_failed(evaluate(value, frame), step, failed) for name, value in step.with_.items()}
    lists = _aligned(lists)
    values = {name: _plain(value) for name, value in lists.items() if value is not ABSENT}
    kind = edit.output
    if kind == "same":
        first = next(iter(_files(values.get(edit.params[0].name))), None)
        kind = first.kind if first is not None else "file"  # type: ignore[assignment]
    draft = Draft(instance, frame, kind)
    for param in edit.params:
        if param.name in values:
            values[param.name], wrong = _edit_values(param, _as_list(values[param.name], param))
            draft.problems.extend([(("with", param.name), wrong)] if wrong else [])
    filed = [param.name for param in edit.params if param.takes_files and param.name in values]
    if filed and not any(_files(values[name]) for name in filed) and "seconds" not in values:  # then `mix` is silent
        draft.problems.append((("with", filed[0]), f"{filed[0]} has no items, so there is nothing for {edit.name}"))
    is_timed = edit.name == "subtitles" and not any(key[:2] == ("with", "at") for key, _ in draft.problems)
    if is_timed and (wrong := equal_times(step, frame, values)):
        draft.problems.append((("with", "at"), wrong))
    draft.params = {name: mark(value) for name, value in values.items()}
    draft.is_settled = is_settled(values)
    instance.values = dict(values)
    draft.seconds = _edit_seconds(edit, lists, values)
    if "starts" in edit.facts:
        draft.facts["starts"] = _starts(lists.get(edit.params[0].name), values[edit.params[0].name])
    _link(instance, list(values.values()))
    return draft


def _as_list(value: Any, param: EditParam) -> Any:
    return [value] if param.many and not isinstance(value, list) else value


def _aligned(values: dict[str, Any]) -> dict[str, Any]:
    """Removes from the lists of one group the items that one of the lists lacks."""
    lists = {name: value for name, value in values.items() if isinstance(value, Items) and any(value.owners)}
    if len(lists) < 2:
        return values
    common = set.intersection(*({id(owner) for owner in one.owners} for one in lists.values()))
    if not common:
        return values
    found = dict(values)
    for name, one in lists.items():
        triples = [(value, owner, sure) for value, owner, sure in one.pairs() if id(owner) in common]
        found[name] = Items(
            tuple(value for value, _, _ in triples),
            tuple(owner for _, owner, _ in triples),
            tuple(is_sure for _, _, is_sure in triples),
            one.count,
        )
    return found


def _edit_values(param: EditParam, value: Any) -> tuple[Any, str]:
    """Converts the known values of an edit's parameter; returns them, and what is wrong with the first wrong one."""
    if isinstance(value, list):
        found = [_edit_values(param, one) for one in value]
        return [one for one, _ in found], next((wrong for _, wrong in found if wrong), "")
    return (
        (value, "") if param.takes_files or isinstance(value, File | Unknown | StepOutput) else edit_value(param, value)
    )


def _edit_seconds(edit: Edit, lists: Mapping[str, Any], values: Mapping[str, Any]) -> Span | None:
    match edit.length:
        case "sum":
            return _sum(lists.get(edit.params[0].name), _files(values.get(edit.params[0].name)))
        case "input":
            first = next(iter(_files(values.get(edit.params[0].name))), None)
            return None if first is None else first.length
        case "seconds":
            seconds = values.get("seconds")
            if seconds is not None:
                return number_of(seconds)
            spoken = [one.length for one in _files(values.get(edit.params[0].name))]
            known = [one for one in spoken if one is not None]
            return known[0] if len(known) == 1 == len(spoken) else None
    return None


def _sum(listed: Any, files: list[File]) -> Span | None:
    sure = [is_sure for _, _, is_sure in listed.pairs()] if isinstance(listed, Items) else [True] * len(files)
    found = exactly(0)
    for file, is_sure in zip(files, sure):
        length = file.length
        if length is None:
            return None
        found = found.plus(length if is_sure else Span(0, length.expected, length.most))
    return found


def _starts(listed: Any, files: list[Any]) -> Items:
    """Returns the start of each clip, known as far as the lengths of the earlier clips are."""
    owners = listed.owners if isinstance(listed, Items) else ()
    starts: list[Any] = []
    at, before = exactly(0), list[str]()
    are_known = True
    for file in files:
        starts.append(at.expected if are_known else Unknown("number", f"start:{digest(before)}", at))
        length = file.length if isinstance(file, File) else None
        at = at.plus(length or Span(0, 0, 0))
        before.append(str(mark(file)))
        are_known &= isinstance(file, File) and file.media is not None
    return Items(tuple(starts), owners)


def _kind_of(output: str) -> str:
    return "string" if output == "text" else output
