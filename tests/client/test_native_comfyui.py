"""Graphs on ComfyUI's own API, under the names that all tasks have: sent once where it costs, the key seen nowhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client, TaskView, Upload, is_task_id
from rh_prefect.errors import (
    Busy,
    InputError,
    KeyRejected,
    LinkExpired,
    MediaError,
    RequestRejected,
    ResponseLost,
    RunningHubError,
    TaskNotFound,
)
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Body, Step, WireServer, cut, reply, stall

GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}
PROMPT = "8f1c-44"
ENTRY: dict[str, Any] = {
    "prompt": [1, PROMPT, GRAPH, {}, ["9"]],
    "outputs": {
        "9": {
            "images": [{"filename": "Comfy UI_00001_.png", "subfolder": "a/b", "type": "output"}],
            "animated": [False],
        },
        "12": {"gifs": [{"filename": "v.mp4"}], "text": ["words"]},
    },
    "status": {"status_str": "success", "completed": True, "messages": [["execution_start", {}]]},
}
"""What the history says of the graph."""

TASK = f"proxy.{PROMPT}"
QUEUE = {"queue_running": [[3, PROMPT, GRAPH, {}, ["9"]]], "queue_pending": [[4, "other"]]}
FILE = "view?filename=Comfy+UI_00001_.png&subfolder=a%2Fb&type=output"


@pytest.fixture(autouse=True)
async def no_key_is_told(client: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("family", ["proxy", "proxy-plus"])
async def test_a_submit(family: str, client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    errors = {"3": {"errors": [{"message": "Required input is missing", "details": "model"}], "class_type": "KSampler"}}
    wire.plays(reply({"prompt_id": PROMPT, "number": 1, "node_errors": errors}))
    view = await client.submit(f"/{family}", {"prompt": GRAPH}, webhook_url="https://hooks.example.net")
    assert (view.task_id, view.status) == (f"{family}.{PROMPT}", "QUEUED")
    assert view.node_errors == {"3": "KSampler: Required input is missing: model"}
    [asked] = wire.asked
    assert (asked.method, asked.path, asked.json) == ("POST", f"/{family}/{KEY}/prompt", {"prompt": GRAPH})
    assert "authorization" not in asked.headers
    assert f"/{family}/***/prompt" in caplog.text
    assert is_task_id(view.task_id)


INVALID = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
    "node_errors": {"3": {"errors": [{"message": "Value not in list"}], "class_type": "KSampler"}},
}
REFUSED: list[tuple[Step, type[RunningHubError], str]] = [
    (reply(INVALID, status=400), RequestRejected, "node 3: KSampler: Value not in list"),
    (reply({"error": {"message": "No prompt"}, "node_errors": []}, status=400), RequestRejected, "No prompt"),
    (reply({"code": 412, "msg": "TOKEN_INVALID"}), KeyRejected, "TOKEN_INVALID"),
    (reply({"code": 421, "msg": "TASK_QUEUE_MAXED"}), Busy, "421"),
    (reply("", status=429), Busy, "429"),
    (reply(f"<html>/proxy/{KEY}/prompt", status=404), RequestRejected, r"/proxy/\*\*\*/prompt"),
]


@pytest.mark.parametrize(("step", "error", "words"), REFUSED)
async def test_a_refused_graph(
    step: Step, error: type[RunningHubError], words: str, client: Client, wire: WireServer
) -> None:
    wire.plays(step)
    with pytest.raises(error, match=words) as caught:
        await client.submit("/proxy", {"prompt": GRAPH})
    assert KEY not in repr(caught.value)
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    "step", [cut(), stall(), reply("", status=502), reply(""), reply({}), reply({"prompt_id": None})]
)
async def test_a_lost_answer_is_unknown_and_nothing_is_sent_again(
    step: Step, limited: Client, wire: WireServer
) -> None:
    wire.plays(step)
    with pytest.raises(ResponseLost, match=r"prompt to ComfyUI at /proxy: .*may exist and be paid for"):
        await limited.submit("/proxy", {"prompt": GRAPH})
    assert len(wire.asked) == 1


@pytest.mark.parametrize("payload", [{}, {"prompt": "{}"}, {"prompt": {"3": object()}}])
async def test_what_is_no_graph_is_not_sent(payload: dict[str, object], client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="Nothing was sent"):
        await client.submit("/proxy", payload)
    assert wire.asked == []


async def looked_at(client: Client, wire: WireServer, *answers: Body) -> TaskView:
    wire.plays(*(reply(answer) for answer in answers))
    return await client.query(TASK)


async def test_a_query_while_it_waits_and_runs(client: Client, wire: WireServer) -> None:
    wire.plays(cut())
    assert (await looked_at(client, wire, {}, QUEUE)).status == "RUNNING"
    assert wire.paths == [f"/proxy/{KEY}/history/{PROMPT}"] * 2 + [f"/proxy/{KEY}/queue"]
    assert "authorization" not in wire.asked[0].headers
    waiting = {"queue_running": [[1, "running"]], "queue_pending": [[5, "later"], [4, PROMPT], [2, "next"]]}
    view = await looked_at(client, wire, {PROMPT: {"status": {}}}, waiting)
    assert (view.status, view.ahead) == ("QUEUED", 2)
    no_queue = ["<html>"] * 9
    assert (await looked_at(client, wire, {}, *no_queue)).status == "RUNNING"


async def test_a_graph_that_is_nowhere_is_not_known(client: Client, wire: WireServer) -> None:
    empty: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
    wire.plays(reply({}), reply(empty), reply({}))
    with pytest.raises(TaskNotFound, match=f"query of task {TASK}"):
        await client.query(TASK)
    assert (await looked_at(client, wire, {}, empty, {PROMPT: ENTRY})).status == "SUCCESS"
    wire.plays(reply({"code": 412, "msg": "TOKEN_INVALID"}), reply("<html>"))
    for error in (KeyRejected, ResponseLost):
        with pytest.raises(error, match=f"history of prompt {PROMPT}"):
            await client.query(TASK)
    with pytest.raises(InputError):
        await client.query("proxy.../prompt")


async def test_the_end_of_a_graph(client: Client, wire: WireServer) -> None:
    preview = {"filename": "p.png", "type": "temp"}
    entry = {**ENTRY, "outputs": {**ENTRY["outputs"], "13": {"images": [preview]}}}
    view = await looked_at(client, wire, {PROMPT: entry})
    links = [f"{wire.url}/proxy/***/{FILE}", f"{wire.url}/proxy/***/view?filename=v.mp4&subfolder=&type=output"]
    assert [one.url for one in view.outputs] == [*links, None]
    assert [(one.type, one.node_id) for one in view.outputs] == [("png", "9"), ("mp4", "12"), (None, "12")]
    only = {**ENTRY, "outputs": {"13": {"images": [preview]}}}
    assert len((await looked_at(client, wire, {PROMPT: only})).outputs) == 1


@pytest.mark.parametrize("shown", [["words"], "words", ['{"name": "Alice"}'], '{"name": "Alice"}', ['["a", "b"]']])
@pytest.mark.parametrize("field", ["text", "tags", "result_text"])
async def test_a_text_of_a_graph_is_a_result_and_never_a_file(
    field: str, shown: Any, client: Client, wire: WireServer
) -> None:
    """A text with a `name` was taken for a file, and a graph that shows only tags ended without a result."""
    outputs = {"5": {field: shown}, "13": {"images": [{"filename": "p.png", "type": "temp"}]}}
    view = await looked_at(client, wire, {PROMPT: {**ENTRY, "outputs": outputs}})
    text = shown if isinstance(shown, str) else shown[0]
    assert [(one.text, one.url is None, one.node_id) for one in view.outputs] == [
        (text, True, "5"),
        (None, False, "13"),
    ]
    view = await looked_at(client, wire, {PROMPT: {**ENTRY, "outputs": {"5": {field: shown}}}})
    assert [one.text for one in view.outputs] == [text]


async def test_a_preview_is_no_text(client: Client, wire: WireServer) -> None:
    """Previews of 3D files show paths of files, and editors of points and nodes for debugging show data of pictures."""
    shown = {
        "7": {"result": ["3d/mesh.glb", {"position": 1}]},
        "8": {"bg_image": ["/9j/4AAQ"]},
        "10": {"model_file": ["3d/mesh.glb"]},
        "11": {"b64_images": ["iVBORw0KGgo"]},
        "9": {"text": ["words"]},
    }
    view = await looked_at(client, wire, {PROMPT: {**ENTRY, "outputs": shown}})
    assert [one.text for one in view.outputs] == ["words"]


async def test_failure_and_cancellation(client: Client, wire: WireServer) -> None:
    def ended(word: str, **more: object) -> dict[str, object]:
        messages = [["execution_start", {}], [word, {"node_id": "3", **more}]]
        status = {"status_str": "error", "completed": False, "messages": messages}
        return {PROMPT: {"status": status, "outputs": ENTRY["outputs"]}}

    failed = await looked_at(client, wire, ended("execution_error", exception_message="boom"))
    assert (failed.status, failed.reason, failed.outputs) == ("FAILED", "node 3: boom", ())
    assert (await looked_at(client, wire, ended("execution_interrupted"))).status == "CANCELLED"


async def test_a_cancel_stops_what_runs_and_takes_out_what_waits(client: Client, wire: WireServer) -> None:
    wire.plays(reply(QUEUE), reply(""), *(reply(QUEUE), reply(""), reply(QUEUE)), *(reply(QUEUE), reply(QUEUE)))
    await client.cancel(TASK)
    await client.cancel("proxy.other")
    await client.cancel("proxy.ended")
    changes = [(asked.path.rpartition("/")[2], asked.json) for asked in wire.asked if asked.method == "POST"]
    assert changes == [("interrupt", {"prompt_id": PROMPT}), ("queue", {"delete": ["other"]})]
    wire.plays(reply(QUEUE), reply("<html>", status=502))
    with pytest.raises(ResponseLost, match="cancellation of prompt"):
        await client.cancel(TASK)


@pytest.mark.parametrize("was_seen", [True, False])
async def test_a_graph_that_begins_while_it_is_cancelled_is_stopped(
    client: Client, wire: WireServer, *, was_seen: bool
) -> None:
    """ComfyUI deletes only what waits, and the cancelled graph ran on."""
    waiting = {"queue_running": [], "queue_pending": QUEUE["queue_running"] if was_seen else []}
    wire.plays(reply(waiting), *([reply("")] if was_seen else []), reply(QUEUE), reply(""))
    await client.cancel(TASK)
    assert (wire.asked[-1].path.rpartition("/")[2], wire.asked[-1].json) == ("interrupt", {"prompt_id": PROMPT})


async def test_a_deleted_graph_is_cancelled_also_if_the_queue_cannot_be_read_again(
    client: Client, wire: WireServer
) -> None:
    """A prompt that was deleted was reported as one that could not be cancelled."""
    lost = reply("<html>", status=403)
    wire.plays(reply(QUEUE), reply(""), lost)
    await client.cancel("proxy.other")
    assert (wire.asked[1].json, len(wire.asked)) == ({"delete": ["other"]}, 3)
    wire.plays(reply(QUEUE), lost)
    with pytest.raises(RunningHubError):
        await client.cancel("proxy.ended")


async def test_a_file_is_fetched_whole_by_its_masked_link(client: Client, wire: WireServer, tmp_path: Path) -> None:
    to, link = tmp_path / "a.png", f"{wire.url}/proxy-plus/***/{FILE}"
    to.write_bytes(b"an older file")
    wire.plays(cut(), reply(b"pixels", headers={"ETag": '"1"'}), reply(b"half", length=99, headers={"ETag": '"1"'}))
    assert (await client.download(link, to)).size == 6
    assert (wire.paths[1], to.read_bytes()) == (f"/proxy-plus/{KEY}/{FILE}", b"pixels")
    assert "authorization" not in wire.asked[1].headers
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(ResponseLost):
        await client.download(link.replace("00001", "00002"), to)
    wire.plays(reply(b"other"), reply("", status=404))
    await client.download(link.replace("00001", "00003"), to)
    assert ("range" in wire.asked[3].headers, to.read_bytes()) == (False, b"other")
    with pytest.raises(LinkExpired, match=r"/proxy-plus/\*\*\*/view: the link no longer works"):
        await client.download(link, to)
    with pytest.raises(LinkExpired, match="not the URL of a file on ComfyUI at /proxy"):
        await client.comfy.fetch(link, tmp_path / "b.png")


async def test_an_upload(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"pixels")
    done = {"name": "photo.png", "subfolder": "in", "type": "input"}
    wire.plays(reply("", status=502), reply(done), reply({}), reply({"code": 412, "msg": "TOKEN_INVALID"}))
    file = await client.comfy.upload(photo, name="photo.png", mime="image/png")
    asked = wire.asked[1]
    assert (asked.method, asked.path) == ("POST", f"/proxy/{KEY}/upload/image")
    assert "authorization" not in asked.headers
    sent = {name: part.get_payload(decode=True) for name, part in asked.form.items()}
    assert sent == {"type": b"input", "overwrite": b"true", "image": b"pixels"}
    assert file == Upload(file_name="in/photo.png", size=6, kind="input")
    for error in (ResponseLost, KeyRejected):
        with pytest.raises(error, match=r"upload of .*photo\.png to ComfyUI"):
            await client.comfy.upload(photo, name="photo.png", mime="image/png")
    with pytest.raises(MediaError):
        await client.comfy.upload(tmp_path / "missing", name="x", mime="image/png")
