"""Start and end, several at once, and what is left: nothing."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ConfigError
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import IMAGE, IMAGE_PRICE, WORDS, Caller, node


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = threading.active_count()
    with Emulator(long_side=64) as rh:
        caller = Caller(rh)
        caller.result()
        caller.upload(samples.png(tmp_path / "a.png"))
        assert any(tmp_path.glob("rh-emulator-*"))
        url = rh.url
    assert not any(tmp_path.glob("rh-emulator-*"))
    assert threading.active_count() == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_the_end_does_not_wait_for_clients(caplog: pytest.LogCaptureFixture) -> None:
    rh = Emulator(faults=[Fault("submit", kind="stall"), Fault("queue", kind="hold", seconds=60)]).start()
    caller = Caller(rh)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(caller.submit), pool.submit(caller.queue)]
        assert rh.recorder.wait(lambda recorder: len(recorder.paid) == 1)
        assert rh.held.wait()
        rh.stop()  # waits for no held answer
    assert isinstance(answers[0].exception(), httpx.RemoteProtocolError | httpx.ReadError)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_end_does_not_wait_for_renderings() -> None:
    with Emulator(long_side=640, fps=24) as rh:
        caller = Caller(rh)
        caller.started("music", nodeInfoList=[node("17", "seconds", 1000)])
        caller.submit(
            "kling-v2.6-pro/text-to-video", {**WORDS, "aspectRatio": "16:9", "duration": "10", "sound": "false"}
        )
        time.sleep(0.5)
        start = time.monotonic()
    assert time.monotonic() - start < 5


def test_a_chosen_port_and_one_that_is_taken() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Emulator(port=port) as rh:
        assert rh.url == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match="choose another port"):
            Emulator(port=port).start()
        for wrong in ({"port": 99999}, {"host": "192.0.2.1"}):
            with pytest.raises(ConfigError, match="an address of this machine"):
                Emulator(**wrong).start()


def test_the_books_add_up_under_load(emulate: Emulate) -> None:
    rh = emulate(limit=8, clock="polls", polls=2, money=1)

    def run(number: int) -> str:
        caller = Caller(rh.rh)
        answer = caller.submit(body={**WORDS, "prompt": f"shot {number % 4}"})
        if not answer["taskId"]:
            return str(answer["errorCode"])
        while (status := caller.query(answer["taskId"])["status"]) != "SUCCESS":
            pass
        return str(status)

    with ThreadPoolExecutor(12) as pool:
        ends = list(pool.map(run, range(40)))
    books = rh.rh.recorder
    assert set(ends) <= {"SUCCESS", "421", "812"}
    assert ends.count("SUCCESS") == len(books.paid) == len({entry.task_id for entry in books.paid})
    assert books.charged == Decimal(IMAGE_PRICE) * len(books.paid) <= 1
    assert [entry.number for entry in books.submissions] == list(range(1, 41))


def test_a_failed_assertion_shows_what_was_paid_for(rh: Caller) -> None:
    rh.submit(body={**WORDS, "prompt": "a lighthouse"})
    rh.rh.faults.add(Fault("submit", kind="code", code="1007", times=1))
    rh.submit(body={**WORDS, "prompt": "x" * 1000})
    with pytest.raises(AssertionError) as failed:
        assert len(rh.rh.recorder.paid) == 2
    first, refused = f"<1: cost {IMAGE_PRICE}, {IMAGE} 'a lighthouse'>", f"<2: refused 1007, {IMAGE} '{'x' * 40}'>"
    assert first in str(failed.value)
    assert rh.key not in repr(rh.rh) + repr(list(rh.rh.keys)) + repr(rh.rh.recorder.to_json())
    assert repr(rh.rh.recorder) == f"<Recorder: cost {IMAGE_PRICE}, 0 coins; [{first}, {refused}]>"
