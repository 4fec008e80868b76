"""Checks the start of a graph as the service does, of a workflow or of an AI app, and prices it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, get_args

from rh_prefect.emulator import assumptions
from rh_prefect.emulator.acceptance import plain
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.charges import Machine, run_charge
from rh_prefect.emulator.comfy import graph as graphs
from rh_prefect.emulator.comfy.apps import App
from rh_prefect.emulator.comfy.builtin import SAMPLE_PICTURE
from rh_prefect.emulator.comfy.graph import Graph
from rh_prefect.emulator.comfy.validate import Files, Verdict, validate
from rh_prefect.emulator.comfy.work import BadNode, model_for, pieces_of
from rh_prefect.emulator.inputs import Sources, local
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.orders import check_content, webhook_of
from rh_prefect.emulator.render.picture import sample
from rh_prefect.emulator.tasks import Breakdown, Order, Piece
from rh_prefect.errors import MediaError

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State

_TRUTHS: Final[dict[object, bool]] = {True: True, False: False, "true": True, "false": False}
_LINKS: Final = ("http://", "https://", "data:")


@dataclass(frozen=True, slots=True)
class Target:
    """What is started.

    Attributes:
        graph: A copy of its own.
        items: The request's node list.
        fields: What the list may set, as (nodeId, fieldName); None for every field.
        keeps_seeds: Whether no seed is drawn anew.
        may_stamp: Whether pictures can carry the graph; those of apps never do.
    """

    graph: Graph
    items: object = field(default_factory=list)
    fields: frozenset[tuple[str, str]] | None = None
    keeps_seeds: bool = False
    may_stamp: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """A start that was checked.

    Attributes:
        order: What it asks for.
        verdict: What validation found.
        breakdown: Why it will fail.
        may_wait: Whether it goes into the personal queue where there is no room.
    """

    order: Order
    verdict: Verdict
    breakdown: Breakdown | None
    may_wait: bool


@dataclass(frozen=True, slots=True)
class Family:
    """How v1 and v2 starts refuse: each has codes of its own.

    Attributes:
        is_v1: Which of them.
        bad: The code for a wrong parameter.
        node_info: Code and words for a node list that does not fit.
    """

    is_v1: bool
    bad: str
    node_info: tuple[str, str]


V1: Final = Family(True, "301", assumptions.NODE_INFO)
V2: Final = Family(False, "1007", assumptions.NODE_INFO_V2)


def workflow_target(state: State, workflow_id: object, body: Mapping[str, object]) -> Target:
    """Finds the workflow of a start.

    Raises:
        Refused: There is none, it was never run, or it is protected.
    """
    workflow = state.workflows.find(workflow_id)
    if workflow is None:
        raise Refused("380")
    if not workflow.saved:
        raise Refused("810")
    _check_password(workflow.password, body)
    override = body.get("workflow")
    if not override:
        return Target(copy.deepcopy(workflow.graph), body.get("nodeInfoList") or [])
    graph = graphs.parse(override) if isinstance(override, str) else None
    if not graph:
        raise Refused(*_with_reason(assumptions.BAD_GRAPH, "workflow must be the JSON text of a graph in API format"))
    return Target(graph, keeps_seeds=assumptions.OVERRIDE_KEEPS_SEEDS)


def app_target(state: State, app_id: object, body: Mapping[str, object]) -> Target:
    """Finds the app of a start.

    Raises:
        Refused: There is none, or it is protected.
    """
    app = find_app(state, app_id)
    _check_password(app.password, body)
    fields = frozenset((item.node_id, item.field_name) for item in app.fields)
    shown = fields if assumptions.APP_FIELDS_ONLY else None
    return Target(copy.deepcopy(app.graph), body.get("nodeInfoList") or [], shown, may_stamp=False)


def find_app(state: State, app_id: object) -> App:
    """Finds an app.

    Raises:
        Refused: There is none.
    """
    app = state.apps.find(app_id)
    if app is None:
        raise Refused("901")
    return app


def _check_password(password: str, body: Mapping[str, object]) -> None:
    if password and body.get("accessPassword") != password:
        raise Refused(*assumptions.WRONG_PASSWORD)


def prepare(
    state: State, key: ApiKey, endpoint: str, body: Mapping[str, object], *, target: Target, family: Family
) -> Run:
    """Checks a start from the first to the last thing, and prices it; call it from a thread.

    Args:
        state: The emulator.
        key: Whose request it is.
        endpoint: What the books call it.
        body: The request's JSON object.
        target: What is started.
        family: How it refuses.

    Raises:
        Refused: The service would say no; the order of the checks is an assumption.
    """
    machine, may_wait, retained = _options(key, body, family.bad)
    stamps = _switch(body, "addMetadata", family.bad, default=True) and target.may_stamp
    webhook = webhook_of(body, code=family.bad)
    graph = _changed(target, family, draw=partial(state.chance.node_seed, endpoint))
    check_content(state.moderated, {"graph": [graphs.inputs_of(node) for node in graph.values()]})
    verdict, pieces, breakdown = examine(state, key, graph, metadata=stamps)
    model = pieces[0].model if pieces else model_for()
    queued, seconds = state.durations(model, plain(body))
    charge = run_charge(key.tier, seconds, machine, retained=retained)
    order = Order(
        key, endpoint, plain(body), pieces, charge, seconds, queued, webhook, is_v1=family.is_v1, graph=dict(graph)
    )
    return Run(order, verdict, breakdown, may_wait)


def _options(key: ApiKey, body: Mapping[str, object], bad: str) -> tuple[Machine, bool, int]:
    machine = body.get("instanceType") or "default"
    if machine not in get_args(Machine):
        raise Refused(bad, f"instanceType must be one of {', '.join(get_args(Machine))}")
    waits = _switch(body, "usePersonalQueue", bad, default=False) and key.tier == "EXCLUSIVE"
    retained = body.get("retainSeconds") or 0
    if not isinstance(retained, int) or (retained and retained not in assumptions.RETAIN_SECONDS):
        raise Refused(bad, "retainSeconds must be a whole number from 10 to 180")
    return cast(Machine, machine), waits, retained if key.tier == "SHARED" else 0


def _switch(body: Mapping[str, object], name: str, bad: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool | str) or value not in _TRUTHS:
        raise Refused(bad, f"{name} must be true or false")
    return _TRUTHS[value]


def _changed(target: Target, family: Family, *, draw: Callable[[int], int]) -> Graph:
    """Sets the values of the node list, and draws the other seeds anew."""
    graph = target.graph
    try:
        _check_fields(target)
        touched = graphs.apply(graph, target.items)
    except graphs.BadNodeInfo as bad:
        raise Refused(*_with_reason(family.node_info, str(bad))) from bad
    if not target.keeps_seeds:
        graphs.shake(graph, kept=touched, draw=draw)
    return graph


def _check_fields(target: Target) -> None:
    if target.fields is None or not isinstance(target.items, list):
        return
    for item in target.items:
        where = (str(item.get("nodeId")), str(item.get("fieldName"))) if isinstance(item, dict) else ("", "")
        if where not in target.fields and where[0] in target.graph:
            shown = ", ".join(f"{node_id}.{name}" for node_id, name in sorted(target.fields))
            raise graphs.BadNodeInfo(f"the app has no field {where[1]} of node {where[0]}; it has {shown}")


def examine(
    state: State, key: ApiKey, graph: Graph, *, metadata: bool = False
) -> tuple[Verdict, tuple[Piece, ...], Breakdown | None]:
    """Validates a graph and finds its files.

    Returns:
        What validation found, what is to be made, and why it will fail if it will.

    Raises:
        Refused: ComfyUI would refuse the whole.
    """
    foreign = state.workflows.foreign | state.apps.foreign
    verdict = validate(graph, Files(partial(_has_media, state), state.loras.has, foreign))
    if verdict.is_hopeless:
        error = verdict.error or {}
        raise Refused(*_with_reason(assumptions.BAD_GRAPH, f"{error.get('message')} {error.get('details')}".strip()))
    if not verdict.outputs:
        return verdict, (), BadNode(*verdict.first()).breakdown()
    find = partial(_find, state, key)
    try:
        return verdict, pieces_of(graph, verdict.outputs, find, foreign=foreign, metadata=metadata), None
    except BadNode as bad:
        return verdict, (), bad.breakdown()


def _has_media(state: State, name: str) -> bool:
    return name.startswith(_LINKS) or name == SAMPLE_PICTURE or state.shelf.named(name) is not None


def _find(state: State, key: ApiKey, name: str) -> Path:
    if name.startswith(_LINKS):
        try:
            return local(Sources(state.shelf, state.assets, key.account), name, "file")
        except Refused as refused:
            raise MediaError(f"{refused.words}. Upload it again.") from refused
    return state.shelf.named(name) or sample(state.shelf.folder / SAMPLE_PICTURE)


def _with_reason(refusal: tuple[str, str], reason: str) -> tuple[str, str]:
    code, words = refusal
    return code, f"{words}: {reason}"
