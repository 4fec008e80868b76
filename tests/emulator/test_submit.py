"""A model's submit: what is accepted, what is refused and how, and what it costs, also for models that a test adds."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from rh_prefect import catalog
from rh_prefect.catalog import Param, PriceTable, Rule
from rh_prefect.emulator import DEFAULT, Fault
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import CLIP, IMAGE, IMAGE_PRICE, WORDS, Caller, Json
from tests.support.servers.http_server import Handler, serving

CLIP_BODY = {"prompt": "waves", "sound": "false", "duration": "5"}


def test_the_answer_is_a_bare_task_object(rh: Caller) -> None:
    response = rh.post(f"/openapi/v2/{IMAGE}", WORDS)
    answer = response.json()
    task_id = answer["taskId"]
    assert response.status_code == 200
    assert list(answer) == ["taskId", "status", "errorCode", "errorMessage", "results", "clientId", "promptTips"]
    assert (isinstance(task_id, str), len(task_id), int(task_id) > 2**53) == (True, 19, True)
    assert (answer["status"], answer["errorCode"], answer["results"]) == ("RUNNING", "", None)
    assert json.loads(answer["promptTips"])["node_errors"] == {}
    assert rh.submit()["taskId"] != task_id


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": None}, "prompt"),
        ({"aspectRatio": None}, "aspectRatio"),
        ({"aspectRatio": "7:7"}, "field 'aspectRatio' value 7:7 is not in the allowed options"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"aspect_ratio": "1:1", "aspectRatio": None}, "aspectRatio"),
    ],
)
def test_a_bad_parameter_is_1007_and_costs_nothing(rh: Caller, change: dict[str, Any], words: str) -> None:
    body = {key: value for key, value in (WORDS | change).items() if value is not None}
    answer = rh.submit(body=body)
    assert words in answer["errorMessage"]
    assert "Nothing was sent" not in answer["errorMessage"]
    refused = {"errorCode": "1007", "taskId": "", "status": "", "failedReason": {}}
    assert answer == {**answer, **refused, "usage": None, "parentTaskId": None, "taskUsageList": None}
    (entry,) = rh.rh.recorder.submissions
    assert (entry.code, entry.accepted) == ("1007", False)


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b"[" * 100_000, b'{"prompt": NaN}'])
def test_a_body_that_is_no_json_object_is_1007(rh: Caller, body: bytes) -> None:
    answer = rh.http.post(f"/openapi/v2/{IMAGE}", content=body, headers=rh.bearer()).json()
    assert answer["errorCode"] == "1007"


def test_the_task_of_a_moderated_word_fails_and_costs_nothing(emulate: Emulate) -> None:
    rh = emulate(moderated=["Forbidden"])
    accepted = rh.submit(body={**WORDS, "prompt": "a forbidden thing"})
    assert (accepted["errorCode"], len(accepted["taskId"])) == ("", 19)
    failed = rh.query(accepted["taskId"])
    assert (failed["status"], failed["errorCode"], failed["results"]) == ("FAILED", "1501", None)
    assert failed["errorMessage"] == "Content security audit did not pass | 内容安全审查未通过"
    assert failed["usage"] is None
    assert rh.rh.recorder.charged == 0
    assert rh.query(rh.submit()["taskId"])["status"] == "SUCCESS"
    rh.rh.faults.add(Fault("submit", 1, "at-once"))
    at_once = rh.submit(body={**WORDS, "prompt": "a forbidden thing"})
    assert (at_once["status"], at_once["errorCode"]) == ("FAILED", "1501")


def test_an_empty_wallet(emulate: Emulate) -> None:
    rh = emulate(money="0.09")
    assert rh.submit()["errorCode"] == ""
    answer = rh.submit()
    words = "Insufficient corporate funds, please top up | 企业版余额不足，请充值"
    assert (answer["errorCode"], answer["errorMessage"]) == ("812", words)
    assert rh.wallet()["data"]["remainMoney"] == "0.02"


def test_a_submit_over_the_rate_limit_is_recorded(emulate: Emulate) -> None:
    rh = emulate(assumptions=replace(DEFAULT, requests_per_minute=1))
    assert [rh.submit()["errorCode"] for _ in range(2)] == ["", "1003"]
    assert [(entry.accepted, entry.code) for entry in rh.rh.recorder.submissions] == [(True, ""), (False, "1003")]


def test_over_the_concurrency_is_421_until_a_task_ends(emulate: Emulate) -> None:
    rh = emulate(limit=2, clock="polls", polls=1)
    first = rh.submit()["taskId"]
    rh.submit()
    refused = rh.submit()
    words = "api queue limit reached, please retry later | API 并发数已达上线，请降低并发或稍后重试"
    assert (refused["errorCode"], refused["errorMessage"], refused["taskId"]) == ("421", words, "")
    assert rh.other(limit=1).submit()["errorCode"] == ""
    assert rh.query(first)["status"] == "SUCCESS"
    assert rh.submit()["errorCode"] == ""


def test_an_upload_link_lives_for_a_day(rh: Caller, tmp_path: Path) -> None:
    link = rh.link(samples.png(tmp_path / "a.png"))
    inside = {"prompt": "x", "sound": False, "refImages": [{"type": "image", "tag": "a", "url": link}]}
    requests = ((CLIP, {**CLIP_BODY, "imageUrl": link}), ("skyreels-v4/omni-reference", inside))
    rh.rh.clock.advance(86_000)
    assert [rh.submit(*request)["errorCode"] for request in requests] == ["", ""]
    rh.rh.clock.advance(500)
    answers = [rh.submit(*request) for request in requests]
    assert [answer["errorCode"] for answer in answers] == ["1013", "1013"]
    assert "expired" in answers[0]["errorMessage"]


def test_other_links(rh: Caller, tmp_path: Path) -> None:
    picture = base64.b64encode(samples.picture("PNG")).decode()
    result = rh.result()
    cases = {
        rh.upload(samples.png(tmp_path / "b.png"))["data"]["fileName"]: "1007",  # no link
        f"data:image/png;base64,{picture}": "",
        "data:image/png;base64,!!!": "1013",
        result: "",
        f"{rh.rh.files_url}/input/openapi/nothing.png": "1013",
        rh.link(samples.png(tmp_path / "a.png")).replace("q-signature=", "q-signature=0"): "1013",
        **dict.fromkeys(("http://127.0.0.1:9/a.png", "http://x..y/a.png", "http://127.0.0.1:99999/a.png"), "1013"),
        "asset://nothing": "1013",
    }
    assert {link: rh.submit(CLIP, {**CLIP_BODY, "imageUrl": link})["errorCode"] for link in cases} == cases


def test_equal_data_uris_at_the_same_time_are_all_rendered(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate(limit=50)
    noise = np.random.default_rng(1).integers(0, 255, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    link = f"data:image/png;base64,{base64.b64encode((tmp_path / 'a.png').read_bytes()).decode()}"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: rh.submit(CLIP, {**CLIP_BODY, "imageUrl": link}), range(12)))
    assert {answer["errorCode"] for answer in answers} == {""}
    assert {rh.query(answer["taskId"])["status"] for answer in answers} == {"SUCCESS"}


def test_a_link_whose_file_changes_changes_no_earlier_task(emulate: Emulate) -> None:
    pictures = [samples.picture("PNG"), samples.picture("JPEG")]

    class Changing(Handler):
        def get(self) -> None:
            self.answer(200, pictures.pop(0))

    rh = emulate(deterministic=True, long_side=160, fps=12, max_seconds=None)
    for index in range(2):  # as many as are rendered at a time
        body = {"prompt": f"waves {index}", "aspectRatio": "16:9", "duration": "10", "sound": "false"}
        rh.submit("kling-v2.6-pro/text-to-video", body)
    with serving(Changing) as url:
        tasks = [rh.submit(CLIP, {**CLIP_BODY, "imageUrl": f"{url}/a"})["taskId"] for _ in range(2)]
    brought = [entry.inputs["imageUrl"] for entry in rh.rh.recorder.paid[2:]]
    assert brought[0] != brought[1]
    results = [rh.http.get(rh.query(task_id)["results"][0]["url"]).content for task_id in tasks]
    assert results[0] != results[1]


def test_a_link_to_a_file_that_is_too_large_leaves_nothing(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = emulate()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rh = emulate(assumptions=replace(DEFAULT, upload_max_bytes=10))
    assert rh.submit(CLIP, {**CLIP_BODY, "imageUrl": other.result()})["errorCode"] == "1008"
    assert list(tmp_path.glob("rh-emulator-*/files/*")) == []


def test_the_emulator_stops_while_a_link_drips(emulate: Emulate) -> None:
    rh, began, ended = emulate(), threading.Event(), threading.Event()

    class Dripping(Handler):
        def get(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b"x")
                    began.set()

    with serving(Dripping) as url, ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        stack.callback(ended.set)
        lost = pool.submit(rh.submit, CLIP, {**CLIP_BODY, "imageUrl": f"{url}/a"})
        assert began.wait(60)
        pool.submit(rh.rh.stop).result(timeout=60)
        assert isinstance(lost.exception(), httpx.HTTPError)


def test_a_bad_file_and_a_large_file(rh: Caller, tmp_path: Path) -> None:
    large = samples.png(tmp_path / "large.png")
    with large.open("ab") as file:
        file.truncate(21 * 1024 * 1024)
    (tmp_path / "broken.png").write_bytes(samples.picture("PNG")[:60])
    codes = {
        tmp_path / "broken.png": "1013",
        large: "1008",
        samples.wav(tmp_path / "sound.wav"): "1013",
        samples.webp(tmp_path / "other.webp"): "1013",
    }
    found = {path: rh.submit(CLIP, {**CLIP_BODY, "imageUrl": rh.link(path)})["errorCode"] for path in codes}
    assert found == codes


def test_the_price_preview_makes_no_task(rh: Caller) -> None:
    answer = rh.preview()
    assert (answer["estimatedPrice"], answer["currency"]) == (float(IMAGE_PRICE), "CNY")
    assert (answer["errorCode"], answer["isFreeThisCall"], bool(answer["priceText"])) == ("", False, True)
    refused = rh.preview(body={})
    assert (refused["errorCode"], refused["estimatedPrice"]) == ("1007", None)
    assert rh.rh.recorder.submissions == []


BY_TOKENS = catalog.get("bytedance/seedance-2.5-token/text-to-video")


@pytest.mark.parametrize(
    ("endpoint", "body", "quoted", "charged"),
    [
        ("rhart-video/minimax-h3-oss/fl2va", {"prompt": "waves", "duration": 5}, 0.15, "0.75"),
        (BY_TOKENS.endpoint, catalog.read_parameters(BY_TOKENS, catalog.example(BY_TOKENS)).sent, 0.0, None),
    ],
    ids=["one second", "nothing, though it is not free"],
)
def test_what_is_quoted_is_not_what_is_charged(
    rh: Caller, endpoint: str, body: Json, quoted: float, charged: str | None
) -> None:
    preview = rh.preview(endpoint, body)
    assert (preview["estimatedPrice"], preview["isFreeThisCall"]) == (quoted, False)
    assert rh.submit(endpoint, body)["errorCode"] == ""
    assert rh.rh.recorder.charged > 0
    assert charged is None or rh.rh.recorder.charged == Decimal(charged)


NEW = "luma/uni-9/text-to-image"
PROMPT = Param("prompt", "prompt", "string", required=True, max_length=20)


def test_a_model_that_was_added_runs_for_its_price(rh: Caller) -> None:
    rh.rh.add_model(NEW, params=[PROMPT], price="0.25")
    done = rh.query(rh.submit(NEW, {"prompt": "a pier"})["taskId"])
    assert (done["status"], done["results"][0]["outputType"]) == ("SUCCESS", "png")
    assert rh.rh.recorder.charged == Decimal("0.25")
    assert rh.submit("luma/uni-9/other", {})["errorCode"] == "1001"


def test_its_parameters_and_rules_are_checked(rh: Caller) -> None:
    size, seed = Param("aspectRatio", "aspect_ratio", "enum", options=("1:1", "16:9")), Param("seed", "seed", "int")
    rh.rh.add_model(NEW, params=[PROMPT, size, seed], rules=[Rule("one", ("aspectRatio", "seed"))])
    said: dict[str, dict[str, Any]] = {
        "": {"prompt": "a pier", "seed": 7},
        "field 'prompt' is required, can not be empty": {"seed": 7},
        "prompt size must be between 0 and 20": {"prompt": "x" * 21, "seed": 7},
        "field 'aspectRatio' value 9:1 is not in the allowed options": {"prompt": "a pier", "aspectRatio": "9:1"},
        "seed must be an integer": {"prompt": "a pier", "seed": "7"},
        "exactly one of aspectRatio, seed must be set": {"prompt": "a pier"},
    }
    assert [rh.submit(NEW, body)["errorMessage"] for body in said.values()] == list(said)


def test_a_price_by_the_second_and_none(rh: Caller) -> None:
    length = Param("duration", "duration", "int")
    table = PriceTable("second", per="duration", fixed=Decimal("0.5"))
    rh.rh.add_model(NEW, output="video", params=[length], price=table)
    assert rh.preview(NEW, {"duration": 3})["estimatedPrice"] == 1.5
    rh.rh.add_model(NEW, output="video", params=[length])
    answer = rh.preview(NEW, {"duration": 3})
    assert (answer["errorCode"], answer["errorMessage"]) == ("1501", "PRICE_CONFIG_NOT_FOUND")
    assert answer["estimatedPrice"] is None


def test_a_model_of_the_catalogue_can_be_replaced(rh: Caller) -> None:
    assert rh.submit(IMAGE, {"prompt": "a pier"})["errorCode"] == "1007"
    rh.rh.add_model(IMAGE, params=[PROMPT])
    assert rh.submit(IMAGE, {"prompt": "a pier"})["errorCode"] == ""


def test_a_model_is_added_over_http(rh: Caller) -> None:
    about = {
        "endpoint": NEW,
        "output": "audio",
        "params": [{"key": "prompt", "type": "string", "required": True}],
        "price": {"unit": "call", "fixed": "0.30"},
    }
    assert rh.http.post("/_emulator/models", json=about).json() == {"endpoint": NEW}
    task_id = rh.submit(NEW, WORDS)["taskId"]
    assert rh.query(task_id)["results"][0]["outputType"] == "mp3"
    assert rh.rh.recorder.charged == Decimal("0.30")
    assert rh.http.post("/_emulator/models", json={"output": "audio"}).status_code == 400


DEPRECATED = ("rhart-image-g-1.5/text-to-image", "rhart-image-g-1.5/text-to-image-[Deprecated]")


@pytest.mark.parametrize("endpoint", DEPRECATED)
def test_a_deprecated_model_runs_by_each_of_its_published_endpoints(rh: Caller, endpoint: str) -> None:
    model = catalog.get(endpoint)
    answer = rh.submit(endpoint, catalog.read_parameters(model, catalog.example(model)).sent)
    assert answer["errorCode"] == ""
    assert rh.query(answer["taskId"])["status"] == "SUCCESS"
    assert rh.rh.recorder.paid[0].endpoint == endpoint


def test_an_endpoint_that_was_taken_down_answers_unknown_error_and_costs_nothing(rh: Caller) -> None:
    model = catalog.get("rhart-video-s/text-to-video-pro")
    body = catalog.read_parameters(model, catalog.example(model)).sent
    gone, words = f"{model.endpoint}-deprecated", "Unknown error, please retry or contact support"
    for answer in (rh.submit(gone, body), rh.preview(gone, body)):
        assert (answer["errorCode"], answer["errorMessage"]) == ("1000", words)
    assert rh.rh.recorder.paid == []
    assert rh.submit(model.endpoint, body)["errorCode"] == ""
