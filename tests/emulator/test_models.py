"""Models that the catalogue lacks: an emulator can be given them, and an unknown endpoint stays 1001."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Param, PriceTable, Rule
from tests.support.servers.caller import IMAGE, WORDS, Caller

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
    answer = rh.submit(endpoint, catalog.validate(model, catalog.example(model)))
    assert answer["errorCode"] == ""
    assert rh.query(answer["taskId"])["status"] == "SUCCESS"
    assert rh.rh.recorder.paid[0].endpoint == endpoint


def test_an_endpoint_that_was_taken_down_answers_unknown_error_and_costs_nothing(rh: Caller) -> None:
    model = catalog.get("rhart-video-s/text-to-video-pro")
    body = catalog.validate(model, catalog.example(model))
    gone, words = f"{model.endpoint}-deprecated", "Unknown error, please retry or contact support"
    for answer in (rh.submit(gone, body), rh.preview(gone, body)):
        assert (answer["errorCode"], answer["errorMessage"]) == ("1000", words)
    assert rh.rh.recorder.paid == []
    assert rh.submit(model.endpoint, body)["errorCode"] == ""
