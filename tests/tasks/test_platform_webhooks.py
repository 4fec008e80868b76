"""What became of a webhook, and sending it again, as Prefect tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rh_prefect import tasks
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, RequestRejected
from tests.support.servers.caller import Caller
from tests.support.servers.receiver import Receiver
from tests.support.world.as_task import as_task

SECRET = "canary-token-of-the-receiver"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


async def test_a_webhook_is_looked_into_and_sent_again(
    rh: Emulator, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", SECRET)
    caller = Caller(rh)
    task_id = caller.started(webhookUrl=f"{receiver.url}/{SECRET}/one")
    caller.query(task_id)
    assert rh.recorder.wait(lambda recorder: len(recorder.deliveries) == 1)
    event = await as_task(tasks.webhook_detail, task_id)
    assert (event.task_id, event.status, event.response, event.event) == (task_id, "SUCCESS", "noted", "TASK_END")
    assert event.view.status == "SUCCESS"
    assert event.url == f"{receiver.url}/***/one"
    assert await as_task(tasks.resend_webhook, event.event_id) is None
    assert await as_task(tasks.resend_webhook, event.event_id, url=f"{receiver.url}/other") is None
    assert rh.recorder.wait(lambda recorder: len(recorder.deliveries) == 3)
    assert [json.dumps(body["taskId"]) for body in receiver.got] == [json.dumps(task_id)] * 3


async def test_a_task_without_a_webhook(rh: Emulator) -> None:
    with pytest.raises(RequestRejected, match="webhook of task"):
        await as_task(tasks.webhook_detail, Caller(rh).started())


async def test_an_address_that_is_none_is_refused_before_anything_is_sent(rh: Emulator) -> None:
    with pytest.raises(InputError, match="address of a receiver"):
        await as_task(tasks.resend_webhook, "1", url="hooks.example.net")
    assert not rh.recorder.requests
