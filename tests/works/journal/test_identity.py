from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.works.journal.identity import (
    base_hash,
    explicit_key,
    file_mark,
    graph_base,
    job_key,
    marked,
    media_mark,
    other_job_key,
    request_id,
    reused_key,
    uri_hash,
)
from rh_prefect.works.journal.journal import check_key

ASKED: dict[str, Any] = {
    "site": "www.runninghub.cn",
    "endpoint": "kling-v2.6-pro/image-to-video",
    "payload": {"prompt": "waves", "duration": "5", "imageUrl": media_mark("a" * 64)},
}


def test_equal_calls_have_equal_hashes_in_any_order_of_parameters() -> None:
    turned = dict(reversed(ASKED["payload"].items()))
    assert base_hash(**ASKED) == base_hash(**{**ASKED, "payload": turned})


@pytest.mark.parametrize(
    "other",
    [
        {"site": "www.runninghub.ai"},
        {"endpoint": "kling-v2.6-pro/text-to-video"},
        {"payload": {**ASKED["payload"], "prompt": "waves "}},
        {"payload": {**ASKED["payload"], "duration": 5}},
        {"payload": {**ASKED["payload"], "imageUrl": media_mark("b" * 64)}},
        {"payload": {**ASKED["payload"], "seed": 1}},
    ],
)
def test_each_part_of_the_request_changes_the_hash(other: dict[str, Any]) -> None:
    assert base_hash(**ASKED) != base_hash(**{**ASKED, **other})


def test_the_hash_of_a_call_is_stable() -> None:
    """Another hash would make every paid job a new job."""
    assert base_hash(**ASKED) == "8c74710391e9486bc802b57cc10157f66a88461d"
    in_chinese = base_hash(site="www.runninghub.cn", endpoint="e", payload={"prompt": "灯塔 🗼"})
    assert in_chinese == "424291621b251827ba8041f532ab71157fd1358c"
    assert request_id("b" * 40, None) == "0d6ee676e323"
    assert explicit_key("mine") == "5cbedd56766e3fd0122f594b"
    assert uri_hash("file:///a.png") == "b3f8ee1c31152d29ed735c78"
    assert graph_base("b" * 40, "g") == "41a8e6dd2e8a64cf606f0e56c1fd9c5c9f36b28b"
    assert job_key("r" * 12, "a" * 12) == "r" * 12 + "a" * 12
    assert other_job_key("r" * 12, "a" * 12, 1) == "r" * 12 + "bc6bb59dbca3"
    assert reused_key("r" * 12) == "r" * 12 + "d9c0d34144c1"


def test_a_call_without_a_graph_keeps_its_hash() -> None:
    assert graph_base("b" * 40, "") == "b" * 40


def test_keys_of_equal_requests_have_a_common_prefix_that_depends_on_the_label() -> None:
    request = request_id(base_hash(**ASKED), "dawn")
    keys = [job_key(request, "a" * 12), other_job_key(request, "a" * 12, 1), reused_key(request)]
    assert len(set(keys)) == 3 and all(key.startswith(request) and len(key) == 24 for key in keys)
    assert request != request_id(base_hash(**ASKED), None) != request_id(base_hash(**ASKED), "None")


def test_keys_of_the_caller_differ() -> None:
    assert explicit_key("a") != explicit_key("b")


@pytest.mark.parametrize("key", ["", "Ünïcode / with anything", "x" * 1000])
def test_any_key_of_the_caller_is_a_journal_key(key: str) -> None:
    assert check_key(f"{explicit_key(key)}-intent-1")


@pytest.mark.parametrize("prompt", ["灯塔 🗼", "half an emoji \ud83d"])
def test_prompts_in_any_script_are_hashed(prompt: str) -> None:
    assert len(base_hash(**{**ASKED, "payload": {"prompt": prompt}})) == 40


def test_a_mark_is_recognized() -> None:
    assert marked(media_mark("abc")) == "abc"
    assert marked("abc") is None
    assert (file_mark("abc"), marked(file_mark("abc"))) == ("file-sha256:abc", None)
    assert marked(5) is None
