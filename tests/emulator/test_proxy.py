"""The native ComfyUI proxy: prompt, history, view, upload, object_info, progress."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from rh_prefect.client import Client
from rh_prefect.emulator import DEFAULT, Fault
from rh_prefect.emulator.comfy.graph import inputs_of
from rh_prefect.emulator.comfy.workflows import RESTYLE, TEXT_TO_IMAGE
from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate, lasting
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json, read
from tests.support.waiting import wait_until


def at(rh: Caller, path: str, *, kind: str = "proxy", key: str | None = None) -> str:
    return f"/{kind}/{key or rh.key}/{path}"


def prompt(rh: Caller, graph: object, **more: object) -> Json:
    return read(rh.http.post(at(rh, "prompt"), json={"prompt": graph, **more}))


def history(rh: Caller, prompt_id: str) -> Json:
    return read(rh.http.get(at(rh, f"history/{prompt_id}")))


@pytest.mark.parametrize("kind", ["proxy", "proxy-plus"])
def test_a_prompt_from_end_to_end(rh: Caller, tmp_path: Path, kind: str) -> None:
    taken = rh.http.post(at(rh, "prompt", kind=kind), json={"prompt": TEXT_TO_IMAGE, "client_id": "me"}).json()
    assert (taken["number"], taken["node_errors"]) == (0, {})
    entry = rh.http.get(at(rh, f"history/{taken['prompt_id']}", kind=kind)).json()[taken["prompt_id"]]
    assert entry["status"]["status_str"] == "success"
    (file,) = entry["outputs"]["9"]["images"]
    assert (file["type"], file["subfolder"]) == ("output", "")
    answer = rh.http.get(at(rh, "view", kind=kind), params=file)
    (tmp_path / "a.png").write_bytes(answer.content)
    assert probe(tmp_path / "a.png").kind == "image"
    assert rh.rh.recorder.tasks[0].endpoint == f"/{kind}"
    (paid,) = rh.rh.recorder.paid
    assert (paid.endpoint, paid.payload["prompt"], paid.charged) == (f"/{kind}", TEXT_TO_IMAGE, rh.rh.recorder.charged)
    assert rh.rh.recorder.charged > 0
    assert rh.rh.recorder.served(paid.task_id) == len(answer.content)
    assert rh.key not in repr(rh.rh.recorder.to_json())


def test_history_is_empty_until_the_end(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=3)
    taken = prompt(rh, TEXT_TO_IMAGE)["prompt_id"]
    assert rh.http.get(at(rh, "queue")).json()["queue_pending"] == [[0, taken]]
    assert history(rh, taken) == {}
    assert rh.http.get(at(rh, "history")).json() == {}
    assert list(history(rh, taken)) == [taken]
    assert list(rh.http.get(at(rh, "history")).json()) == [taken]
    assert history(rh, "none") == {}


def test_prompts_wait_for_each_other(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=1)
    first, second = (prompt(rh, TEXT_TO_IMAGE)["prompt_id"] for _ in range(2))
    other = read(rh.http.post(at(rh, "prompt", kind="proxy-plus"), json={"prompt": TEXT_TO_IMAGE}))["prompt_id"]
    assert rh.queue()["data"]["totalCurrentTasks"] == "0"
    assert other in read(rh.http.get(at(rh, f"history/{other}", kind="proxy-plus")))
    assert [bool(history(rh, one)) for one in (second, first, second)] == [False, True, True]


def test_a_prompt_that_nobody_asks_about_does_not_block_its_machine(emulate: Emulate) -> None:
    """The response to its submission may have been lost."""
    rh = emulate(clock="polls", polls=2)
    _, known = (prompt(rh, TEXT_TO_IMAGE)["prompt_id"] for _ in range(2))
    wait_until(lambda: history(rh, known), seconds=60)  # not at once: the first one may still be rendered


def test_an_interrupt_without_an_id_stops_the_one_prompt_that_runs(emulate: Emulate) -> None:
    rh = emulate(clock="real", durations=lasting(0.0, 600.0))
    for _ in range(2):
        prompt(rh, TEXT_TO_IMAGE)
    assert rh.http.post(at(rh, "interrupt")).status_code == 200
    assert [task.status for task in rh.rh.recorder.tasks] == ["CANCELLED", "RUNNING"]


def test_a_prompt_is_taken_out_of_the_queue_or_interrupted(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9)
    first, second, third = (prompt(rh, TEXT_TO_IMAGE)["prompt_id"] for _ in range(3))
    assert (history(rh, first), history(rh, first)) == ({}, {})
    assert rh.http.post(at(rh, "queue"), json={"delete": [first, second]}).content == b""
    queue = rh.http.get(at(rh, "queue")).json()
    assert [[row[1] for row in queue[part]] for part in ("queue_running", "queue_pending")] == [[first], [third]]
    assert rh.http.post(at(rh, "interrupt"), json={"prompt_id": third}).status_code == 200
    assert history(rh, first) == {}
    assert rh.http.post(at(rh, "interrupt"), json={"prompt_id": first}).status_code == 200
    assert history(rh, first)[first]["status"]["messages"] == [["execution_interrupted", {"prompt_id": first}]]
    assert history(rh, second) == {}
    assert rh.http.post(at(rh, "queue"), json={"clear": True}).status_code == 200
    assert rh.http.get(at(rh, "queue")).json() == {"queue_running": [], "queue_pending": []}
    assert [task.status for task in rh.rh.recorder.tasks] == ["CANCELLED"] * 3


async def test_a_cancelled_prompt_that_waits_leaves_the_running_one_alone(emulate: Emulate) -> None:
    """Older versions of ComfyUI stop any running prompt, so the client interrupts only if its own prompt runs."""
    rh = emulate(clock="polls", polls=9, assumptions=replace(DEFAULT, interrupt_reads_id=False))
    async with Client(rh.key, base_url=rh.rh.url) as client:
        theirs, mine = [await client.submit("/proxy", {"prompt": TEXT_TO_IMAGE}) for _ in range(2)]
        while (await client.query(theirs.task_id)).status != "RUNNING":
            pass
        await client.cancel(mine.task_id)
        assert [task.status for task in rh.rh.recorder.tasks] == ["RUNNING", "CANCELLED"]
        await client.cancel(theirs.task_id)
        assert (await client.query(theirs.task_id)).status == "CANCELLED"


def test_a_wrong_prompt_is_refused_with_400(rh: Caller) -> None:
    broken = copy.deepcopy(TEXT_TO_IMAGE)
    inputs_of(broken["3"])["steps"] = 0
    answer = rh.http.post(at(rh, "prompt"), json={"prompt": broken})
    assert (answer.status_code, list(answer.json()["node_errors"])) == (400, ["3"])
    assert answer.json()["error"]["type"] == "prompt_outputs_failed_validation"
    for nothing in (b'{"prompt": {}}', b'{"prompt": "x"}', b'{"prompt": null}', b"nonsense"):
        answer = rh.http.post(at(rh, "prompt"), content=nothing)
        assert (answer.status_code, answer.json()["node_errors"]) == (400, {})


def test_a_failing_prompt_tells_its_node(rh: Caller, tmp_path: Path) -> None:
    graph = copy.deepcopy(RESTYLE)
    inputs_of(graph["10"])["image"] = rh.upload(samples.wav(tmp_path / "a.wav"))["data"]["fileName"]
    taken = prompt(rh, graph)["prompt_id"]
    entry = history(rh, taken)[taken]
    assert (entry["status"]["status_str"], entry["outputs"]) == ("error", {})
    assert entry["status"]["messages"][0][1]["node_name"] == "LoadImage"


def test_pictures_are_uploaded_and_viewed(rh: Caller, tmp_path: Path) -> None:
    path = samples.png(tmp_path / "photo.png")
    sent = rh.http.post(at(rh, "upload/image"), files={"image": (path.name, path.read_bytes())}).json()
    assert sent == {"name": "photo.png", "subfolder": "", "type": "input"}
    seen = rh.http.get(at(rh, "view"), params={"filename": "photo.png", "type": "input"})
    assert seen.content == path.read_bytes()
    graph = copy.deepcopy(RESTYLE)
    inputs_of(graph["10"])["image"] = sent["name"]
    assert prompt(rh, graph)["node_errors"] == {}
    assert rh.http.post(at(rh, "upload/image"), content=b"x").status_code == 400
    for name in ("none.png", "../../etc/passwd"):
        assert rh.http.get(at(rh, "view"), params={"filename": name}).status_code == 404


def test_a_sound_is_uploaded_like_a_picture(rh: Caller, tmp_path: Path) -> None:
    path = samples.wav(tmp_path / "a.wav")
    sent = rh.http.post(at(rh, "upload/image"), files={"image": (path.name, path.read_bytes())}).json()
    saved = {"audio": ["1", 0], "filename_prefix": "a", "quality": "V0"}
    graph = {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": sent["name"]}},
        "2": {"class_type": "SaveAudioMP3", "inputs": saved},
    }
    taken = prompt(rh, graph)["prompt_id"]
    assert list(history(rh, taken)[taken]["outputs"]["2"]) == ["audio"]


def test_refused_prompts_are_recorded(emulate: Emulate) -> None:
    rh = emulate(money=0, faults=[Fault("submit", 2, "429"), Fault("submit", 3, "code", code="TASK_CREATE_TOO_FAST")])
    statuses = [rh.http.post(at(rh, "prompt"), json={"prompt": TEXT_TO_IMAGE}) for _ in range(3)]
    assert [answer.status_code for answer in statuses] == [400, 429, 200]
    assert statuses[2].json() == {"code": 422, "msg": "TASK_CREATE_TOO_FAST"}
    rh.http.post(at(rh, "prompt"), json={})
    assert [row.code for row in rh.rh.recorder.submissions] == ["812", "429", "422", "no_prompt"]
    assert rh.rh.recorder.paid == []


def test_faults_of_a_prompt_and_of_its_files(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=2)
    rh.rh.faults.add(
        Fault("submit", 1, "fail", node="VAEDecode"), Fault("submit", 2, "node-errors"), Fault("submit", 3, "at-once"),
        Fault("query", 5, "no-results"),
    )  # fmt: skip
    taken = [prompt(rh, TEXT_TO_IMAGE) for _ in range(3)]
    assert [bool(answer["node_errors"]) for answer in taken] == [False, True, False]
    failed, broken, done = (answer["prompt_id"] for answer in taken)
    entries: list[Json] = [history(rh, one).get(one, {}) for one in (failed, failed, broken, broken, done)]
    assert [entries.pop(0), entries.pop(1)] == [{}, {}]
    assert [entry["status"]["status_str"] for entry in entries] == ["error", "error", "success"]
    assert entries[0]["status"]["messages"][0][1]["node_name"] == "VAEDecode"
    assert entries[2]["outputs"] == {}
    (file,) = history(rh, done)[done]["outputs"]["9"]["images"]
    whole = rh.http.get(at(rh, "view"), params=file).content
    rh.rh.faults.add(Fault("download", 1, "expired"), Fault("download", 2, "short"))
    answers = [rh.http.get(at(rh, "view"), params=file) for _ in range(2)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(404, b""), (200, whole[: len(whole) // 2])]


def test_each_account_has_its_own_machines(rh: Caller, tmp_path: Path) -> None:
    taken = prompt(rh, TEXT_TO_IMAGE)["prompt_id"]
    assert list(rh.http.get(at(rh, "history")).json()) == [taken]
    assert rh.http.get(at(rh, "history", kind="proxy-plus")).json() == {}
    other = rh.other()
    for caller, content in ((rh, samples.picture("PNG")), (other, b"other")):
        caller.http.post(at(caller, "upload/image"), files={"image": ("photo.png", content)})
    asked = {"filename": "photo.png", "type": "input"}
    assert rh.http.get(at(rh, "view"), params=asked).content == samples.picture("PNG")
    assert rh.http.get(at(rh, "view", kind="proxy-plus"), params=asked).status_code == 404


def test_half_of_a_view_is_the_first_half_of_its_file(emulate: Emulate) -> None:
    rh = emulate(long_side=1024)
    taken = prompt(rh, TEXT_TO_IMAGE)["prompt_id"]
    (file,) = history(rh, taken)[taken]["outputs"]["9"]["images"]
    whole = rh.http.get(at(rh, "view"), params=file).content
    rh.rh.faults.add(Fault("download", 1, "half"))
    with rh.http.stream("GET", at(rh, "view"), params=file) as answer, pytest.raises(httpx.RemoteProtocolError):
        got = b""
        for chunk in answer.iter_raw():
            got += chunk
    assert (len(whole) > 200_000, got) == (True, whole[: len(whole) // 2])


def test_a_wrong_key_is_refused_but_by_object_info(rh: Caller) -> None:
    paths = [("GET", path) for path in ("history", "history/x", "queue", "view", "system_stats")]
    paths += [("POST", path) for path in ("prompt", "upload/image", "queue", "interrupt")]
    for method, path in paths:
        assert rh.http.request(method, at(rh, path, key="wrong")).status_code == 401, path
    answer = rh.http.get(at(rh, "object_info", key="wrong"))
    assert (answer.status_code, "KSampler" in answer.json()) == (200, True)


def test_the_key_in_the_path_is_not_in_the_books(rh: Caller) -> None:
    rh.http.post(at(rh, "prompt", key="0123456789abcdef0123456789abcdef"), json={})
    stats = rh.http.get(at(rh, "system_stats", kind="proxy-plus")).json()
    assert stats["devices"][0]["vram_total"] == 48 << 30
    assert list(rh.http.get(at(rh, "object_info/LoadImage")).json()) == ["LoadImage"]
    assert [request.path for request in rh.rh.recorder.requests] == [
        "/proxy/<unknown>/prompt",
        "/proxy-plus/<main>/system_stats",
        "/proxy/<main>/object_info/LoadImage",
    ]


async def test_progress_of_a_client(rh: Caller) -> None:
    url = rh.rh.url.replace("http", "ws") + at(rh, "ws?clientId=me")
    async with connect(url) as socket:
        assert json.loads(await socket.recv())["type"] == "status"
        prompt(rh, TEXT_TO_IMAGE, client_id="other")
        taken = prompt(rh, TEXT_TO_IMAGE, client_id="me")["prompt_id"]
        frames: list[dict[str, Any]] = []
        while not frames or frames[-1]["data"].get("node", "") is not None:
            message = await socket.recv()
            if isinstance(message, str):
                frames.append(json.loads(message))
    assert {frame["data"]["prompt_id"] for frame in frames} == {taken}
    assert "execution_success" in {frame["type"] for frame in frames}


async def test_keys_and_tickets_stay_out_of_the_logs(rh: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for name in ("uvicorn.error", "uvicorn.access", "rh_prefect"):
        caplog.set_level("DEBUG", logger=name)
    url = rh.rh.url.replace("http", "ws") + at(rh, "ws?clientId=me")
    async with connect(url, logger=logging.getLogger("a.client.of.its.own")) as socket:
        await socket.recv()
    with pytest.raises(InvalidStatus):
        await connect(url.replace("/proxy/", "/proxy/x"), logger=logging.getLogger("a.client.of.its.own"))
    said = [record.getMessage() for record in caplog.records if record.name != "a.client.of.its.own"]
    assert not [line for line in said if rh.key in line]
