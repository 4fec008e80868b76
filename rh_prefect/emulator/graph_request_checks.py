"""Checks and prices the requests that start a workflow or an AI app, as the service does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rh_prefect.emulator.accounts import ApiKey, Charge, run_charge
from rh_prefect.emulator.assumptions import Assumptions, Refusal
from rh_prefect.emulator.comfy import graph as graphs
from rh_prefect.emulator.comfy.apps import App
from rh_prefect.emulator.comfy.graph import Graph
from rh_prefect.emulator.comfy.outputs import BadNode, model_for, pieces_of
from rh_prefect.emulator.comfy.validation import Files, Verdict, validate
from rh_prefect.emulator.comfy.workflows import SAMPLE_PICTURE
from rh_prefect.emulator.inputs import local
from rh_prefect.emulator.model_submits import content_failure, plain, webhook_of
from rh_prefect.emulator.render.picture import sample
from rh_prefect.emulator.request_texts import is_link
from rh_prefect.emulator.responses import Refused, message_of
from rh_prefect.emulator.tasks import Failure, OutputSpec, TaskSpec
from rh_prefect.errors import MediaError

if TYPE_CHECKING:
    from rh_prefect.emulator.endpoint import Call
    from rh_prefect.emulator.state import State

_TRUTHS: Final[dict[object, bool]] = {True: True, False: False, "true": True, "false": False}
_BAD_GRAPH: Final = ("433", "")
_LINKS: Final = ("http://", "https://", "data:")


@dataclass(frozen=True, slots=True)
class Target:
    """The graph of a workflow or app that is to be started.

    Attributes:
        graph: A copy of the graph, which the start request may change.
        items: The request's node list.
        fields: The fields that the node list may set, as (nodeId, fieldName); None for every field.
        keeps_seeds: Whether all seeds stay unchanged.
        may_stamp: Whether pictures may contain the graph as metadata; False for apps.
    """

    graph: Graph
    items: object = field(default_factory=list)
    fields: frozenset[tuple[str, str]] | None = None
    keeps_seeds: bool = False
    may_stamp: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """A start request that has passed all checks."""

    spec: TaskSpec
    verdict: Verdict
    failure: Failure | None
    may_wait: bool


Startable = Literal["workflow", "app"]
"""The kind of object that is started; quick create starts an app."""


@dataclass(frozen=True, slots=True)
class Start:
    """A request that starts a workflow or an app, through v1 or v2."""

    call: Call
    kind: Startable
    is_v1: bool

    @property
    def assumptions(self) -> Assumptions:
        """The emulator's assumptions."""
        return self.call.state.assumptions

    @property
    def bad(self) -> str:
        """The code for a wrong parameter."""
        return "301" if self.is_v1 else "1007"

    @property
    def node_info(self) -> Refusal:
        """The refusal of a node list that does not match."""
        return ("803", "") if self.is_v1 else self.assumptions.node_info_v2

    @property
    def items(self) -> object:
        """The request's node list; empty if there is none."""
        sent = self.call.body.get("nodeInfoList")
        return [] if sent is None else sent

    def refused(self, refusal: Refusal, reason: str) -> Refused:
        """Returns a refusal with its reason."""
        code, words = refusal
        return Refused(code, f"{message_of(self.assumptions, code, words)}: {reason}")


FindTarget = Callable[[Start], Target]
"""Finds the workflow or app that a start request names, or raises `Refused`."""


def workflow_target(start: Start, *, workflow_id: str) -> Target:
    """Finds the workflow of a start request; raises `Refused` if it does not exist, was never run, or is protected."""
    known = start.assumptions
    sent = start.call.body.get("workflow") if start.is_v1 or known.v2_reads_workflow else None
    workflow = start.call.state.workflows.find(workflow_id)
    if workflow is None:
        if not sent or workflow_id not in known.placeholder_ids:
            raise Refused("380")
        return _own_graph(start, sent, beside={})
    if not workflow.saved:
        raise Refused("810")
    _check_password(start, workflow.password)
    if sent:
        return _own_graph(start, sent, beside=workflow.graph)
    keeps_seeds = known.reads_random_seed and start.call.body.get("randomSeed") is False
    return Target(copy.deepcopy(workflow.graph), start.items, keeps_seeds=keeps_seeds)


