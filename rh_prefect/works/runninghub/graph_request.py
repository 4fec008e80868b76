"""Requests for ComfyUI workflows and AI apps: each field is checked against the real graph before sending."""

from __future__ import annotations

import asyncio
import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, TypeAlias, assert_never

from rh_prefect.client import App, AppNode, Client
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.workflow_inputs import AppInput, GraphInput, NodesInput, NodeValues, QuickCreateInput, WorkflowInput
from rh_prefect.works.checked_request import V1_CREATE, JobRequest, RequestFiles
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.journal.identity import file_mark, text_hash

Graph = Mapping[str, Mapping[str, Any]]
"""A workflow in ComfyUI's API format: node id -> {class_type, inputs}."""

SEEDS = ("seed", "noise_seed", "rand_seed")
"""The fields that RunningHub sets to a random number in each run unless the request sets them."""

_LOADERS = frozenset({"image", "video", "audio", "upload", "file"})
"""Fields of loader nodes that take the name of a file at RunningHub."""

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

_NUMBERS = ("INT", "FLOAT")
"""The types of an app's fields that take a number."""


class GraphFields:
    """The fields of a workflow's graph, for checking the values that a run sets."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = {node_id: node for node_id, node in graph.items() if isinstance(node, Mapping)}
        self._name = name

    def check(self, node_id: str, field: str, value: object) -> object:
        """Returns the value; raises an error if the field does not exist or is connected to another node."""
        if node_id not in self._graph:
            raise InputError(
                f"{self._name} has no node {node_id!r}. {self._suggestions(node_id, field)} Nothing was sent. "
                "What to do: correct the node's id."
            )
        inputs = self._inputs(node_id)
        if field not in inputs:
            raise InputError(
                f"{self._name}: node {node_id} ({self._class(node_id)}) has no field {field!r}; it has "
                f"{', '.join(inputs) or 'none'}. Nothing was sent. What to do: correct the field's name."
            )
        if _is_link(inputs[field]):
            source = inputs[field][0]
            raise InputError(
                f"{self._name}: {node_id}.{field} is connected to the output of node {source} ("
                f"{self._class(source)}) and cannot be set. Nothing was sent. What to do: set a field of node {source} "
                "instead."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Returns whether the field is the file of a loader node."""
        return field in _LOADERS and "load" in self._class(node_id).lower()

    def seeds(self) -> Iterator[tuple[str, str]]:
        """Yields the seed fields that are not connected to another node."""
        for node_id in self._graph:
            for name, value in self._inputs(node_id).items():
                if name in SEEDS and not _is_link(value):
                    yield node_id, name

    def node_names(self) -> dict[str, str]:
        """Returns the class names of all nodes, by node id."""
        return {node_id: self._class(node_id) for node_id in self._graph}

    def _inputs(self, node_id: str) -> Mapping[str, Any]:
        inputs = self._graph[node_id].get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def _class(self, node_id: str) -> str:
        return str(self._graph.get(str(node_id), {}).get("class_type", "?"))

    def _suggestions(self, node_id: str, field: str) -> str:
        """Returns a sentence with up to three nodes: nodes with this field, then nodes with similar ids."""
        similar = difflib.get_close_matches(node_id, list(self._graph), cutoff=0.4)
        with_field = [node_id for node_id in self._graph if field in self._inputs(node_id)]
        node_ids = list(dict.fromkeys([*with_field, *similar]))[:3] or list(self._graph)[:3]
        return f"Similar names: {', '.join(f'{node_id} ({self._class(node_id)})' for node_id in node_ids)}."


