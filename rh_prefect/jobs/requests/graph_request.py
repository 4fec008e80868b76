"""Requests for ComfyUI workflows and AI apps: each field is checked against the real graph before sending."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from rh_prefect.client import Client
from rh_prefect.errors import InputError
from rh_prefect.jobs.journal.identity import base_hash, file_mark
from rh_prefect.jobs.requests.graph_fields import AppFields, Fields, GraphFields
from rh_prefect.jobs.requests.input_files import Input, Inputs
from rh_prefect.jobs.requests.request import JobRequest, as_request
from rh_prefect.media.media import Media
from rh_prefect.workflows import AppInput, GraphInput, NodesInput, NodeValues, QuickCreateInput, WorkflowInput

V1_CREATE = "/task/openapi/create"
V1_QUICK = "/task/openapi/quick-ai-app/run"
V1_APP = "/task/openapi/ai-app/run"

Takes: TypeAlias = Literal["file", "value", "any"]
"""What a field takes: a file, a plain value, or what is not known."""

_PATH = "file://"
"""How a `Path` begins that the caller gave."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://\S+")
_FILE_NAME = re.compile(r"[^\n\r]{0,1000}([/\\][^\n\r]{1,255}|\.[A-Za-z0-9]{1,8})")

_UNCHANGED = (("addMetadata", True), ("instanceType", "default"), ("usePersonalQueue", False))
"""What this package fills in. It is no part of the request's hash: another default makes no other job."""


async def workflow_request(
    graph_input: WorkflowInput, *, client: Client, inputs: Inputs, label: str | None
) -> JobRequest:
    """Checks a run of a workflow against the saved graph, or against the one that the caller provides.

    Args:
        graph_input: The workflow, and the values of its nodes.
        client: Reads the saved graph; that costs nothing.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

    Raises:
        InputError: A node or field does not exist, or holds a link.
        ApiError: RunningHub does not give the graph out.
    """
    graph: Any = (
        graph_input.workflow if graph_input.workflow is not None else await client.workflows.json(graph_input.id)
    )
    files: dict[str, Input] = {}
    fields = GraphFields(graph, f"workflow {graph_input.id}")
    nodes = await _node_list(graph_input, fields, inputs, files)
    payload: dict[str, Any] = {"addMetadata": graph_input.add_metadata, **_machine(graph_input)}
    if graph_input.workflow is None and graph_input.access_password is None:
        endpoint = f"run/workflow/{graph_input.id}"
        payload["nodeInfoList"] = nodes
    else:
        endpoint = V1_CREATE
        payload["workflowId"] = graph_input.id
        payload |= {"workflow": _with(graph_input.workflow, nodes)} if graph_input.workflow else {"nodeInfoList": nodes}
    prepared = _job_request(graph_input, endpoint, payload, client.site, files, label)
    return replace(
        prepared, node_names=fields.names(), graph="" if graph_input.workflow is not None else fingerprint(graph)
    )


async def app_request(graph_input: AppInput, *, client: Client, inputs: Inputs, label: str | None) -> JobRequest:
    """Checks a run of an AI app against its call example.

    Args:
        graph_input: The app, and the values of its fields.
        client: Reads the call example; that costs nothing.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

    Raises:
        InputError: A field does not exist, or its value is not among its options.
        ApiError: RunningHub does not know the app.
    """
    app = await client.apps.demo(graph_input.id)
    if not app.nodes:
        raise InputError(
            f"app {graph_input.id}: RunningHub lists no fields for it. What to do: run it once on the "
            "site; nothing was sent."
        )
    if app.encrypted and graph_input.access_password is None:
        raise InputError(f"app {graph_input.id} is encrypted. What to do: set its `access_password`; nothing was sent.")
    files: dict[str, Input] = {}
    fields = AppFields(app)
    nodes = await _node_list(graph_input, fields, inputs, files)
    payload: dict[str, Any] = {"nodeInfoList": nodes, **_machine(graph_input)}
    endpoint = f"run/ai-app/{graph_input.id}"
    if graph_input.access_password is not None:
        endpoint = V1_APP
        payload["webappId"] = graph_input.id
    graph = fingerprint([node.model_dump(mode="json") for node in app.nodes])
    prepared = _job_request(graph_input, endpoint, payload, client.site, files, label)
    return replace(prepared, node_names=fields.names(), graph=graph)


