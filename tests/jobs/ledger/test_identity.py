from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.jobs.ledger.identity import base_hash, explicit_key, job_key, marked, media_mark, uri_hash
from rh_prefect.jobs.ledger.journal import check_key

ASKED: dict[str, Any] = {
    "site": "www.runninghub.cn",
    "endpoint": "kling-v2.6-pro/image-to-video",
    "payload": {"prompt": "waves", "duration": "5", "imageUrl": media_mark("a" * 64)},
    "label": None,
}


def test_equal_calls_have_equal_bases_whatever_the_order_of_their_parameters() -> None:
    turned = dict(reversed(ASKED["payload"].items()))
    assert base_hash(**ASKED) == base_hash(**{**ASKED, "payload": turned})


@pytest.mark.parametrize(
    "other",
    [
        {"site": "www.runninghub.ai"},
        {"endpoint": "kling-v2.6-pro/text-to-video"},
        {"label": "dawn"},
        {"payload": {**ASKED["payload"], "prompt": "waves "}},
        {"payload": {**ASKED["payload"], "duration": 5}},
        {"payload": {**ASKED["payload"], "imageUrl": media_mark("b" * 64)}},
        {"payload": {**ASKED["payload"], "seed": 1}},
    ],
)
def test_what_is_asked_for_makes_the_base(other: dict[str, Any]) -> None:
    assert base_hash(**ASKED) != base_hash(**{**ASKED, **other})


def test_the_hash_of_a_known_call_stays_what_it_is() -> None:
    """Another hash would make every job that was ever paid for a new one."""
    assert base_hash(**ASKED) == "bf24fb3fb32a8c56e7c821181f8a64cb4c35587b"
    assert job_key("b" * 40, 1) == "df79982b64035668f0001ccc"
    assert explicit_key("mine") == "5cbedd56766e3fd0122f594b"
    assert uri_hash("file:///a.png") == "b3f8ee1c31152d29ed735c78"


def test_each_of_the_equal_calls_has_a_key_of_its_own() -> None:
    base = base_hash(**ASKED)
    assert len({job_key(base, ordinal) for ordinal in range(1, 101)}) == 100
    assert job_key(base, 1) == job_key(base, 1)


def test_the_caller_s_own_key_is_no_ordinal() -> None:
    base = base_hash(**ASKED)
    assert explicit_key(f"{base}/1") != job_key(base, 1)
    assert explicit_key("a") != explicit_key("b")


@pytest.mark.parametrize("key", ["", "Ünïcode / with anything", "x" * 1000])
def test_any_key_of_the_caller_is_a_journal_key(key: str) -> None:
    assert check_key(f"{explicit_key(key)}-intent-1")


@pytest.mark.parametrize("prompt", ["灯塔 🗼", "half an emoji \ud83d"])
def test_prompts_in_any_script_are_hashed(prompt: str) -> None:
    assert len(base_hash(**{**ASKED, "payload": {"prompt": prompt}})) == 40


def test_a_mark_is_known_again() -> None:
    assert marked(media_mark("abc")) == "abc"
    assert marked("abc") is None
    assert marked(5) is None
