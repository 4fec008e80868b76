"""RunningHub's own words: a client that decides by the text does against the emulator what it does there."""

from __future__ import annotations

from dataclasses import replace

from rh_prefect.emulator import DEFAULT, Fault
from tests.emulator.conftest import Emulate
from tests.support.servers.caller import IMAGE, WORDS, Caller

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


def test_a_key_that_may_not_run_models_is_told_so_in_the_official_words(rh: Caller) -> None:
    consumer = Caller(rh.rh, rh.rh.keys.add("consumer", tier="NORMAL").secret)
    said = "Access Denied: Standard Model API is restricted to Enterprise-Shared API Keys only."
    assert consumer.submit()["errorMessage"] == said
    preview = consumer.post(f"/openapi/v2/price-preview/{IMAGE}", WORDS).json()
    assert (preview["errorCode"], preview["errorMessage"]) == ("1014", said)
