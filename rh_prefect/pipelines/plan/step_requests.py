"""Builds the request of one paid step of one item: checks its values, and computes its hash and its price."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.hash_compatibility import as_given
from rh_prefect.catalog.input_validation import check_file
from rh_prefect.catalog.model import Model
from rh_prefect.errors import MediaError, UnknownModelError
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.check.paid_steps import no_such_model, wrong_fields
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.file_model import GraphStep, ModelStep, PaidStep
from rh_prefect.pipelines.model_arguments import Bound
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.request_price import input_seconds, output_seconds, price_of
from rh_prefect.pipelines.plan.size_limits import count_of
from rh_prefect.pipelines.plan.step_drafts import Draft, evaluated, files_in, plain, problem_in, without_failed
from rh_prefect.pipelines.plan.work_identity import mark
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Unknown,
    certain,
    digest,
    leaves,
    makers,
    number_of,
)
from rh_prefect.pipelines.site_graphs import SavedGraph, SavedGraphs, UnreadGraph, node_digests
from rh_prefect.pipelines.types import kind_of

_ENDPOINTS = {"workflow": "run/workflow/{}", "app": "run/ai-app/{}", "graph": "proxy"}


def draft_paid(
    draft: Draft, step: ModelStep | GraphStep, checked: Checked, failed: Container[PlannedStep], saved: SavedGraphs
) -> None:
    """Drafts the request of a paid step."""
    instance = draft.instance
    instance.attempts = step.attempts or checked.file.attempts or 1
    instance.reuse = step.reuse or checked.file.reuse or instance.reuse
    if isinstance(step, GraphStep):
        _add_fields(draft, step, failed)
        _add_graph(draft, step, checked, saved)
    else:
        _add_parameters(draft, step, failed)
    _count(draft, step)


def _count(draft: Draft, step: PaidStep) -> None:
    """Evaluates `takes` and `at_most`, which multiply the price; a wrong value is a problem."""
    draft.wrong(("takes",), count_of("takes", step.takes, draft.frame)[1])
    if step.parse is not None:
        draft.instance.at_most, wrong = count_of("at_most", step.parse.at_most, draft.frame)
        draft.wrong(("parse", "at_most"), wrong)


def _evaluated(
    draft: Draft, step: ModelStep | GraphStep, at: Path, written: Any, failed: Container[PlannedStep]
) -> Any:
    value = without_failed(evaluated(draft, at, written), step, failed)
    draft.wrong(at, problem_in(value))
    return plain(value)


def _add_fields(draft: Draft, step: GraphStep, failed: Container[PlannedStep]) -> None:
    """Drafts the request of a step with a workflow, an app or a graph, whose fields the catalogue does not contain."""
    name, instance = str(getattr(step, step.action)), draft.instance
    instance.model, draft.endpoint = f"{step.action} {name}", _ENDPOINTS[step.action].format(name)
    kind = step.assume.kind if step.assume is not None else None
    instance.kind = kind_of(kind or "file")
    values = {key: _evaluated(draft, step, ("with", key), value, failed) for key, value in step.with_.items()}
    values = {key: value for key, value in values.items() if value is not ABSENT}
    for key, value in values.items():
        several = f"{key} takes one value, but several are given"
        draft.wrong(("with", key), several if isinstance(value, list | dict) else "")
    draft.set_values(values)
    _finish(draft, step, None, {}, files_in(values))


def _add_graph(draft: Draft, step: GraphStep, checked: Checked, saved: SavedGraphs) -> None:
    """Adds the graph's fingerprint, without the fields that the step sets, to the request."""
    instance = draft.instance
    fields = list(instance.request)
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
            f"pin is {step.pin}, but the graph of {instance.model} now has the fingerprint {present}. What to do: "
            f"restore the graph, or set pin to {present}; this makes a new result."
        )
    instance.request["graph"] = step.pin or present