def _own_graph(start: Start, sent: object, *, beside: Graph) -> Target:
    """Reads the graph of the request; the node list is checked against the saved graph, and changes no graph."""
    graph = graphs.parse(sent) if isinstance(sent, str) else None
    if not graph:
        raise start.refused(_BAD_GRAPH, "workflow must be the JSON text of a graph in API format")
    if start.assumptions.node_list_beside_graph:
        _applied(start, copy.deepcopy(beside), start.items)
    return Target(graph, keeps_seeds=start.assumptions.override_keeps_seeds)


def app_target(start: Start, *, app_id: str) -> Target:
    """Finds the app of a start request; raises `Refused` if it does not exist or is protected."""
    app = find_app(start.call.state, app_id)
    _check_password(start, app.password)
    fields = frozenset((item.node_id, item.field_name) for item in app.fields)
    shown = fields if start.assumptions.app_fields_only else None
    return Target(copy.deepcopy(app.graph), start.items, shown, may_stamp=False)


def quick_target(start: Start, *, app_id: str, code: str) -> Target:
    """Finds the quick-create module of a start request; raises `Refused` if it does not exist or has another code."""
    if find_app(start.call.state, app_id).quick_code != code:
        raise Refused(*start.assumptions.wrong_quick_code)
    return app_target(start, app_id=app_id)


def find_app(state: State, app_id: object) -> App:
    """Finds an app; raises `Refused` if it does not exist."""
    app = state.apps.find(app_id)
    if app is None:
        raise Refused("901")
    return app


def _check_password(start: Start, password: str) -> None:
    reads = start.is_v1 or start.assumptions.v2_reads_password
    sent = start.call.body.get("accessPassword") if reads else None
    if password and sent != password:
        raise Refused(*start.assumptions.wrong_password)


def prepare(start: Start, find: FindTarget) -> Run:
    """Checks and prices a start request; blocks, so call it from a thread.

    The order is parameters, money, lookup, node list, content, graph; the position of money is an assumption.
    """
    call, bad = start.call, start.bad
    state, key, body = call.state, call.key, call.body
    machine, may_wait, retained = _options(start)
    stamps = _switch(body, "addMetadata", bad, default=True)
    webhook = webhook_of(body, code=bad)
    if start.kind in start.assumptions.billing_gate_first and key.tier in start.assumptions.billing_gate_tiers:
        key.account.check(Charge(), tier=key.tier, assumptions=start.assumptions)
    target = find(start)
    graph = _changed(start, target)
    moderated = content_failure(state, {"graph": [graphs.inputs_of(node) for node in graph.values()]})
    verdict, outputs, failure = examine(state, key, graph, metadata=stamps and target.may_stamp)
    model = outputs[0].model if outputs else model_for()
    queued, seconds = state.durations(model, plain(body))
    charge = run_charge(start.assumptions, key.tier, seconds, machine, retained=retained)
    sent = plain(body)
    spec = TaskSpec(
        key, call.endpoint, sent, outputs, charge, seconds, queued, webhook, is_v1=start.is_v1, graph=dict(graph)
    )
    return Run(spec, verdict, failure or moderated, may_wait)


def _options(start: Start) -> tuple[str, bool, int]:
    """Reads the machine type, the use of the personal queue, and the seconds for which the machine is kept."""
    key, body, bad = start.call.key, start.call.body, start.bad
    least, most = start.assumptions.retain_seconds
    waits = _switch(body, "usePersonalQueue", bad, default=False) and key.tier == "EXCLUSIVE"
    retained = body.get("retainSeconds") or 0
    if not isinstance(retained, int) or (retained and not least <= retained <= most):
        raise Refused(bad, f"retainSeconds must be between {least} and {most}")
    return _machine(start), waits, retained if key.tier == "SHARED" else 0


