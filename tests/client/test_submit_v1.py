"""The older ways to start a task: a key in the body as well, a ticket in an envelope, the same rules of money."""

from __future__ import annotations

import json
import logging
import pickle

import pytest

from rh_prefect.client import Client, TaskView
from rh_prefect.client.wire.task import read_node_errors
from rh_prefect.errors import InputError
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import WireServer, reply

ID = "2031112223334445057"
CREATE = "/task/openapi/create"
PATHS = [CREATE, "/task/openapi/ai-app/run", "/task/openapi/quick-ai-app/run"]
TICKET = "dGlja2V0LW9mLXRoZS1hY2NvdW50"
PROGRESS = f"wss://www.runninghub.cn:443/ws/c_instance?c_host=10.0.0.7&clientId=5f0c&Rh-Comfy-Auth={TICKET}%3D"
FINE: dict[str, object] = {"result": True, "error": None, "outputs_to_execute": ["9"], "node_errors": {}}


def created(**more: object) -> dict[str, object]:
    data = {
        "netWssUrl": PROGRESS,
        "taskId": ID,
        "clientId": "5f0c2ab19e7d4c06a1b2c3d4e5f60718",
        "taskStatus": "RUNNING",
        "promptTips": json.dumps(FINE),
        **more,
    }
    return {"code": 0, "msg": "success", "errorMessages": None, "data": data}


@pytest.mark.parametrize("path", PATHS)
async def test_the_key_is_in_the_header_and_in_the_body(path: str, client: Client, wire: WireServer) -> None:
    wire.plays(reply(created()))
    view = await client.submit(path, {"workflowId": "2030000000000000001"}, webhook_url="https://h.example/t")
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", path)
    assert asked.json == {"workflowId": "2030000000000000001", "webhookUrl": "https://h.example/t", "apiKey": KEY}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert (view.task_id, view.status, view.node_errors) == (ID, "RUNNING", {})


async def test_the_account_pays_whatever_key_a_payload_names(client: Client, wire: WireServer) -> None:
    wire.plays(reply(created()))
    await client.submit(CREATE, {"apiKey": "another"})
    assert wire.asked[0].json["apiKey"] == KEY


async def test_v2_starts_have_no_key_in_the_body(client: Client, wire: WireServer) -> None:
    wire.plays(reply(created()), reply(created()))
    await client.submit("run/workflow/2030000000000000001", {"nodeInfoList": []})
    await client.submit("run/ai-app/2030000000000000002", {"nodeInfoList": []})
    assert wire.paths == [
        "/openapi/v2/run/workflow/2030000000000000001",
        "/openapi/v2/run/ai-app/2030000000000000002",
    ]
    assert [asked.json for asked in wire.asked] == [{"nodeInfoList": []}] * 2


async def test_the_progress_address_is_kept_as_a_secret(
    client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.plays(reply(created()))
    view = await client.submit(CREATE, {})
    assert view.progress_url is not None
    assert view.progress_url.get_secret_value() == PROGRESS
    told = repr(view) + str(view) + view.model_dump_json() + repr(view.model_dump()) + caplog.text
    assert TICKET not in told
    assert TaskView.model_validate_json(view.model_dump_json()).progress_url is None
    assert pickle.loads(pickle.dumps(view)) == view


@pytest.mark.parametrize("url", [None, "", "https://x.example/ws", 7, {"a": 1}, "null"])
async def test_what_is_no_progress_address_is_none(url: object, client: Client, wire: WireServer) -> None:
    wire.plays(reply(created(netWssUrl=url, taskStatus="QUEUED")))
    view = await client.submit(CREATE, {})
    assert (view.progress_url, view.status) == (None, "QUEUED")


TIPS: list[tuple[object, dict[str, str]]] = [
    (None, {}),
    ("", {}),
    (json.dumps(FINE), {}),
    (FINE, {}),
    (json.dumps(json.dumps(FINE)), {}),
    ("not JSON, though it says node_errors", {}),
    (
        json.dumps(
            {**FINE, "node_errors": {"3": {"errors": [{"message": "bad", "details": "x"}], "class_type": "KSampler"}}}
        ),
        {"3": "KSampler: bad: x"},
    ),
    (json.dumps({**FINE, "node_errors": json.dumps({"3": "bad"})}), {"3": "bad"}),
    (json.dumps({**FINE, "result": False}), {"": "the graph is not valid"}),
    (json.dumps({**FINE, "result": False, "error": {"type": "no_prompt"}}), {"": '{"type": "no_prompt"}'}),
    (json.dumps({**FINE, "result": False, "error": "no outputs"}), {"": "no outputs"}),
]


@pytest.mark.parametrize(("tips", "errors"), TIPS)
def test_what_comfyui_says_of_the_graph(tips: object, errors: dict[str, str]) -> None:
    assert read_node_errors(tips) == errors


@pytest.mark.parametrize(
    "path", ["/task/openapi/cancel", "/task/openapi/creates", "task/openapi/create", "/task/openapi/create/"]
)
async def test_no_other_v1_path_is_posted_to_as_a_submit(path: str, client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="/task/openapi/quick-ai-app/run"):
        await client.submit(path, {})
    assert wire.asked == []