class AppFields:
    """The fields of an AI app, for checking the values that a run sets."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._nodes: dict[tuple[str, str], AppNode] = {(node.node_id, node.field_name): node for node in app.nodes}

    def check(self, node_id: str, field: str, value: object) -> object:
        """Returns the value; raises an error if the field does not exist or does not allow the value."""
        node = self._nodes.get((node_id, field))
        if node is None:
            fields = ", ".join(f"{node_id}.{name}" for node_id, name in self._nodes)
            raise InputError(
                f"app {self._app.webapp_id} has no field {node_id}.{field}; it has {fields}. Nothing was sent. "
                "What to do: correct the field's name."
            )
        allowed = [option.value for option in node.options]
        if allowed and node.media is None and str(value) not in allowed:
            raise InputError(
                f"app {self._app.webapp_id}: {node_id}.{field} cannot be {value!r}; allowed values: "
                f"{', '.join(allowed)}. Nothing was sent. What to do: use an allowed value."
            )
        requirement = "" if allowed or node.field_type not in _NUMBERS else _unmet_requirement(node, value)
        if requirement:
            raise InputError(
                f"app {self._app.webapp_id}: {node_id}.{field} cannot be {value!r}; it must be {requirement}. "
                "Nothing was sent. What to do: correct the value."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Returns whether the field takes a picture, a video or a sound."""
        node = self._nodes.get((node_id, field))
        return node is not None and node.media is not None

    def seeds(self) -> Iterator[tuple[str, str]]:
        """Yields the seed fields of the app."""
        return (key for key in self._nodes if key[1] in SEEDS)

    def node_names(self) -> dict[str, str]:
        """Returns the class names of the app's nodes, by node id."""
        return {node.node_id: node.node_name for node in self._app.nodes if node.node_name}


def is_link_text(value: object) -> bool:
    """Returns whether a text is a link or a URI, which cannot be the name of a file at RunningHub."""
    return isinstance(value, str) and _LINK.match(value) is not None


def _unmet_requirement(node: AppNode, value: object) -> str:
    """Returns the requirement of a number field that a value does not meet; empty if the value meets all."""
    number = _number(value)
    if number is None:
        return "a number"
    if node.field_type == "INT" and number != number.to_integral_value():
        return "a whole number"
    if node.minimum is not None and number < node.minimum:
        return f"at least {node.minimum}"
    return f"at most {node.maximum}" if node.maximum is not None and number > node.maximum else ""


def _number(value: object) -> Decimal | None:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _is_link(value: object) -> bool:
    """Returns whether a graph's value is the output of another node: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


V1_QUICK = "/task/openapi/quick-ai-app/run"
V1_APP = "/task/openapi/ai-app/run"

FieldKind: TypeAlias = Literal["file", "value", "any"]
"""`file` if a field takes a file, `value` if it takes a plain value, `any` if that is unknown."""

_FILE_SCHEME = "file://"
"""The scheme of a `Path` in a request, or of a URI that the caller has written."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://\S+")
_FILE_NAME = re.compile(r"[^\n\r]{0,1000}([/\\][^\n\r]{1,255}|\.[A-Za-z0-9]{1,8})")

_UNCHANGED = (("addMetadata", True), ("instanceType", "default"), ("usePersonalQueue", False))
"""This package's defaults. The request's hash does not contain them, so a changed default creates no new jobs."""


GraphRequest: TypeAlias = WorkflowInput | AppInput | QuickCreateInput | GraphInput
"""A request for a saved workflow, an app, a quick-create module, or a whole graph of the caller."""


@dataclass(frozen=True, slots=True)
class _Built:
    """The parts of a request that depend on its kind."""

    endpoint: str
    payload: dict[str, Any]
    node_names: Mapping[str, str] = field(default_factory=dict)
    graph: str = ""  # A fingerprint of what the site has under its id


