"""Builds the request of one paid step of one item: checks its values, and computes its identity and price."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.frozen_forms import as_given
from rh_prefect.catalog.model import Model, Param
from rh_prefect.catalog.validation import check, check_file
from rh_prefect.errors import MediaError, UnknownModelError
from rh_prefect.pipelines.check import Checked, feed, wrong_fields
from rh_prefect.pipelines.check.paid_steps import misspelt, no_such_model
from rh_prefect.pipelines.document import Path
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.file_model import GraphStep, ModelStep, PaidStep
from rh_prefect.pipelines.plan.count_settings import count_of
from rh_prefect.pipelines.plan.identity import is_settled, mark
from rh_prefect.pipelines.plan.planned_steps import Instance
from rh_prefect.pipelines.plan.request_price import input_seconds, output_seconds, price_of
from rh_prefect.pipelines.plan.step_drafts import (
    Draft,
    files_in,
    is_file_in,
    link_needs,
    not_a_file,
    plain,
    without_failed,
)
from rh_prefect.pipelines.planning_values import ABSENT, File, Frame, Unknown, characters, digest, number_of
from rh_prefect.pipelines.site_graphs import SavedGraph, SavedGraphs, UnreadGraph, node_digests

_ENDPOINTS = {"workflow": "run/workflow/{}", "app": "run/ai-app/{}", "graph": "proxy"}
_LINK = "https://stand-in.invalid/file"


def draft_paid(
    step: ModelStep | GraphStep,
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
    if isinstance(step, GraphStep):
        draft = _of_graph(step, instance, frame, failed)
        _add_graph(draft, step, checked, saved or {})
    else:
        draft = _of_model(step, instance, frame, failed)
    _count(draft, step)
    return draft


def _count(draft: Draft, step: PaidStep) -> None:
    """Evaluates `takes` and `at_most`; a wrong one is a problem, since each multiplies the price."""
    instance = draft.instance
    _, wrong = count_of("takes", step.takes, draft.frame)
    if wrong:
        draft.problems.append((("takes",), wrong))
    if step.parse is not None:
        instance.at_most, wrong = count_of("at_most", step.parse.at_most, draft.frame)
        if wrong:
            draft.problems.append((("parse", "at_most"), wrong))


def _of_graph(step: GraphStep, instance: Instance, frame: Frame, failed: Collection[str]) -> Draft:
    """Drafts a saved workflow, an app or a graph of nodes, whose fields are in no catalogue."""
    name = str(getattr(step, step.action))
    instance.model = f"{step.action} {name}"
    kind = step.assume.kind if step.assume is not None else None
    endpoint = _ENDPOINTS[step.action].format(name)
    draft = Draft(instance, frame, _kind_of(kind or "file"), endpoint)
    values = {key: plain(without_failed(evaluate(value, frame), step, failed)) for key, value in step.with_.items()}
    values = {key: value for key, value in values.items() if value is not ABSENT}
    several = (key for key, value in values.items() if isinstance(value, list | dict))
    draft.problems.extend((("with", key), f"{key} takes one value, and several are given") for key in several)
    draft.params = {key: mark(value) for key, value in values.items()}
    draft.is_settled = is_settled(values)
    instance.values = dict(values)
    files = [one for value in values.values() for one in files_in(value)]
    _finish(draft, step, None, {}, files, list(values.values()))
    return draft


def _add_graph(draft: Draft, step: GraphStep, checked: Checked, saved: SavedGraphs) -> None:
    """Adds the fingerprint of the graph without the fields that the step sets."""
    instance = draft.instance
    fields = list(draft.params)
    if step.graph is not None:
        instance.graph = checked.graphs.get(step.graph, {})
        draft.problems.extend(wrong_fields(instance.graph, step.graph, instance.values) if instance.graph else [])
    else:
        found = saved.get((step.action, str(getattr(step, step.action))))
        if not isinstance(found, SavedGraph):
            _add_unread(draft, step.pin, found)
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


def _add_unread(draft: Draft, pin: str | None, found: UnreadGraph | None) -> None:
    """Adds the pinned fingerprint, or that of the last run: an existing result does not need the graph itself."""
    instance = draft.instance
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


def _of_model(step: ModelStep, instance: Instance, frame: Frame, failed: Collection[str]) -> Draft:
    name = evaluate(step.model, frame)
    instance.model = name if isinstance(name, str) else step.model
    try:
        model = catalog.get(instance.model)
    except UnknownModelError:
        draft = Draft(instance, frame, "file")
        draft.problems.append((("model",), no_such_model(instance.model)))
        return draft
    instance.endpoint = model.endpoint
    draft = Draft(instance, frame, _kind_of(model.output), model.endpoint)
    by_reference = "$(" in step.model
    values = _values(draft, step, model, frame, by_reference, failed)
    _feed(draft, step, model, frame, values, failed)
    _refuse_texts(draft, model, values)
    payload = _check(draft, model, values)
    draft.is_settled = is_settled(values)
    instance.values = dict(values)
    given, _ = _split(model, values)
    files = [one for param in model.file_params for one in files_in(given.get(param.name))]
    _finish(draft, step, model, payload, files, list(values.values()))
    _check_files(draft, model, values)
    return draft


def _values(
    draft: Draft, step: ModelStep, model: Model, frame: Frame, by_reference: bool, failed: Collection[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, written in step.with_.items():
        if name == "unchecked":
            given = {one: plain(without_failed(evaluate(value, frame), step, failed)) for one, value in written.items()}
            values[name] = {one: value for one, value in given.items() if value is not ABSENT}
            continue
        param = model.find_param(name)
        value = plain(without_failed(evaluate(written, frame), step, failed))
        if param is None and by_reference and (wrong := misspelt(model, name, step.with_)):
            draft.problems.append((("with", name), wrong))
        elif param is None and by_reference:
            draft.notes.append(f"{model.name} has no {name}; the parameter is not sent to this model.")
        elif param is not None and by_reference and param.name in model.added and not param.required:
            # The step was possible without it, and would be paid for again.
            draft.notes.append(
                f"a later list has added {name} to {model.name}; the parameter is not sent to this model. To send it, "
                "write the model's name in a separate step."
            )
        elif value is not ABSENT:
            values[param.name if param is not None else name] = value
    return values


def _feed(
    draft: Draft, step: ModelStep, model: Model, frame: Frame, values: dict[str, Any], failed: Collection[str]
) -> None:
    for source in step.sources:
        value = plain(without_failed(evaluate(source, frame), step, failed))
        first = next(iter(files_in(value)), None)
        if value is not ABSENT and (wrong := not_a_file(value)):
            draft.problems.append((("from",), f"from takes files, and {wrong}"))
        if first is None:
            continue
        param, fault = feed(model, first.kind, {*values})
        if param is None:
            draft.problems.append((("from",), fault.replace("this", source, 1)))
        else:
            values[param.name] = value


def _refuse_texts(draft: Draft, model: Model, values: Mapping[str, Any]) -> None:
    """Refuses what is no file where the model takes one, and a file where it takes none."""
    media = {param.name: param.type for param in model.file_params}
    for name, value in _split(model, values)[0].items():
        if name in media and (wrong := not_a_file(value)):
            at = ("with", name if name in values else "unchecked")
            draft.problems.append((at, f"{name} takes a file of kind {media[name]}, and {wrong}"))
        elif name in values and name not in media and is_file_in(value):
            draft.problems.append((("with", name), f"{name} takes no file, and a file is given"))


def _check(draft: Draft, model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the values, with stand-ins for unknown ones; returns them by wire names, for the price."""
    values, unchecked = _split(model, values)
    params = {name: model.find_param(name) for name in values}
    draft.problems.extend(
        (("with", "unchecked"), f"{name} is a file, and {model.name} has no file parameter of this name")
        for name in unchecked
        if params[name] is None and any(files_in(values[name]))
    )
    stand_ins = {name: _stand_in(value, params[name]) for name, value in values.items()}
    found = check(model, stand_ins, unchecked=unchecked)
    wrong = {key[-1] for key, _ in draft.problems}
    for problem in found.problems:
        follows = problem.partition(" ")[0] in wrong or ("from" in wrong and "missing" in problem)
        draft.problems.extend([] if follows else [(_key_of(problem, values), problem)])
    draft.notes.extend(found.notices)
    payload = dict(found.values)
    for name, value in values.items():
        param = params[name]
        if param is not None and _holds_unknown(value):
            payload[param.key] = value
    draft.params = as_given(model, {name: mark(value) for name, value in values.items()}, unchecked=unchecked)
    return payload


def _split(model: Model, values: Mapping[str, Any]) -> tuple[dict[str, Any], Collection[str]]:
    """Returns all values by name, and the names of those that are sent unchecked."""
    unchecked = {
        param.name if (param := model.find_param(name)) is not None else name: value
        for name, value in values.get("unchecked", {}).items()
    }
    return {**{name: value for name, value in values.items() if name != "unchecked"}, **unchecked}, unchecked.keys()


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
    for param in model.file_params:
        for file in files_in(values.get(param.name)):
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
    draft: Draft,
    step: PaidStep,
    model: Model | None,
    payload: Mapping[str, Any],
    files: list[File],
    values: list[Any],
) -> None:
    instance = draft.instance
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
    link_needs(instance, values)


def _no_price(instance: Instance, model: Model | None) -> str:
    remedy = "assume: {price: …} gives one."
    if model is None:
        return f"the catalogue does not have the price of {instance.model}; {remedy}"
    if model.price is None:
        return f"the catalogue has no price of {model.name}; {remedy}"
    more = f" ({model.price_note})" if model.price_note else ""
    return f"the price of {model.name} can be higher{more}; {remedy}"


def _kind_of(output: str) -> str:
    return "string" if output == "text" else output