def _machine(start: Start) -> str:
    known, asked = start.assumptions.machine_factors, start.call.body.get("instanceType") or "default"
    if asked in known:
        return str(asked)
    if not isinstance(asked, str) or not start.assumptions.unknown_machine:
        raise Refused(start.bad, f"instanceType must be one of {', '.join(known)}")
    return start.assumptions.unknown_machine


def _switch(body: Mapping[str, object], name: str, bad: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool | str) or value not in _TRUTHS:
        raise Refused(bad, f"{name} must be true or false")
    return _TRUTHS[value]


def _changed(start: Start, target: Target) -> Graph:
    """Sets the values of the node list, draws the other seeds, and returns the graph."""
    try:
        _check_fields(target)
    except graphs.BadNodeInfo as bad:
        raise start.refused(start.node_info, str(bad)) from bad
    touched = _applied(start, target.graph, target.items)
    if not target.keeps_seeds:
        request = f"{start.call.endpoint} {_contents(target.graph)}"
        graphs.shake(target.graph, kept=touched, draw=partial(start.call.state.random.node_seed, request))
    return target.graph


def _contents(graph: Graph) -> str:
    """Returns the values of a graph as text, without links, which differ from upload to upload."""
    values = {
        node_id: {name: value for name, value in graphs.inputs_of(node).items() if not is_link(value)}
        for node_id, node in graph.items()
    }
    return json.dumps(values, sort_keys=True, default=str)


def _applied(start: Start, graph: Graph, items: object) -> set[tuple[str, str]]:
    try:
        return graphs.apply(graph, items)
    except graphs.BadNodeInfo as bad:
        raise start.refused(start.node_info, str(bad)) from bad


def _check_fields(target: Target) -> None:
    if target.fields is None or not isinstance(target.items, list):
        return
    for item in target.items:
        where = (str(item.get("nodeId")), str(item.get("fieldName"))) if isinstance(item, dict) else ("", "")
        if where not in target.fields and where[0] in target.graph:
            raise graphs.BadNodeInfo(f"the app has no field {where[1]} of node {where[0]}")


def examine(
    state: State, key: ApiKey, graph: Graph, *, metadata: bool = False, folder: str = ""
) -> tuple[Verdict, tuple[OutputSpec, ...], Failure | None]:
    """Validates a graph and finds its files.

    Args:
        state: The emulator.
        key: The key of the request.
        graph: The graph.
        metadata: Whether pictures contain the graph as metadata.
        folder: The folder of the files that were uploaded to the machine of the native proxy.

    Returns:
        The result of validation, the outputs to make, and the failure that the task will report, if any.

    Raises:
        Refused: ComfyUI would refuse the graph as a whole.
    """
    foreign = state.workflows.foreign | state.apps.foreign
    verdict = validate(graph, Files(partial(_has_media, state, folder), state.file_store.loras.__contains__, foreign))
    if verdict.is_hopeless:
        code, error = _BAD_GRAPH[0], verdict.error or {}
        reason = f"{error.get('message')} {error.get('details')}".strip()
        raise Refused(code, f"{message_of(state.assumptions, code)}: {reason}")
    if not verdict.outputs:
        return verdict, (), BadNode(*verdict.first()).failure(state.assumptions)
    find = partial(_find, state, key, folder)
    try:
        return verdict, pieces_of(graph, verdict.outputs, find, foreign=foreign, metadata=metadata), None
    except BadNode as bad:
        return verdict, (), bad.failure(state.assumptions)


def _has_media(state: State, folder: str, name: str) -> bool:
    return name.startswith(_LINKS) or name == SAMPLE_PICTURE or _named(state, folder, name) is not None


def _named(state: State, folder: str, name: str) -> Path | None:
    return state.file_store.named(folder + name) or state.file_store.named(name)


def _find(state: State, key: ApiKey, folder: str, name: str) -> Path:
    if name.startswith(_LINKS):
        try:
            return local(state, key, name, "file")
        except Refused as refused:
            raise MediaError(refused.words) from refused
    return _named(state, folder, name) or sample(state.file_store.folder / SAMPLE_PICTURE)
