"""ComfyUI's own API, with the key in the path: sent once where it costs, seen nowhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client, ComfyFile
from rh_prefect.errors import (
    Busy,
    InputError,
    KeyRejected,
    LinkExpired,
    MediaError,
    RequestRejected,
    ResponseLost,
    RunningHubError,
)
from tests.client.conftest import KEY
from tests.support.samples.comfyui_answers import ENTRY, FILE, GRAPH, PROMPT
from tests.support.servers.scripted_server import Step, WireServer, cut, reply, stall


@pytest.fixture(autouse=True)
async def no_key_is_told(client: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("family", ["proxy", "proxy-plus"])
async def test_a_prompt(family: str, client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    wire.plays(reply({"prompt_id": PROMPT, "number": 1, "node_errors": {}}))
    comfy = client.comfy if family == "proxy" else client.comfy_plus
    taken = await comfy.prompt(GRAPH, client_id="me")
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", f"/{family}/{KEY}/prompt")
    assert asked.json == {"prompt": GRAPH, "client_id": "me"}
    assert "authorization" not in asked.headers
    assert (taken.prompt_id, taken.node_errors) == (PROMPT, {})
    assert f"/{family}/***/prompt" in caplog.text


async def test_a_prompt_that_runs_in_part_names_its_nodes(client: Client, wire: WireServer) -> None:
    errors = {"3": {"errors": [{"message": "Required input is missing", "details": "model"}], "class_type": "KSampler"}}
    wire.plays(reply({"prompt_id": PROMPT, "node_errors": errors}))
    taken = await client.comfy.prompt(GRAPH)
    assert taken.node_errors == {"3": "KSampler: Required input is missing: model"}


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
async def test_a_refused_prompt(
    step: Step, error: type[RunningHubError], words: str, client: Client, wire: WireServer
) -> None:
    wire.plays(step)
    with pytest.raises(error, match=words) as caught:
        await client.comfy.prompt(GRAPH)
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
        await limited.comfy.prompt(GRAPH)
    assert len(wire.asked) == 1


async def test_a_graph_that_cannot_be_written_is_not_sent(client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="Nothing was sent"):
        await client.comfy.prompt({"3": object()})
    assert wire.asked == []


async def test_the_history_of_a_run(client: Client, wire: WireServer) -> None:
    wire.plays(cut(), reply({PROMPT: ENTRY}))
    run = await client.comfy.history(PROMPT)
    assert wire.paths == [f"/proxy/{KEY}/history/{PROMPT}"] * 2
    assert "authorization" not in wire.asked[0].headers
    assert (run.prompt_id, run.state, run.failure) == (PROMPT, "succeeded", None)
    assert run.files == (FILE, ComfyFile(name="v.mp4", node_id="12"))


async def test_a_run_that_is_not_done_or_failed(client: Client, wire: WireServer) -> None:
    failed = {
        "status_str": "error",
        "completed": False,
        "messages": [
            ["execution_start", {}],
            ["execution_error", {"node_id": "3", "node_type": "KSampler", "exception_message": "boom"}],
        ],
    }
    wire.plays(reply({}), reply({PROMPT: {"status": {}}}), reply({PROMPT: {"status": failed, "outputs": {}}}))
    runs = [await client.comfy.history(PROMPT) for _ in range(3)]
    assert [run.state for run in runs] == ["pending", "pending", "failed"]
    assert str(runs[2].failure) == "node 3: boom"


async def test_no_history(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 412, "msg": "TOKEN_INVALID"}), reply("<html>"))
    for error in (KeyRejected, ResponseLost):
        with pytest.raises(error, match=f"history of prompt {PROMPT}"):
            await client.comfy.history(PROMPT)
    with pytest.raises(InputError):
        await client.comfy.history("../prompt")


async def test_a_file_is_fetched_whole(client: Client, wire: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.png"
    to.write_bytes(b"an older file")
    wire.plays(cut(), reply(b"pixels", headers={"ETag": '"1"'}), reply(b"other", headers={"ETag": '"1"'}))
    got = await client.comfy.view(FILE, to)
    assert wire.paths[1] == f"/proxy/{KEY}/view?filename=Comfy+UI_00001_.png&subfolder=a%2Fb&type=output"
    assert "authorization" not in wire.asked[1].headers
    assert (got.size, to.read_bytes()) == (6, b"pixels")
    await client.comfy.view(FILE.model_copy(update={"name": "b.png"}), to)
    assert to.read_bytes() == b"other"
    assert "range" not in wire.asked[2].headers
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


async def test_half_a_file_is_no_part_of_another_one(client: Client, wire: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.png"
    wire.plays(reply(b"half of a", length=99, headers={"ETag": '"1"'}), reply(b"b"))
    with pytest.raises(ResponseLost):
        await client.comfy.view(FILE, to)
    await client.comfy.view(FILE.model_copy(update={"name": "b.png"}), to)
    assert "range" not in wire.asked[1].headers
    assert to.read_bytes() == b"b"


async def test_no_file(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.plays(reply("", status=404), reply(b"half", length=9))
    with pytest.raises(LinkExpired, match=r"/proxy/\*\*\*/view: the link no longer works") as caught:
        await client.comfy.view(FILE, tmp_path / "a.png")
    assert KEY not in str(caught.value)
    with pytest.raises(ResponseLost):
        await client.comfy.view(FILE, tmp_path / "a.png")


async def test_an_upload(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"pixels")
    done = {"name": "photo.png", "subfolder": "in", "type": "input"}
    wire.plays(reply("", status=502), reply(done), reply({}), reply({"code": 412, "msg": "TOKEN_INVALID"}))
    file = await client.comfy.upload(photo, name="photo.png", mime="image/png", subfolder="in")
    asked = wire.asked[1]
    assert (asked.method, asked.path) == ("POST", f"/proxy/{KEY}/upload/image")
    assert "authorization" not in asked.headers
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + asked.body).get_payload()
    sent = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
    assert sent == {"type": b"input", "overwrite": b"true", "subfolder": b"in", "image": b"pixels"}
    assert file == ComfyFile(name="photo.png", subfolder="in", kind="input")
    for error in (ResponseLost, KeyRejected):
        with pytest.raises(error, match=r"upload of .*photo\.png to ComfyUI"):
            await client.comfy.upload(photo, name="photo.png", mime="image/png")
    with pytest.raises(MediaError):
        await client.comfy.upload(tmp_path / "missing", name="x", mime="image/png")