async def graph_request(graph_input: GraphRequest, *, client: Client, inputs: Inputs, label: str | None) -> JobRequest:
    """Checks a request against its graph, if the graph is known, and identifies its files by content."""
    files = RequestFiles(inputs)
    match graph_input:
        case WorkflowInput():
            built = await _of_workflow(graph_input, client, files)
        case AppInput():
            built = await _of_app(graph_input, client, files)
        case QuickCreateInput():
            built = await _of_quick_create(graph_input, files)
        case GraphInput():
            built = await _of_graph(graph_input, files)
        case other:
            assert_never(other)
    password = getattr(graph_input, "access_password", None)
    return JobRequest.checked(
        given={name: value for name, value in built.payload.items() if (name, value) not in _UNCHANGED},
        files=files,
        model=graph_input.model,
        endpoint=built.endpoint,
        site=client.site,
        payload=built.payload,
        label=label,
        graph=built.graph,
        private={} if password is None else {"accessPassword": password.get_secret_value()},
        node_names=built.node_names,
    )


async def _of_workflow(graph_input: WorkflowInput, client: Client, files: RequestFiles) -> _Built:
    """Checks a run of a workflow against the saved graph, or against the caller's own graph."""
    own = graph_input.workflow
    graph: Any = own if own is not None else await client.workflows.json(graph_input.id)
    fields = GraphFields(graph, f"workflow {graph_input.id}")
    nodes = await _node_list(graph_input, fields, files)
    payload: dict[str, Any] = {"addMetadata": graph_input.add_metadata, **_machine_options(graph_input)}
    endpoint = f"run/workflow/{graph_input.id}"
    if own is not None or graph_input.access_password is not None:
        endpoint = V1_CREATE
        payload["workflowId"] = graph_input.id
    if own:
        payload["workflow"] = _graph_with(own, nodes)
    else:
        payload["nodeInfoList"] = nodes
    return _Built(endpoint, payload, fields.node_names(), "" if own is not None else fingerprint(graph))


async def _of_app(graph_input: AppInput, client: Client, files: RequestFiles) -> _Built:
    """Checks a run of an AI app against the fields that RunningHub lists for the app."""
    app = await client.apps.demo(graph_input.id)
    if not app.nodes:
        raise InputError(
            f"app {graph_input.id}: RunningHub lists no fields for this app. Nothing was sent. What to do: run the app "
            "once on the site."
        )
    if app.encrypted and graph_input.access_password is None:
        raise InputError(f"app {graph_input.id} is encrypted. Nothing was sent. What to do: set its `access_password`.")
    fields = AppFields(app)
    nodes = await _node_list(graph_input, fields, files)
    payload: dict[str, Any] = {"nodeInfoList": nodes, **_machine_options(graph_input)}
    endpoint = f"run/ai-app/{graph_input.id}"
    if graph_input.access_password is not None:
        endpoint = V1_APP
        payload["webappId"] = graph_input.id
    graph = fingerprint([node.model_dump(mode="json") for node in app.nodes])
    return _Built(endpoint, payload, fields.node_names(), graph)


async def _of_graph(graph_input: GraphInput, files: RequestFiles) -> _Built:
    """Builds the request for a whole graph on the native proxy; ComfyUI itself checks what this function does not."""
    fields = GraphFields(graph_input.graph, "the graph")
    nodes = await _node_list(graph_input, fields, files)
    payload = {"prompt": _graph_with(graph_input.graph, nodes)}
    return _Built(f"/{graph_input.machine}", payload, fields.node_names())


async def _of_quick_create(graph_input: QuickCreateInput, files: RequestFiles) -> _Built:
    """Builds the request for a quick-create module, without a check, because its fields are not documented."""
    nodes = [
        {
            key: await _wire_value(key, value, "any" if key == "fieldValue" else "value", files)
            for key, value in node.items()
        }
        for node in graph_input.nodes
    ]
    payload = {"webappId": graph_input.id, "quickCreateCode": graph_input.code, "nodeInfoList": nodes}
    return _Built(V1_QUICK, payload)


