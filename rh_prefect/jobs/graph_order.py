"""Orders for ComfyUI workflows and AI apps: each field is checked against the real graph before anything is sent."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rh_prefect.client import App, AppNode, Client
from rh_prefect.errors import InputError
from rh_prefect.jobs.identity import base_hash, file_mark
from rh_prefect.jobs.inputs import Input, Inputs
from rh_prefect.jobs.order import Order
from rh_prefect.media.ref import Media
from rh_prefect.workflows import AppInput, NodesInput, QuickCreateInput, WorkflowInput

Graph = Mapping[str, Mapping[str, Any]]
"""A workflow in ComfyUI's API format: node id -> {class_type, inputs}."""

SEEDS = ("seed", "noise_seed", "rand_seed")
"""The fields that RunningHub draws anew for each run unless they are set."""

_LOADERS = {"image": ("image",), "video": ("video",), "audio": ("audio",), "upload": ("image",)}
"""Fields of loader nodes that take a file by its name at RunningHub."""

V1_CREATE = "/task/openapi/create"
V1_QUICK = "/task/openapi/quick-ai-app/run"
V1_APP = "/task/openapi/ai-app/run"


class Fields(Protocol):
    """What can be set, whatever it was read from."""

    def check(self, node_id: str, field: str, value: object) -> object:
        """Checks one value; returns it as it is sent."""
        ...

    def takes_file(self, node_id: str, field: str) -> bool:
        """Whether the field takes a file by its name at RunningHub."""
        ...

    def seeds(self) -> Iterator[tuple[str, str]]:
        """The seeds that can be set."""
        ...


async def workflow_order(asked: WorkflowInput, *, client: Client, inputs: Inputs, label: str | None) -> Order:
    """Checks a run of a workflow against the graph that is saved, or that the caller brings.

    Args:
        asked: The workflow, and the values of its nodes.
        client: Reads the saved graph; that costs nothing.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

    Raises:
        InputError: A node or field does not exist, or holds a link.
        ApiError: RunningHub does not give the graph out.
    """
    graph: Any = asked.workflow if asked.workflow is not None else await client.workflows.json(asked.id)
    files: dict[str, Input] = {}
    nodes = await _node_list(asked, GraphFields(graph, f"workflow {asked.id}"), inputs, files)
    payload: dict[str, Any] = {"addMetadata": asked.add_metadata, **_machine(asked)}
    if asked.workflow is None and asked.access_password is None:
        endpoint = f"run/workflow/{asked.id}"
        payload["nodeInfoList"] = nodes
    else:
        endpoint = V1_CREATE
        payload["workflowId"] = asked.id
        payload |= {"workflow": _with(asked.workflow, nodes)} if asked.workflow else {"nodeInfoList": nodes}
    return _order(asked, endpoint, payload, client.site, files, label)


async def app_order(asked: AppInput, *, client: Client, inputs: Inputs, label: str | None) -> Order:
    """Checks a run of an AI app against its call example.

    Args:
        asked: The app, and the values of its fields.
        client: Reads the call example; that costs nothing.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

    Raises:
        InputError: A field does not exist, or its value is not among its options.
        ApiError: RunningHub does not know the app.
    """
    app = await client.apps.demo(asked.id)
    if not app.nodes:
        raise InputError(
            f"app {asked.id}: RunningHub names no field of it. What to do: run it once on the site; nothing was sent."
        )
    if app.encrypted and asked.access_password is None:
        raise InputError(f"app {asked.id} is encrypted. What to do: give its `access_password`; nothing was sent.")
    files: dict[str, Input] = {}
    nodes = await _node_list(asked, AppFields(app), inputs, files)
    payload: dict[str, Any] = {"nodeInfoList": nodes, **_machine(asked)}
    endpoint = f"run/ai-app/{asked.id}"
    if asked.access_password is not None:
        endpoint = V1_APP
        payload["webappId"] = asked.id
    return _order(asked, endpoint, payload, client.site, files, label)


class GraphFields:
    """The fields of a workflow's graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        """Reads the graph.

        Args:
            graph: API format.
            name: For messages.
        """
        self._graph = {node_id: node for node_id, node in graph.items() if isinstance(node, Mapping)}
        self._name = name

    def check(self, node_id: str, field: str, value: object) -> object:
        """Refuses a node or a field that is not there, and a field that another node feeds."""
        if node_id not in self._graph:
            raise InputError(f"{self._name} has no node {node_id!r}. {self._near(node_id, field)} Nothing was sent.")
        inputs = self._inputs(node_id)
        if field not in inputs:
            raise InputError(
                f"{self._name}: node {node_id} ({self._kind(node_id)}) has no field {field!r}; it has "
                f"{', '.join(inputs) or 'none'}. Nothing was sent."
            )
        if _is_link(inputs[field]):
            source = inputs[field][0]
            raise InputError(
                f"{self._name}: {node_id}.{field} is fed by node {source} ({self._kind(source)}) and cannot be set. "
                f"Set a field of node {source} instead; nothing was sent."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Whether it is a loader's file."""
        return field in _LOADERS and "load" in self._kind(node_id).lower()

    def seeds(self) -> Iterator[tuple[str, str]]:
        """All seeds that no other node feeds."""
        for node_id in self._graph:
            for field, value in self._inputs(node_id).items():
                if field in SEEDS and not _is_link(value):
                    yield node_id, field

    def _inputs(self, node_id: str) -> Mapping[str, Any]:
        inputs = self._graph[node_id].get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def _kind(self, node_id: str) -> str:
        return str(self._graph.get(str(node_id), {}).get("class_type", "?"))

    def _near(self, node_id: str, field: str) -> str:
        """The nodes that were perhaps meant: those with that field, then those whose ids look alike."""
        alike = difflib.get_close_matches(node_id, list(self._graph), n=3, cutoff=0.4)
        having = [one for one in self._graph if field in self._inputs(one)]
        near = list(dict.fromkeys([*having, *alike]))[:3] or list(self._graph)[:3]
        return f"Near are {', '.join(f'{one} ({self._kind(one)})' for one in near)}."


