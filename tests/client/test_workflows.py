"""Graphs of saved workflows, and a task's state as v1 tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rh_prefect.client import Client
from rh_prefect.errors import ApiError, InputError, ResponseLost, RunningHubError, TaskNotFound
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Body, WireServer, reply, said

ID = "2031112223334445057"
WORKFLOW = "2030000000000000001"
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 9007199254740993, "steps": 20, "cfg": 7.5, "denoise": 1.0, "model": ["4", 0], "on": True},
        "_meta": {"title": "KSampler"},
    }
}
GONE = {"code": 807, "msg": "APIKEY_TASK_NOT_FOUND", "data": None}


@pytest.mark.parametrize("value", [json.dumps(GRAPH), json.dumps(json.dumps(GRAPH)), GRAPH])
async def test_a_graph_can_be_written_again_as_it_was(value: Any, client: Client, wire: WireServer) -> None:
    wire.plays(said({"prompt": value}))
    graph = await client.workflows.json(WORKFLOW)
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", "/api/openapi/getJsonApiFormat")
    assert asked.json == {"apiKey": KEY, "workflowId": WORKFLOW}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert json.dumps(graph) == json.dumps(GRAPH)


@pytest.mark.parametrize("value", [None, "{}", '{"3": ', "[1]"])
async def test_no_graph(value: object, client: Client, wire: WireServer) -> None:
    wire.plays(said({"prompt": value}))
    with pytest.raises(ResponseLost, match=f"graph of workflow {WORKFLOW}"):
        await client.workflows.json(WORKFLOW)


@pytest.mark.parametrize("value", ["", " ", "a/b", "../1", "1?x=2", "1\n2", "x" * 101, 7, None, 2.03e18])
async def test_what_is_no_id_is_not_sent(value: Any, client: Client, wire: WireServer) -> None:
    for call in (client.workflows.json, client.workflows.status_v1, client.workflows.outputs_v1, client.apps.demo):
        with pytest.raises(InputError, match="is not a valid id"):
            await call(value)
    assert wire.asked == []


OUTPUTS: list[tuple[dict[str, object], str]] = [
    ({"code": 804, "msg": "APIKEY_TASK_IS_RUNNING", "data": {"netWssUrl": "wss://x/ws?Rh-Comfy-Auth=a"}}, "RUNNING"),
    ({"code": 804, "msg": "APIKEY_TASK_IS_RUNNING", "data": None}, "RUNNING"),
    ({"code": "804", "msg": "APIKEY_TASK_IS_RUNNING", "data": []}, "RUNNING"),
    ({"code": 813, "msg": "APIKEY_TASK_IS_QUEUED", "data": None}, "QUEUED"),
    ({"code": 0, "msg": "APIKEY_TASK_IS_QUEUED", "data": None}, "QUEUED"),
    ({"code": 0, "msg": "success", "data": None}, "RUNNING"),
    ({"code": 0, "msg": "success", "data": []}, "SUCCESS"),
    ({"code": 0, "msg": "success", "data": "[]"}, "SUCCESS"),
    ({"code": 0, "msg": "success", "data": {"fileUrl": "https://img.example.net/a.png", "nodeId": "12"}}, "SUCCESS"),
    ({"code": 0, "msg": "success", "data": {"netWssUrl": "wss://x.example/ws"}}, "RUNNING"),
    ({"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": None}, "FAILED"),
    ({"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": {"failedReason": None}}, "FAILED"),
]


@pytest.mark.parametrize(("answer", "status"), OUTPUTS)
async def test_outputs_in_every_form(answer: dict[str, object], status: str, client: Client, wire: WireServer) -> None:
    wire.plays(reply(answer), reply(answer))
    view = await client.workflows.outputs_v1(ID)
    assert (view.status, view.task_id) == (status, ID)
    if answer["code"]:
        assert (await client.workflows.status_v1(ID)).status == status


async def test_a_failed_task_tells_why(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": {"failedReason": {"node_id": "3"}}}))
    view = await client.workflows.outputs_v1(ID)
    assert (view.code, view.reason, str(view.failure)) == ("805", "APIKEY_TASK_STATUS_ERROR", "node 3")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (GONE, TaskNotFound),
        ({"code": 999, "msg": "?", "data": []}, ApiError),
        ({"code": 0, "msg": "success"}, ResponseLost),
        ({"code": 0, "msg": "success", "data": {"what": "else"}}, ResponseLost),
    ],
)
async def test_no_state(answer: Body, error: type[RunningHubError], client: Client, wire: WireServer) -> None:
    wire.always = reply(answer)
    with pytest.raises(error, match=f"v1 status of task {ID}"):
        await client.workflows.status_v1(ID)
    with pytest.raises(error, match=f"v1 outputs of task {ID}"):
        await client.workflows.outputs_v1(ID)
