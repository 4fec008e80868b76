"""RunningHub's own words: a client that decides by the text does against the emulator what it does there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rh_prefect.emulator import DEFAULT, Fault
from tests.emulator.conftest import Emulate
from tests.support.servers.caller import IMAGE, WORDS, Caller

OFFICIAL = {
    "1000": "Unknown error, please retry or contact support",
    "1001": "Invalid URL, please check your link",
    "1002": "Invalid API Key, please check your credentials",
    "1003": "Rate limit exceeded, please slow down requests",
    "1004": "Task not found, please check the task ID",
    "1005": "Internal server error, please retry later",
    "1006": "Task execution timed out, please retry",
    "1007": "Invalid parameters, please check your input",
    "1008": "File size limit exceeded",
    "1009": "HTTP method not supported, please check documentation",
    "1010": "Service unavailable, please retry later",
    "1011": "System is currently busy, please retry later",
    "1012": "Service response exception, please contact support or retry later",
    "1013": "File processing failed, please check the URL or retry",
    "1014": "Access Denied: Standard Model API is restricted to Enterprise-Shared API Keys only.",
    "1015": "Generation failed, please try again.",
    "1101": "Node info error",
    "1501": "Content verification failed, please modify your prompt or images",
    "1504": "Model timed out, please retry later",
    "1505": "Photorealistic real people are prohibited, please modify your prompt or image",
}
"""The official English table."""

MOST = 3
FINAL = ("content verification failed", "access denied", "insufficient", "invalid parameter", "real people")


def official_submit(rh: Caller, prompt: str) -> str:
    """Submits as the official node does: up to three times, unless the words of the answer are final."""
    said = ""
    for _ in range(MOST):
        answer = rh.submit(IMAGE, {**WORDS, "prompt": prompt})
        said = answer["errorMessage"]
        if not said or any(words in said.lower() for words in FINAL):
            break
    return str(said)


def test_what_the_content_check_refuses_is_submitted_once(emulate: Emulate) -> None:
    rh = emulate(moderated=["storm"], assumptions=replace(DEFAULT, moderated_at_submit=("1501", "")))
    assert official_submit(rh, "a storm") == "Content verification failed, please modify your prompt or images"
    assert len(rh.rh.recorder.submissions) == 1


def test_what_is_not_final_is_submitted_three_times(emulate: Emulate) -> None:
    rh = emulate(faults=[Fault("submit", kind="code", code="1011")])
    assert official_submit(rh, "a calm sea") == "System is currently busy, please retry later"
    assert len(rh.rh.recorder.submissions) == MOST


@pytest.mark.parametrize("code", OFFICIAL)
def test_every_v2_code_has_the_official_text(emulate: Emulate, code: str) -> None:
    rh = emulate(faults=[Fault("submit", kind="code", code=code)])
    answer = rh.submit()
    assert (answer["errorCode"], answer["errorMessage"]) == (code, OFFICIAL[code])


def test_a_key_that_may_not_run_models_is_told_so_in_the_official_words(rh: Caller) -> None:
    consumer = Caller(rh.rh, rh.rh.keys.add("consumer", tier="NORMAL").secret)
    said = "Access Denied: Standard Model API is restricted to Enterprise-Shared API Keys only."
    assert consumer.submit()["errorMessage"] == said
    preview = consumer.post(f"/openapi/v2/price-preview/{IMAGE}", WORDS).json()
    assert (preview["errorCode"], preview["errorMessage"]) == ("1014", said)