class AppFields:
    """The fields of an AI app."""

    def __init__(self, app: App) -> None:
        """Reads the app.

        Args:
            app: Its call example.
        """
        self._app = app
        self._nodes: dict[tuple[str, str], AppNode] = {(node.node_id, node.field_name): node for node in app.nodes}

    def check(self, node_id: str, field: str, value: object) -> object:
        """Refuses a field that is not there, and a value that is none of its options."""
        node = self._nodes.get((node_id, field))
        if node is None:
            known = ", ".join(f"{one}.{name}" for one, name in self._nodes)
            raise InputError(
                f"app {self._app.webapp_id} has no field {node_id}.{field}; it has {known}. Nothing was sent."
            )
        allowed = [option.value for option in node.options]
        if allowed and node.media is None and str(value) not in allowed:
            raise InputError(
                f"app {self._app.webapp_id}: {node_id}.{field} cannot be {value!r}; it can be {', '.join(allowed)}. "
                "Nothing was sent."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Whether it takes a picture, a video or a sound."""
        node = self._nodes.get((node_id, field))
        return node is not None and node.media is not None

    def seeds(self) -> Iterator[tuple[str, str]]:
        """The seeds that the app shows."""
        return (key for key in self._nodes if key[1] in SEEDS)


async def _node_list(
    asked: NodesInput, fields: Fields, inputs: Inputs, files: dict[str, Input]
) -> list[dict[str, object]]:
    """The request's `nodeInfoList`, checked; files by their marks."""
    values: dict[tuple[str, str], object] = {}
    for name, value in asked.nodes.items():
        node_id, _, field = name.partition(".")
        checked = fields.check(node_id, field, value)
        values[node_id, field] = await _sent(checked, fields.takes_file(node_id, field), inputs, files)
    if asked.seed is not None:
        for key in fields.seeds():
            values.setdefault(key, asked.seed)
    return [{"nodeId": node_id, "fieldName": field, "fieldValue": value} for (node_id, field), value in values.items()]


async def _sent(value: object, takes_file: bool, inputs: Inputs, files: dict[str, Input]) -> object:
    """A value as it is sent: a file becomes a mark, which becomes its name at RunningHub once it is uploaded."""
    if not isinstance(value, Media) and not (takes_file and isinstance(value, str) and _is_place(value)):
        return value
    given = await inputs.identify(value)
    mark = file_mark(given.seen.sha256)
    files[mark] = given
    return mark


def _is_place(value: str) -> bool:
    """Whether a text names a file of the caller's, and not one that RunningHub has already."""
    return "://" in value or Path(value).expanduser().is_file()


def _is_link(value: object) -> bool:
    """Whether a graph's value is the output of another node: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _with(graph: Mapping[str, Any] | None, nodes: list[dict[str, object]]) -> dict[str, Any]:
    """The caller's graph with its nodes set: RunningHub ignores `nodeInfoList` beside a graph."""
    whole: dict[str, Any] = copy.deepcopy(dict(graph or {}))
    for node in nodes:
        whole[str(node["nodeId"])]["inputs"][str(node["fieldName"])] = node["fieldValue"]
    return whole


def _machine(asked: NodesInput) -> dict[str, Any]:
    machine: dict[str, Any] = {"instanceType": asked.instance_type, "usePersonalQueue": asked.use_personal_queue}
    if asked.retain_seconds is not None:
        machine["retainSeconds"] = asked.retain_seconds
    return machine


async def quick_create_order(asked: QuickCreateInput, *, client: Client, inputs: Inputs, label: str | None) -> Order:
    """Makes the order for a module of quick create; what its fields take is not published, so nothing is checked.

    Args:
        asked: The module and its fields.
        client: Names the site.
        inputs: Looks at files.
        label: The caller's name for the output.
    """
    files: dict[str, Input] = {}
    nodes = [
        {key: await _sent(value, key == "fieldValue", inputs, files) for key, value in node.items()}
        for node in asked.nodes
    ]
    payload: dict[str, Any] = {"webappId": asked.id, "quickCreateCode": asked.code, "nodeInfoList": nodes}
    return _order(asked, V1_QUICK, payload, client.site, files, label)


def _order(
    asked: WorkflowInput | AppInput | QuickCreateInput,
    endpoint: str,
    payload: dict[str, Any],
    site: str,
    files: dict[str, Input],
    label: str | None,
) -> Order:
    password = getattr(asked, "access_password", None)
    return Order(
        model=asked.model,
        endpoint=endpoint,
        site=site,
        payload=payload,
        base=base_hash(site=site, endpoint=endpoint, payload=payload, label=label),
        label=label,
        inputs=files,
        private={} if password is None else {"accessPassword": password.get_secret_value()},
    )
