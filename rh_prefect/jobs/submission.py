"""The one dangerous moment: from the claim to the recorded answer, and what a stranger's half-done one means."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rh_prefect.client import Client, TaskView
from rh_prefect.errors import ApiError, ConnectFailed, InputError, JournalError, ResponseLost
from rh_prefect.jobs.journal.job_records import JobRecords, JobView, Submit
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.process import is_surely_dead, uptime
from rh_prefect.jobs.journal.records import Answer, Intent, Resolution
from rh_prefect.jobs.journal.spool import Spool, Spooled
from rh_prefect.jobs.lifecycle import GAVE_UP, NOT_DELIVERED, NOT_SENT
from rh_prefect.jobs.requests.request import JobRequest, replace_marks
from rh_prefect.jobs.webhook_address import Callback
from rh_prefect.memory_cache import LruSet

WATCH_MARGIN = 10.0
"""Seconds beyond a stranger's own limits before this process calls his submit unknown."""

UNPOSTED: LruSet[str] = LruSet(10_000)
"""Tokens of this process's intents whose POST will never begin: whatever became of recording them, they cost
nothing."""

_log = logging.getLogger("rh_prefect")


class Submitter:
    """One job's records and its POST."""

    def __init__(
        self,
        order: JobRequest,
        *,
        key: str,
        job: str,
        journal: Journal,
        spool: Spool,
        sleep: Callable[[float], Awaitable[None]],
        callback: Callback | None = None,
        clock: Callable[[], float] = uptime,
    ) -> None:
        """Takes a job.

        Args:
            order: What is asked for.
            key: The job's key.
            job: Its full name, for messages.
            journal: Its records.
            spool: This machine's memory of tickets on their way to the journal.
            sleep: Waits.
            callback: Where RunningHub is to tell of the end.
            clock: Monotonic seconds, which go on while the machine sleeps.
        """
        self._order = order
        self._key = key
        self._job = job
        self._scope = journal.scope
        self._records = JobRecords(journal, key)
        self._spool = spool
        self._sleep = sleep
        self._callback = callback
        self._clock = clock
        self._claimed_at = 0.0
        self.first_view: TaskView | None = None

    async def read(self) -> JobView:
        """Reads the job, with the tickets that this machine's spool still has for it."""
        view = await self._records.view()
        for submit in view.submits:
            self._check_same_request(submit)
            view = await self._replay_spool(view, submit)
        return view

    def _check_same_request(self, submit: Submit) -> None:
        if submit.intent.base != self._order.base:
            raise InputError(
                f"{self._job}: this key stands for another request already ({submit.intent.model}). "
                "What to do: give each request a key of its own."
            )

    async def _replay_spool(self, view: JobView, submit: Submit) -> JobView:
        """Brings a ticket into the journal that arrived here and never got there."""
        answer = self._spool.get(self._scope, self._key, submit.n)
        if answer is None:
            return view
        if submit.task_id == answer.task_id:
            self._unspool(submit.n)
            return view
        return view.adding(await self.record_answer(submit.intent, submit.n, answer))

    async def claim(self, n: int, intent: Intent) -> Intent | None:
        """Creates intent n; None when another's was there first."""
        # From before it is written: whoever watches it may have seen it long before this process is told that it
        # stands.
        self._claimed_at = self._clock()
        try:
            is_ours = await self._records.intent(n, intent)
        except Exception:
            # It may stand all the same, and it is known here that nothing will be posted for it.
            UNPOSTED.add(intent.token)
            raise
        return intent if is_ours else None

    async def post(self, intent: Intent, n: int, links: Mapping[str, str], *, client: Client) -> Answer:
        """Sends POST n on an account, with the inputs' links there by their marks; whatever happens is an answer."""
        if self._clock() - self._claimed_at > intent.give_up:
            # Whoever watches this intent may have called it unknown by now; to post would be to pay behind his back.
            UNPOSTED.add(intent.token)
            return Answer(
                outcome="refused", code=GAVE_UP, reason="this process was stopped before the POST", retry="throttled"
            )
        answer = self._without_secret(await self._submit_once(links, n, client))
        if answer.outcome == "ticket":
            await self._put_in_spool(n, answer)
        return answer

    def _without_secret(self, answer: Answer) -> Answer:
        # RunningHub's words may repeat the request.
        hide = self._callback.hide if self._callback else str
        return answer.model_copy(update={"reason": hide(answer.reason)})

    def wire_payload(self, links: Mapping[str, str]) -> dict[str, Any]:
        """The payload as RunningHub takes it: files by their links, a whole graph as text, and what is not recorded."""
        payload = {**replace_marks(self._order.payload, links), **self._order.private}
        if isinstance(payload.get("workflow"), dict):
            payload["workflow"] = json.dumps(payload["workflow"], ensure_ascii=False)
        return payload

    async def _put_in_spool(self, n: int, answer: Answer) -> None:
        try:
            await self._spool.save(Spooled(self._scope, self._key, n, answer))
        except OSError as error:
            # A full disk here must not keep the ticket from the journal.
            _log.error("%s: task %s cannot be noted on this machine: %s", self._job, answer.task_id, error)

    def _unspool(self, n: int) -> None:
        try:
            self._spool.drop(self._scope, self._key, n)
        except OSError as error:
            _log.warning("%s: the journal has what still lies in %s: %s", self._job, self._spool.folder, error)

    async def _submit_once(self, links: Mapping[str, str], n: int, client: Client) -> Answer:
        address = self._callback.address(self._scope, self._key, n) if self._callback else None
        try:
            view = await client.submit(self._order.endpoint, self.wire_payload(links), webhook_url=address)
        except ConnectFailed as error:
            return Answer(outcome="refused", code=NOT_DELIVERED, reason=error.what or error.message, retry="throttled")
        except InputError as error:
            return Answer(outcome="refused", code=NOT_SENT, reason=error.message, retry="final")
        except ResponseLost as error:
            return Answer(outcome="unknown", reason=error.what or error.message, retry="unknown")
        except ApiError as error:
            outcome = "unknown" if error.retry in ("unknown", "pending") else "refused"
            return Answer(outcome=outcome, code=error.code, reason=error.reason, retry=error.retry)
        except Exception as error:
            return Answer(outcome="unknown", reason=f"{type(error).__name__}: {error}", retry="unknown")
        self.first_view = view
        return Answer(outcome="ticket", task_id=view.task_id, node_errors=view.node_errors)

    async def record_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        """Creates answer n; the submit that now stands, which a watcher may have called unknown first."""
        try:
            submit = await self._write_answer(intent, n, answer)
        except JournalError as error:
            raise self._unrecorded(answer, error) from error
        self._unspool(n)
        return submit

    async def _write_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        if await self._records.answer(n, answer):
            return Submit(n, intent, answer)
        # Another process watched this intent for so long that it called it unknown. What is known here settles that.
        if answer.outcome == "ticket":
            await self.resolve(n, Resolution(outcome="adopted", task_id=answer.task_id, by="the late owner"))
        elif answer.outcome == "refused":
            await self.resolve(n, Resolution(outcome="forgotten", by="the late owner, who was refused"))
        submit = self._submit_number(n, await self._records.view())
        if answer.outcome == "ticket" and submit.task_id != answer.task_id:
            await self._records.late(n, answer)
            _log.error(
                "%s: task %s was accepted after its submit had been given up; it may have been paid for in vain. "
                "What to do: look at it in RunningHub's call log.",
                self._job,
                answer.task_id,
            )
        return submit

    def _submit_number(self, n: int, view: JobView) -> Submit:
        return next(submit for submit in view.submits if submit.n == n)

    def _unrecorded(self, answer: Answer, error: JournalError) -> JournalError:
        if answer.outcome != "ticket":
            return error
        return JournalError(
            f"{self._job}: task {answer.task_id} is paid for and runs, but the journal could not be told: {error} "
            f"The ticket lies in {self._spool.folder} on this machine: run again here and it is adopted; "
            f"from elsewhere: rh-prefect jobs adopt {self._job} {answer.task_id}."
        )

    async def resolve(self, n: int, resolution: Resolution) -> None:
        """Settles unknown answer n."""
        await self._records.resolve(n, resolution)

    async def watch(self, submit: Submit) -> JobView:
        """Waits for a stranger's answer.

        Time is measured here alone, since the clocks of two machines are never compared.
        """
        began, gap = self._clock(), 0.05
        limit = submit.intent.give_up + submit.intent.submit_timeout + WATCH_MARGIN
        while True:
            view = await self.read()
            now = self._submit_number(submit.n, view)
            if now.state != "open":
                return view
            verdict = self._verdict(submit.intent, watched=self._clock() - began, limit=limit)
            if verdict is not None:
                await self._records.answer(submit.n, verdict)
                return await self.read()
            await self._sleep(gap)
            gap = min(2.0, gap * 1.5)

    def _verdict(self, intent: Intent, *, watched: float, limit: float) -> Answer | None:
        if intent.token in UNPOSTED:
            return Answer(outcome="refused", code=GAVE_UP, reason="its POST was never begun", retry="throttled")
        if is_surely_dead(intent.owner):
            return Answer(outcome="unknown", reason="the process that posted it has died", retry="unknown")
        if watched > limit:
            return Answer(outcome="unknown", reason=f"no answer was recorded in {watched:.0f} s", retry="unknown")
        return None
