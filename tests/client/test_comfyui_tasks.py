"""Graphs of the native proxy under the names that all tasks have: started, looked at, cancelled and fetched by them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client, TaskView, is_task_id
from rh_prefect.errors import LinkExpired, ResponseLost, TaskNotFound
from tests.client.conftest import KEY
from tests.support.samples.comfyui_answers import ENTRY, FILE, GRAPH, PROMPT
from tests.support.servers.scripted_server import Body, WireServer, reply

TASK = f"proxy.{PROMPT}"
QUEUE = {"queue_running": [[3, PROMPT, GRAPH, {}, ["9"]]], "queue_pending": [[4, "other"]]}


@pytest.fixture(autouse=True)
async def no_key_is_told(client: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("family", ["proxy", "proxy-plus"])
async def test_a_submit(family: str, client: Client, wire: WireServer) -> None:
    errors = {"3": {"errors": [{"message": "bad"}], "class_type": "KSampler"}}
    wire.plays(reply({"prompt_id": PROMPT, "node_errors": errors}))
    view = await client.submit(f"/{family}", {"prompt": GRAPH}, webhook_url="https://hooks.example.net")
    assert (view.task_id, view.status, view.node_errors) == (f"{family}.{PROMPT}", "QUEUED", {"3": "KSampler: bad"})
    [asked] = wire.asked
    assert (asked.path, asked.json) == (f"/{family}/{KEY}/prompt", {"prompt": GRAPH})
    assert is_task_id(view.task_id)


async def looked_at(client: Client, wire: WireServer, *answers: Body) -> TaskView:
    wire.plays(*(reply(answer) for answer in answers))
    return await client.query(TASK)


async def test_a_query_while_it_waits_and_runs(client: Client, wire: WireServer) -> None:
    assert (await looked_at(client, wire, {}, QUEUE)).status == "RUNNING"
    waiting = {"queue_running": [[1, "running"]], "queue_pending": [[5, "later"], [4, PROMPT], [2, "next"]]}
    view = await looked_at(client, wire, {}, waiting)
    assert (view.status, view.ahead) == ("QUEUED", 2)
    assert wire.paths[:2] == [f"/proxy/{KEY}/history/{PROMPT}", f"/proxy/{KEY}/queue"]


async def test_a_proxy_that_tells_no_queue_still_says_when_it_is_over(client: Client, wire: WireServer) -> None:
    wire.plays(reply({}), *[reply("<html>")] * 9)
    assert (await client.query(TASK)).status == "RUNNING"


async def test_a_graph_that_is_nowhere_is_not_known(client: Client, wire: WireServer) -> None:
    empty: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
    wire.plays(reply({}), reply(empty), reply({}))
    with pytest.raises(TaskNotFound, match=f"query of task {TASK}"):
        await client.query(TASK)
    assert (await looked_at(client, wire, {}, empty, {PROMPT: ENTRY})).status == "SUCCESS"


async def test_the_end_of_a_graph(client: Client, wire: WireServer) -> None:
    preview = {"filename": "p.png", "type": "temp"}
    entry = {**ENTRY, "outputs": {**ENTRY["outputs"], "13": {"images": [preview]}}}
    view = await looked_at(client, wire, {PROMPT: entry})
    links = [f"{wire.url}/proxy/***/view?filename=Comfy+UI_00001_.png&subfolder=a%2Fb&type=output"]
    links += [f"{wire.url}/proxy/***/view?filename=v.mp4&subfolder=&type=output"]
    assert [(one.url, one.type, one.node_id) for one in view.outputs] == [
        (links[0], "png", "9"), (links[1], "mp4", "12")
    ]  # fmt: skip
    only = {**ENTRY, "outputs": {"13": {"images": [preview]}}}
    assert len((await looked_at(client, wire, {PROMPT: only})).outputs) == 1


async def test_failure_and_cancellation(client: Client, wire: WireServer) -> None:
    def ended(word: str, **more: object) -> dict[str, object]:
        status = {"status_str": "error", "completed": False, "messages": [[word, {"node_id": "3", **more}]]}
        return {PROMPT: {"status": status, "outputs": ENTRY["outputs"]}}

    failed = await looked_at(client, wire, ended("execution_error", exception_message="boom"))
    assert (failed.status, failed.reason, failed.outputs) == ("FAILED", "node 3: boom", ())
    assert (await looked_at(client, wire, ended("execution_interrupted"))).status == "CANCELLED"


async def test_a_cancel_stops_what_runs_and_takes_out_what_waits(client: Client, wire: WireServer) -> None:
    wire.plays(reply(QUEUE), reply(""), reply(QUEUE), reply(""), reply(QUEUE))
    await client.cancel(TASK)
    await client.cancel("proxy.other")
    await client.cancel("proxy.ended")
    changes = [(asked.path.rpartition("/")[2], asked.json) for asked in wire.asked if asked.method == "POST"]
    assert changes == [("interrupt", {"prompt_id": PROMPT}), ("queue", {"delete": ["other"]})]
    wire.plays(reply(QUEUE), reply("<html>", status=502))
    with pytest.raises(ResponseLost, match="cancel of prompt"):
        await client.cancel(TASK)


async def test_a_file_is_fetched_by_its_masked_link(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.plays(reply(b"pixels"))
    link = client.comfy_plus.link(FILE)
    assert KEY not in link
    assert (await client.download(link, tmp_path / "a.png")).size == 6
    assert wire.paths == [f"/proxy-plus/{KEY}/view?filename=Comfy+UI_00001_.png&subfolder=a%2Fb&type=output"]
    with pytest.raises(LinkExpired, match="not a URL of a file of ComfyUI at /proxy"):
        await client.comfy.fetch(link, tmp_path / "b.png")


@pytest.mark.parametrize("text", ["", "proxy.", "proxy-max.1", "proxy.../1", "١", "12a", "proxy.a b"])
def test_what_is_no_task_id(text: str) -> None:
    assert not is_task_id(text)
    assert is_task_id("2030000000000000001")
