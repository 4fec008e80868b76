"""The emulator in another process: its own routes, the books over HTTP, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator import Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.emulator.conftest import Emulate
from tests.support.processes.warm_process import RH
from tests.support.servers.caller import IMAGE, IMAGE_PRICE, WORDS, Caller

CANARY = "c" * 28 + "anry"


def test_books_over_http(rh: Caller) -> None:
    task_id = rh.submit()["taskId"]
    rh.submit(body={})
    httpx.get(str(rh.query(task_id)["results"][0]["url"]))
    books = rh.http.get("/_emulator/recorder").json()
    assert books["charged"] == IMAGE_PRICE
    first, second = books["submissions"]
    assert first == {
        "number": 1,
        "time": first["time"],
        "key_name": "main",
        "task_id": task_id,
        "accepted": True,
        "code": "",
        "endpoint": IMAGE,
        "payload": WORDS,
        "inputs": {},
        "charged": IMAGE_PRICE,
        "coins": 0,
    }
    assert (second["accepted"], second["code"]) == (False, "1007")
    assert books["tasks"][0]["status"] == "SUCCESS"
    assert [(row["path"], row["status"]) for row in books["requests"]][-1] == ("/openapi/v2/query", 200)
    assert books["downloads"][0]["task_id"] == task_id


def test_steering_over_http(rh: Caller) -> None:
    post = rh.http.post
    assert post("/_emulator/faults", json={"on": "submit", "number": 1, "kind": "502"}).json() == {"added": 1}
    assert rh.post(f"/openapi/v2/{IMAGE}", WORDS).status_code == 502
    assert rh.http.get("/_emulator/faults").json()[0]["fired"] == 1
    post("/_emulator/faults", json=[{"on": "submit", "kind": "502"}])
    assert rh.http.delete("/_emulator/faults").json() == {"removed": 2}
    assert rh.submit()["errorCode"] == ""
    before = rh.rh.clock.now()
    assert post("/_emulator/clock", json={"advance": 100}).json()["now"] >= before + 100
    assert post("/_emulator/release").json() == {"released": 0}
    post("/_emulator/moderated", json={"words": ["storm"]})
    assert rh.query(rh.submit(body={**WORDS, "prompt": "a storm"})["taskId"])["errorCode"] == "1501"
    added = post("/_emulator/keys", json={"name": "second", "limit": 1}).json()
    assert Caller(rh.rh, added["secret"]).queue()["data"]["concurrentLimit"] == 1
    workflow = post("/_emulator/workflows", json={"graph": TEXT_TO_IMAGE, "name": "mine"}).json()["id"]
    assert rh.create("mine")["code"] == 0
    app = post("/_emulator/apps", json={"graph": TEXT_TO_IMAGE, "fields": [["6", "text", "STRING"]]}).json()["id"]
    assert rh.v1("/task/openapi/ai-app/run", webappId=app, nodeInfoList=[])["code"] == 0
    assert post("/_emulator/options", json={"webhook_spacing": 2.5}).json()["webhook_spacing"] == 2.5
    assert rh.http.get("/_emulator/webhooks").json() == []
    about = rh.http.get("/_emulator").json()
    assert about["files_url"] == rh.rh.files_url
    assert {key["name"] for key in about["keys"]} == {"main", "second"}
    assert {"id": workflow, "name": "mine"} in about["workflows"]
    assert app in [listed["id"] for listed in about["apps"]]


def test_a_short_key_is_no_part_of_other_words(emulate: Emulate) -> None:
    rh = emulate(key="test")
    rh.submit(body={**WORDS, "prompt": "the latest test"})
    assert rh.rh.recorder.paid[0].payload["prompt"] == "the latest test"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("keys", {"nonsense": 1}),
        ("keys", {"name": "n", "money": "abc"}),
        ("keys", {"name": "n", "limit": "5"}),
        ("keys", {"name": "n", "tier": "GOLD", "limit": 5}),
        ("workflows", {"graph": 1}),
        ("workflows", [1]),
        ("apps", []),
        ("options", {"no": 1}),
        ("options", {"webhook_timeout": "5"}),
        ("options", {"real_people": 1}),
        ("options", {"webhook_data": "bytes"}),
        ("options", [1]),
        ("clock", {"advance": "x"}),
        ("clock", {"advance": "nan"}),
        ("clock", [1]),
        ("moderated", {"words": "gun"}),
    ],
)
def test_what_a_control_request_cannot_say(rh: Caller, path: str, body: object) -> None:
    answer = rh.http.post(f"/_emulator/{path}", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert rh.submit()["errorCode"] == ""


def test_a_client_that_is_killed_right_after_its_post(rh: Caller) -> None:
    rh.rh.faults.add(Fault("submit", 1, "hold"))
    code = f"import httpx; httpx.post({rh.rh.url + '/openapi/v2/' + IMAGE!r}, json={WORDS!r}, headers={rh.bearer()!r})"
    client = subprocess.Popen([sys.executable, "-c", code])
    assert rh.rh.held.wait()
    assert len(rh.rh.recorder.paid) == 1
    client.kill()
    client.wait()
    assert rh.rh.recorder.wait(lambda recorder: rh.rh.held.count == 0)
    assert [(request.path, request.status) for request in rh.rh.recorder.requests] == [(f"/openapi/v2/{IMAGE}", 0)]
    assert rh.query(rh.rh.recorder.paid[0].task_id)["status"] == "SUCCESS"
    assert len(rh.rh.recorder.paid) == 1


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    options = ["--port", "0", "--clock", "instant", "--key", CANARY, "--long-side", "64"]
    command = [sys.executable, *RH, "emulator", *options]
    with (tmp_path / "log").open("w") as log:
        env = {**os.environ, "TMPDIR": str(tmp_path), "RH_STATE_DIR": str(tmp_path)}
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def test_a_process_of_its_own_ends_cleanly_and_keeps_the_key_to_itself(
    process: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert process.stdout is not None
    exports = dict(line.strip().split("=") for line in (process.stdout.readline() for _ in range(5)) if "=" in line)
    assert exports.pop("export RH_API_KEY") == CANARY
    url = exports.pop("export RH_BASE_URL")
    headers = {"Authorization": f"Bearer {CANARY}"}
    with httpx.Client(base_url=url, headers=headers) as http:
        task_id = http.post(f"/openapi/v2/{IMAGE}", json={**WORDS, "prompt": f"my key is {CANARY}"}).json()["taskId"]
        assert http.post("/openapi/v2/query", json={"taskId": task_id}).json()["status"] == "SUCCESS"
        http.post(f"/openapi/v2/x{CANARY}", json={})
        http.post("/task/openapi/cancel", json={"apiKey": CANARY, "taskId": "x" + CANARY})
        books = http.get("/_emulator/recorder").text
        assert "<main>" in books
        assert any(tmp_path.glob("rh-emulator-*"))
        process.send_signal(signal.SIGTERM)  # with this client still connected
        rest, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert CANARY not in books + rest + (tmp_path / "log").read_text() + json.dumps(url)
    assert (tmp_path / "log").read_text() == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "log"], "no file, and no key of its own"