def _add_unread(draft: Draft, pin: str | None, found: UnreadGraph | None) -> None:
    """Adds the fingerprint of `pin` or of the last run, with which an existing result is found without the graph."""
    instance = draft.instance
    instance.unread_graph = found.reason if found is not None else ""
    used = found.used.get(frozenset(instance.request)) if found is not None else None
    if pin:
        instance.request["graph"] = pin
    elif used is not None:
        instance.request["graph"], instance.nodes = used.fingerprint, used.nodes
        draft.notes.append(f"the graph of {instance.model} cannot be read; a result of the last run's graph is used.")
    else:
        instance.is_unread = True
        draft.notes.append(f"the graph of {instance.model} was not read, so earlier results are not found.")


def _add_parameters(draft: Draft, step: ModelStep, failed: Container[PlannedStep]) -> None:
    name, instance = certain(evaluate(step.model, draft.frame)), draft.instance
    instance.model = name if isinstance(name, str) else step.model
    try:
        model = catalog.get(instance.model)
    except UnknownModelError:
        instance.kind = "file"
        draft.wrong(("model",), no_such_model(instance.model))
        return
    instance.endpoint = draft.endpoint = model.endpoint
    instance.kind = kind_of(model.output)
    bound = Bound(step, model, lambda at, written, _: _evaluated(draft, step, at, written, failed))
    found, wrong = bound.check_values()
    reported = {at for at, _ in draft.problems}  # an unusable file has no kind, which would be a fault too
    draft.problems.extend((one.at, one.message) for one in bound.faults or wrong if one.at not in reported)
    draft.notes.extend([*bound.notes, *found.notices])
    given = bound.all
    values = bound.values | ({"unchecked": bound.unchecked} if bound.unchecked else {})
    draft.set_values(values, as_given(model, mark(given), unchecked=bound.unchecked.keys()))
    payload = dict(found.values)
    for name, value in given.items():
        param, is_unknown = model.find_param(name), any(isinstance(one, File | Unknown) for one in leaves(value))
        payload |= {param.key: value} if is_unknown and param is not None else {}
    files = [one for param in model.file_params for one in files_in(given.get(param.name))]
    _finish(draft, step, model, payload, files)
    _check_files(draft, model, instance.values)


def _check_files(draft: Draft, model: Model, values: Mapping[str, Any]) -> None:
    for param in model.file_params:
        for file in files_in(values.get(param.name)):
            media = file.media
            if media is None or file.problem:
                continue
            extension = media.name.rpartition(".")[2].lower() if "." in media.name else None
            try:
                check_file(model, param, extension=extension, size=media.size, kind=media.kind, source=media.name)
            except MediaError as error:
                draft.wrong(("with", param.name), error.message.partition(" Nothing was sent.")[0].rstrip("."))


def _finish(draft: Draft, step: PaidStep, model: Model | None, payload: Mapping[str, Any], files: list[File]) -> None:
    instance = draft.instance
    assumed = None
    if step.assume is not None and step.assume.seconds is not None:
        seconds = evaluate(step.assume.seconds, draft.frame)
        assumed = number_of(seconds)
        instance.needs = tuple(dict.fromkeys([*instance.needs, *makers(seconds)]))
    timed = [one for one in files if one.kind in ("video", "audio")]
    length = input_seconds(timed, assumed)
    instance.price = price_of(model, payload, seconds=length, assume=step.assume, attempts=instance.attempts)
    if instance.price.is_open and (step.assume is None or step.assume.price is None):
        instance.price_note = _no_price(instance, model)
    draft.seconds = output_seconds(model, payload, files, assumed)


def _no_price(instance: PlannedStep, model: Model | None) -> str:
    remedy = "set the price with assume: {price: …}."
    if model is None:
        return f"the catalogue does not contain the price of {instance.model}; {remedy}"
    if model.price is None:
        return f"the catalogue has no price for {model.name}; {remedy}"
    more = f" ({model.price_note})" if model.price_note else ""
    return f"the price of {model.name} can be higher{more}; {remedy}"
