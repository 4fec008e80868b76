"""The receiver, with an emulator that delivers for real: what it believes, and what it makes of everything else."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.client import Client
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import charge_of
from rh_prefect.works.journal.job_records_and_state import JobRecords, JobView, Submit
from rh_prefect.works.journal.record_types import Answer, End, Record, Resolution
from rh_prefect.works.journal.scope import open_scope
from rh_prefect.works.journal.works_journal import WorksJournal, default_works
from rh_prefect.works.work_in_progress import Callback
from tests.support.servers.emulator_env import environment
from tests.support.servers.webhook_receiver import TOKEN, receiver
from tests.support.waiting import until
from tests.support.world.job_records import intent, ticket, unknown, write

MODEL = "rhart-image/z-image/turbo"
WORDS = {"prompt": "a lighthouse", "aspectRatio": "1:1"}
KEY = "0123456789abcdef01234567"
OTHER = "f" * 24


@dataclass
class Desk:
    """A job outside of flows with its records, and a receiver that can read them."""

    rh: Emulator
    callback: Callback
    journal: WorksJournal

    async def submit(self, *, key: str = KEY) -> str:
        """Pays for a task whose end is told to the receiver."""
        async with Client(self.rh.key, base_url=self.rh.url) as client:
            address = self.callback.address(self.journal.scope, key, 1)
            return (await client.submit(MODEL, WORDS, webhook_url=address)).task_id

    async def job(self, *records: tuple[str, Record], site: str = "127.0.0.1", **facts: Any) -> None:
        """Records the job's intent, and what else is given."""
        claimed = intent(site=site, flow_run="night", **facts)
        await write(self.journal, {"intent-1": claimed, **dict(records)}, key=KEY)

    async def paid(self) -> str:
        """A job with a recorded ticket, whose task runs."""
        task_id = await self.submit()
        await self.job(("answer-1", ticket(task_id)))
        return task_id

    async def look(self) -> Submit:
        view = JobView.parse(self.journal, KEY, await self.journal.job(KEY))
        assert view.last is not None
        return view.last

    async def ended(self) -> Submit:
        """Lets all tasks end; the submit, once its end is recorded."""
        self.end()

        async def is_recorded() -> bool:
            return (await self.look()).end is not None

        await until(is_recorded)
        return await self.look()

    async def told_end(self) -> End:
        end = (await self.ended()).end
        assert end is not None
        return end

    async def delivered(self) -> None:
        """Lets all tasks end, and waits for the first delivery."""
        self.end()
        assert await asyncio.to_thread(self.rh.recorder.wait, lambda recorder: bool(recorder.deliveries))

    def end(self) -> None:
        self.rh.clock.advance(600)

    async def asked(self, count: int) -> None:
        """Waits for so many queries, and makes sure that no more come."""
        assert await asyncio.to_thread(self.rh.recorder.wait, lambda _: self.queries >= count), self.queries
        await asyncio.sleep(0.1)
        assert self.queries == count

    @property
    def queries(self) -> int:
        return sum(1 for one in self.rh.recorder.requests if one.path == "/openapi/v2/query")

    async def post(self, body: bytes | str, *, path: str = "") -> int:
        url = self.callback.url + path if path else self.callback.address(self.journal.scope, KEY, 1)
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(url, content=body)).status_code


