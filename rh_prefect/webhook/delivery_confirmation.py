"""Verifies webhook deliveries: queries RunningHub, records the end of the task, and announces the end.

A delivery only causes a query; an end is recorded only if RunningHub confirms the end. So a lost, late, repeated or
forged delivery changes only the time at which an end is detected, since a waiting job also polls.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from rh_prefect.blocks.lookup import RECORDED
from rh_prefect.errors import RunningHubError, TaskNotFound
from rh_prefect.flow_runs.recorded_job_collection import queried, record_end, records_of
from rh_prefect.flow_runs.run_queries_and_scopes import is_flow_run
from rh_prefect.flow_runs.task_end_events import announce
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.record_types import Answer, End
from rh_prefect.works.loop_thread import LOOP

PAUSES: Final = (1.0, 3.0, 9.0)
"""Seconds before each repeated check of a delivery that is not confirmed yet: RunningHub's query may be slightly
out of date, or the submission's answer may not be recorded yet.
"""

AT_ONCE: Final = 8
MOST_WAITING: Final = 2000
"""Maximum number of deliveries in progress; further ones are refused, and RunningHub sends them again."""

Verdict = Literal["done", "nothing", "later"]
_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Delivery:
    """The content of a webhook: its address names a job's submission, and its body names the task that has ended."""

    scope: str
    key: str
    n: int
    task_id: str

    @property
    def job(self) -> str:
        """The job's full name."""
        return f"{self.scope}/{self.key}"

    def __str__(self) -> str:
        return f"{self.job}: a webhook reported task {self.task_id}"


class Confirmer:
    """Verifies deliveries in the background on the package's loop thread; of equal deliveries, one at a time.

    `on_end` is called on the loop thread when an end was confirmed.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._sleep = sleep
        self._on_end = on_end
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._at_work: set[Delivery] = set()

    def accept(self, delivery: Delivery) -> bool:
        """Accepts a delivery, from any thread, and returns at once; returns False if too many are pending."""
        with self._lock:
            if delivery in self._at_work:
                return True
            if len(self._at_work) >= MOST_WAITING:
                return False
            self._at_work.add(delivery)
        LOOP.submit(self._work(delivery))
        return True

    async def _work(self, delivery: Delivery) -> None:
        try:
            if await self._look_until_clear(delivery):
                self._on_end()
        finally:
            with self._lock:
                self._at_work.discard(delivery)

    async def _look_until_clear(self, delivery: Delivery) -> bool:
        for pause in (*PAUSES, None):
            async with self._gate:
                verdict = await self._look(delivery, is_last=pause is None)
            if verdict != "later" or pause is None:
                return verdict == "done"
            await self._sleep(pause)
        return False

    async def _look(self, delivery: Delivery, *, is_last: bool) -> Verdict:
        try:
            return await _confirm(delivery, is_last=is_last)
        except TaskNotFound:
            _log.warning("%s, which does not exist at RunningHub", delivery)
            return "nothing"
        except RunningHubError as error:
            _log.warning("%s, which cannot be confirmed: %s", delivery, error)
        except Exception:  # keep serving
            _log.exception("%s, which cannot be confirmed", delivery)
        return "later"


async def _confirm(delivery: Delivery, *, is_last: bool) -> Verdict:
    records = await records_of(delivery.job, delivery.n)
    submit = await records.submission(delivery.n)
    if submit is None:
        _log.warning("%s for submission %d, which has no record here", delivery, delivery.n)
        return "nothing"
    if submit.task_id is None:
        verdict = await _adopt(delivery, submit, records, is_last=is_last)
        if verdict != "done":
            return verdict
    elif submit.task_id != delivery.task_id:
        _log.warning("%s, which does not belong to this job", delivery)
        return "nothing"
    end = submit.end or await record_end(submit, await queried(submit, delivery.task_id), records=records)
    if end is None:
        return "later"
    _announce(delivery, submit, end)
    return "done"


async def _adopt(delivery: Delivery, submit: Submit, records: JobRecords, *, is_last: bool) -> Verdict:
    """Records the task of an unknown submission if RunningHub's webhook for the task has the submission's address."""
    if submit.state == "open" and not is_last:
        return "later"
    if submit.state not in ("open", "unknown", "forgotten"):
        advice = "What to do: check in RunningHub's call log whether it was paid for."
        _log.error("%s for a submission that is recorded as %s. %s", delivery, submit.state, advice)
        return "nothing"
    event = await (await RECORDED.provider_of(submit.intent)).client.webhooks.detail(delivery.task_id)
    if not urlsplit(event.url).path.endswith(f"/{delivery.scope}/{delivery.key}/{delivery.n}"):
        _log.warning("%s, but that task's webhook belongs to another job", delivery)
        return "nothing"
    origin = "its webhook, confirmed by RunningHub"
    answer = Answer(outcome="ticket", task_id=delivery.task_id, reason=origin)
    settled = await records.settle(submit, answer, by=origin)
    if settled.task_id != delivery.task_id:
        return "nothing"
    _log.info("%s, which is the task of submission %d", delivery, delivery.n)
    return "done"


def _announce(delivery: Delivery, submit: Submit, end: End) -> None:
    flow_run = delivery.scope if is_flow_run(delivery.scope) else None
    announce(delivery.task_id, job=delivery.job, model=submit.intent.model, status=end.status, flow_run=flow_run)
    _log.info("%s: task %s has ended: %s", delivery.job, delivery.task_id, end.status)