async def _node_list(
    graph_input: NodeValues, fields: GraphFields | AppFields, files: RequestFiles
) -> list[dict[str, object]]:
    """Returns the checked `nodeInfoList` of a request; files are replaced by their marks."""
    values: dict[tuple[str, str], object] = {}
    for name, value in graph_input.nodes.items():
        node_id, _, field = name.partition(".")
        checked = fields.check(node_id, field, value)
        kind: FieldKind = "file" if fields.takes_file(node_id, field) else "value"
        if kind == "file" and not graph_input.opens_texts:
            kind = "value"
            if is_link_text(checked):
                raise InputError(
                    f"{name} takes a file, but its value is the text of a link. Nothing was sent. What to do: pass a "
                    "parameter, a cell or a result with a file type."
                )
        elif kind == "value" and graph_input.opens_texts and str(checked).startswith(_FILE_SCHEME):
            raise InputError(
                f"{name}: {checked!r} is a file, but this field is not known to take one. Nothing was sent. What to "
                "do: correct the field's name; or, for a file of another kind, pass the `file_name` of `upload_file`."
            )
        values[node_id, field] = await _wire_value(name, checked, kind, files)
    if graph_input.seed is not None:
        for key in fields.seeds():
            if key not in values:
                values[key] = fields.check(*key, graph_input.seed)
    return [{"nodeId": node_id, "fieldName": field, "fieldValue": value} for (node_id, field), value in values.items()]


async def _wire_value(name: str, value: object, kind: FieldKind, files: RequestFiles) -> object:
    """Returns a value for the payload; a file is replaced by a mark, and after its upload by its name at RunningHub."""
    source = _source_of(value, kind)
    if source is None:
        await _refuse_local_file(name, value, kind)
        return value
    return await files.mark(source, to_mark=file_mark)


def _source_of(value: object, kind: FieldKind) -> Media | str | None:
    """Returns the file that a value names; None for a plain value and for the name of a file at RunningHub."""
    if isinstance(value, Media):
        return value
    is_file = isinstance(value, str) and kind != "value" and value.startswith(_FILE_SCHEME)
    is_file = is_file or (isinstance(value, str) and kind == "file" and _URI.match(value) is not None)
    return str(value) if is_file else None


async def _refuse_local_file(name: str, value: object, kind: FieldKind) -> None:
    """Raises an error if a text is the path of a local file; RunningHub would get the path, not the file.

    If any text is allowed, only a text with a folder or a suffix is checked.
    """
    if not isinstance(value, str) or kind == "value" or (kind == "any" and not _FILE_NAME.fullmatch(value)):
        return
    uri = await asyncio.to_thread(_local_uri, value)
    if uri:
        raise InputError(
            f"{name}: {value!r} is the path of a local file, but a text here is the name of a file that RunningHub "
            f"has. Nothing was sent. What to do: pass Path({value!r}), or {uri}."
        )


def _local_uri(text: str) -> str | None:
    with suppress(OSError, RuntimeError, ValueError):  # too long, an unknown user's home, or a NUL: not a file name
        path = Path(text).expanduser()
        if path.is_file():
            return path.absolute().as_uri()
    return None


def _graph_with(graph: Mapping[str, Any] | None, nodes: list[dict[str, object]]) -> dict[str, Any]:
    """Returns the caller's graph with its nodes set, because RunningHub ignores `nodeInfoList` beside a graph."""
    changed: dict[str, Any] = copy.deepcopy(dict(graph or {}))
    for node in nodes:
        changed[str(node["nodeId"])]["inputs"][str(node["fieldName"])] = node["fieldValue"]
    return changed


def fingerprint(graph: object) -> str:
    """Returns 40 hex digits that identify a graph, given as plain JSON data; an edit of the graph changes them."""
    text = json.dumps(graph, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return text_hash(text, 40)


def _machine_options(graph_input: NodesInput) -> dict[str, Any]:
    options: dict[str, Any] = {
        "instanceType": graph_input.instance_type,
        "usePersonalQueue": graph_input.use_personal_queue,
    }
    if graph_input.retain_seconds is not None:
        options["retainSeconds"] = graph_input.retain_seconds
    return options