@pytest.fixture(scope="module")
def callback() -> Iterator[Callback]:
    """One receiver for all: it reads its settings anew for each delivery. No Prefect: other tests' runs are not its."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}), receiver() as callback:
        yield callback


@pytest.fixture
def desk(callback: Callback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Emulator(clock="real", factor=0, long_side=64) as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        works = default_works(get_settings())
        asyncio.run(open_scope(works, "night"))
        yield Desk(rh, callback, works)


async def test_an_end_is_asked_for_once_and_recorded(desk: Desk) -> None:
    task_id = await desk.paid()
    end = await desk.told_end()
    assert (end.status, end.task_id, len(end.links)) == ("SUCCESS", task_id, 1)
    assert (end.queued_seconds, str(end.cost)) == (None, "0.04")
    await desk.asked(1)


async def test_a_failure_that_is_delivered_again_and_again_is_asked_about_once(desk: Desk) -> None:
    desk.rh.faults.add(Fault("submit", kind="fail", code="1504"), Fault("webhook", kind="doubled"))
    task_id = await desk.paid()
    end = await desk.told_end()
    assert (end.status, end.code) == ("FAILED", "1504")
    assert await asyncio.to_thread(desk.rh.webhooks.send, task_id) == 200
    await desk.asked(1)
    assert len(desk.rh.recorder.deliveries) == 3


async def test_a_late_delivery_of_what_is_recorded_asks_nothing(desk: Desk) -> None:
    desk.rh.faults.add(Fault("webhook", kind="late", seconds=0.3))
    task_id = await desk.paid()
    desk.end()
    recorded = End(status="SUCCESS", task_id=task_id)  # by whoever waits for it, who had found it by polling
    await desk.journal.create(f"{KEY}-end-1", recorded.model_dump(mode="json"))
    await desk.delivered()
    await desk.asked(0)
    assert (await desk.look()).end == recorded


async def test_a_forged_success_of_a_running_task_is_ignored_and_the_truth_is_not(desk: Desk) -> None:
    task_id = await desk.paid()
    assert await asyncio.to_thread(desk.rh.webhooks.forge, task_id) == 200
    await desk.asked(4)  # the first look and three more: RunningHub may be slower to know than to tell
    assert (await desk.look()).state == "ticket"
    assert "forged" not in (await desk.told_end()).model_dump_json()


async def test_a_forged_failure_of_a_success_is_a_success(desk: Desk) -> None:
    desk.rh.faults.add(Fault("webhook", kind="forged"))
    await desk.paid()
    assert (await desk.told_end()).status == "SUCCESS"
    await desk.asked(1)


@pytest.mark.parametrize("other", ["2031112223334445057", "another job's"])
async def test_another_task_is_not_this_jobs(desk: Desk, other: str) -> None:
    await desk.paid()
    unrelated = await desk.submit(key=OTHER)
    desk.rh.faults.add(Fault("webhook", kind="lost"))
    desk.end()
    told = json.dumps({"event": "TASK_END", "taskId": unrelated if other == "another job's" else other})
    assert await desk.post(told) == 200
    await desk.asked(0)
    assert (await desk.look()).state == "ticket"


@pytest.mark.parametrize(
    "path",
    [
        f"/hook/{TOKEN[:-1]}x/run/{KEY}/1",
        f"/hook/{TOKEN}x/run/{KEY}/1",
        f"/hook/%C3%A9/run/{KEY}/1",
        f"/hook//run/{KEY}/1",
        f"/hook/{TOKEN}/..%2Fother/{KEY}/1",
        f"/hook/{TOKEN}/.run/{KEY}/1",
        f"/hook/{TOKEN}/run/{KEY}/0",
        f"/hook/{TOKEN}/run/{KEY}/one",
        f"/hook/{TOKEN}/run/KEY/1",
        f"/hook/{TOKEN}/run/{KEY}",
        "/",
    ],
)
async def test_a_wrong_address_is_not_found_and_nothing_is_asked(desk: Desk, path: str) -> None:
    task_id = await desk.paid()
    assert await desk.post(json.dumps({"taskId": task_id}), path=path) == 404
    await desk.asked(0)


@pytest.mark.parametrize("scope", ["nobodys", "5a1f2f0e-0000-4000-8000-000000000000"])
async def test_a_job_of_which_nothing_is_recorded_is_ignored(desk: Desk, scope: str) -> None:
    assert await desk.post('{"taskId": "2031112223334445057"}', path=f"/hook/{TOKEN}/{scope}/{KEY}/1") == 200
    await desk.asked(0)


async def test_a_body_that_names_no_task_is_refused_and_not_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        for body in (b"", b"canary", b"[]", b"null", b'{"taskId": "canary"}', b"\xff\xfe", b'{"taskId": "' + b"9" * 99):
            assert await desk.post(body) == 400
    assert "contains no task id" in caplog.text
    logged = [one for one in caplog.records if one.name.startswith(("rh_prefect", "uvicorn"))]
    assert {one.name for one in logged} == {"rh_prefect", "uvicorn.access"}
    assert "canary" not in " ".join(one.getMessage() for one in logged)


async def test_a_huge_body_is_refused_announced_or_not(desk: Desk) -> None:
    async def forever() -> Any:
        for _ in range(64):
            yield b"x" * 65_536

    huge = b"x" * 3_000_000
    assert await desk.post(huge) == 413
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(desk.callback.address(desk.journal.scope, KEY, 1), content=forever())
    assert answer.status_code == 413


@pytest.mark.parametrize("answer", [[("answer-1", unknown())], []], ids=["lost", "an owner that died before it"])
async def test_a_missing_answer_is_settled_by_a_confirmed_webhook(desk: Desk, answer: list[tuple[str, Record]]) -> None:
    task_id = await desk.submit()
    await desk.job(*answer)
    submit = await desk.ended()
    assert submit.task_id == task_id


async def test_the_late_answer_to_a_submission_that_its_webhook_has_answered_changes_nothing(desk: Desk) -> None:
    task_id = await desk.submit()
    await desk.job()
    submit = await desk.ended()
    assert submit.answer is not None
    assert submit.answer.reason == "its webhook, confirmed by RunningHub"
    await JobRecords(desk.journal, KEY).settle(Submit(1, submit.intent), ticket(task_id), by="its late owner")
    assert await desk.look() == submit


async def test_a_lost_answer_is_not_settled_with_another_jobs_task(desk: Desk) -> None:
    unrelated = await desk.submit(key=OTHER)
    await desk.job(("answer-1", unknown()))
    await desk.delivered()
    assert await desk.post(json.dumps({"taskId": unrelated})) == 200
    await asyncio.sleep(0.3)
    assert (await desk.look()).state == "unknown"


async def test_a_refused_submit_is_never_taken_for_a_paid_one(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.submit()
    await desk.job(("answer-1", Answer(outcome="refused", code="1007")))
    await desk.delivered()
    await asyncio.sleep(0.3)
    assert (await desk.look()).state == "refused"
    assert "recorded as refused" in caplog.text


async def test_a_task_that_was_marked_as_not_accepted_counts(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    task_id = await desk.submit()
    mistaken = Resolution(outcome="forgotten", by="a person")
    await desk.job(("answer-1", unknown()), ("resolution-1", mistaken), estimate=Decimal("0.04"), currency="CNY")
    assert charge_of(await desk.look()) is None
    desk.end()
    said = f"task {task_id} was paid for, but another outcome of its submission is recorded"
    await until(lambda: said in caplog.text)  # after it is recorded
    submit = await desk.look()
    charge = charge_of(submit)
    assert (submit.state, submit.late_task_id) == ("forgotten", task_id)
    assert charge is not None and str(charge.costs) == "0.04 CNY"


async def test_another_site_s_job_is_not_asked_about_here(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.job(("answer-1", ticket(await desk.submit())), site="www.runninghub.ai")
    await desk.delivered()
    await asyncio.sleep(0.4)
    await desk.asked(0)
    assert "submitted to www.runninghub.ai" in caplog.text