async def native_request(graph_input: GraphInput, *, client: Client, inputs: Inputs, label: str | None) -> JobRequest:
    """Builds the request for a whole graph on the native proxy; ComfyUI itself checks the rest.

    Args:
        graph_input: The graph, and the values of its nodes.
        client: Names the site.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

    Raises:
        InputError: A node or field does not exist, or holds a link.
    """
    files: dict[str, Input] = {}
    fields = GraphFields(graph_input.graph, "the graph")
    nodes = await _node_list(graph_input, fields, inputs, files)
    prepared = _job_request(
        graph_input, f"/{graph_input.machine}", {"prompt": _with(graph_input.graph, nodes)}, client.site, files, label
    )
    return replace(prepared, node_names=fields.names())


async def _node_list(
    graph_input: NodeValues, fields: Fields, inputs: Inputs, files: dict[str, Input]
) -> list[dict[str, object]]:
    """The request's `nodeInfoList`, checked; files by their marks."""
    values: dict[tuple[str, str], object] = {}
    for name, value in graph_input.nodes.items():
        node_id, _, field = name.partition(".")
        checked = fields.check(node_id, field, value)
        takes: Takes = "file" if fields.takes_file(node_id, field) else "value"
        values[node_id, field] = await _sent(checked, takes, inputs, files)
    if graph_input.seed is not None:
        for key in fields.seeds():
            values.setdefault(key, fields.check(*key, graph_input.seed))
    return [{"nodeId": node_id, "fieldName": field, "fieldValue": value} for (node_id, field), value in values.items()]


async def _sent(value: object, takes: Takes, inputs: Inputs, files: dict[str, Input]) -> object:
    """A value as it is sent: a file becomes a mark, which becomes its name at RunningHub once it is uploaded."""
    source = await _file(value, takes, inputs)
    if source is None:
        return value
    given = await inputs.identify(source)
    mark = file_mark(given.seen.sha256)
    files[mark] = given
    return mark


async def _file(value: object, takes: Takes, inputs: Inputs) -> Media | str | None:
    """The file that a value stands for; None for a plain value and for a name that RunningHub has."""
    if isinstance(value, Media):
        return value
    if not isinstance(value, str) or takes == "value":
        return None
    if value.startswith(_PATH) or (takes == "file" and _URI.match(value)):
        return value
    # Words are words: only what has a suffix or a folder, as a file's name has, is looked for on the disk.
    return await inputs.find(value) if takes == "file" or _FILE_NAME.fullmatch(value) else None


def _with(graph: Mapping[str, Any] | None, nodes: list[dict[str, object]]) -> dict[str, Any]:
    """The caller's graph with its nodes set: RunningHub ignores `nodeInfoList` beside a graph."""
    whole: dict[str, Any] = copy.deepcopy(dict(graph or {}))
    for node in nodes:
        whole[str(node["nodeId"])]["inputs"][str(node["fieldName"])] = node["fieldValue"]
    return whole


def fingerprint(graph: object) -> str:
    """Returns a hash of a graph that changes if the graph is edited on the site; 40 hex digits.

    Args:
        graph: Plain JSON data.
    """
    text = json.dumps(graph, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _machine(graph_input: NodesInput) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "instanceType": graph_input.instance_type,
        "usePersonalQueue": graph_input.use_personal_queue,
    }
    if graph_input.retain_seconds is not None:
        machine["retainSeconds"] = graph_input.retain_seconds
    return machine


async def quick_create_request(
    graph_input: QuickCreateInput, *, client: Client, inputs: Inputs, label: str | None
) -> JobRequest:
    """Builds the request for a quick-create module, unchecked because its fields are not documented.

    Args:
        graph_input: The module and its fields.
        client: Names the site.
        inputs: Looks at files.
        label: The caller's name for the output.
    """
    files: dict[str, Input] = {}
    nodes = [
        {
            key: await _sent(value, "any" if key == "fieldValue" else "value", inputs, files)
            for key, value in node.items()
        }
        for node in graph_input.nodes
    ]
    payload: dict[str, Any] = {"webappId": graph_input.id, "quickCreateCode": graph_input.code, "nodeInfoList": nodes}
    return _job_request(graph_input, V1_QUICK, payload, client.site, files, label)


def _job_request(
    graph_input: WorkflowInput | AppInput | QuickCreateInput | GraphInput,
    endpoint: str,
    payload: dict[str, Any],
    site: str,
    files: dict[str, Input],
    label: str | None,
) -> JobRequest:
    password = getattr(graph_input, "access_password", None)
    request = as_request({name: value for name, value in payload.items() if (name, value) not in _UNCHANGED})
    return JobRequest(
        model=graph_input.model,
        endpoint=endpoint,
        site=site,
        payload=payload,
        base=base_hash(site=site, endpoint=endpoint, payload=request),
        label=label,
        request=request,
        inputs=files,
        private={} if password is None else {"accessPassword": password.get_secret_value()},
    )
