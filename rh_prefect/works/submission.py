"""Submits a job: claims it, posts it, records the answer; resolves submissions that another process left unfinished."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from rh_prefect.caches_and_locks import LruSet
from rh_prefect.client import TaskView
from rh_prefect.errors import ApiError, ConnectFailed, InputError, JournalError, ResponseLost
from rh_prefect.works.job_context import JobContext
from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.journal.journal import as_cached
from rh_prefect.works.journal.process_identity import is_surely_dead
from rh_prefect.works.journal.record_types import GAVE_UP, NOT_DELIVERED, NOT_SENT, Answer, Intent, Resolution
from rh_prefect.works.journal.spool import Spooled
from rh_prefect.works.requests.request_preparation import replace_marks

WATCH_MARGIN = 10.0
"""Seconds beyond another process's limits after which this process records its submission as unknown."""

UNPOSTED: LruSet[str] = LruSet(10_000)
"""Tokens of this process's intents whose POST will never start: recorded or not, they cost nothing."""

_log = logging.getLogger("rh_prefect")


class Submitter:
    """One job's claim, its POST, and the recorded answer."""

    def __init__(self, context: JobContext) -> None:
        """Sends no request."""
        self._context = context
        self._request = context.request
        self._records = context.records
        self._spool = context.services.spool
        self._clock = context.services.clock
        self._claimed_at = 0.0
        self.first_view: TaskView | None = None
        self.accepted_at: float | None = None

    @property
    def _name(self) -> tuple[str, str]:
        return self._records.journal.scope, self._records.key

    async def read(self) -> JobView:
        """Reads the job, with the tickets that this machine's spool has for it."""
        view = await self._records.view()
        for submit in view.submits:
            view = await self._replay_spool(view, submit)
        return view

    async def _replay_spool(self, view: JobView, submit: Submit) -> JobView:
        """Records a ticket in the journal that so far only the spool has."""
        answer = self._spool.get(*self._name, submit.n, submit.intent.token)
        if answer is None:
            return view
        if submit.task_id == answer.task_id:
            self._unspool(submit.n, submit.intent)
            return view
        return view.adding(await self.record_answer(submit.intent, submit.n, answer))

    async def claim(self, n: int, intent: Intent) -> Intent | None:
        """Creates intent n; returns None if another process created it first."""
        # Before the write, since another process may read the intent before this one has the response.
        self._claimed_at = self._clock()
        try:
            is_ours = await self._records.intent(n, intent)
        except Exception:
            # The intent may be recorded all the same, and this process will not post for it.
            UNPOSTED.add(intent.token)
            raise
        return intent if is_ours else None

    async def post(self, intent: Intent, n: int, links: Mapping[str, str]) -> Answer:
        """Sends POST n on the account of the lease; every outcome is an answer.

        Args:
            intent: The claim.
            n: Its number.
            links: The inputs' links at that account, by their marks.
        """
        if self._clock() - self._claimed_at > intent.give_up:
            # Another process may have recorded this intent as unknown; a POST could then be paid for twice.
            UNPOSTED.add(intent.token)
            return Answer(
                outcome="refused", code=GAVE_UP, reason="this process was stopped before the POST", retry="throttled"
            )
        if await self._is_cancelled_before_claim():
            UNPOSTED.add(intent.token)
            return Answer(
                outcome="refused", code=GAVE_UP, reason="the run was cancelled before the POST", retry="throttled"
            )
        answer = self._without_secret(await self._submit_once(links, n))
        if answer.outcome != "refused":
            self._context.lease.submit_finished()
        if answer.outcome == "ticket":
            await self._put_in_spool(n, intent, answer)
        return answer

    async def _is_cancelled_before_claim(self) -> bool:
        """Whether the journal had a cancellation when the intent was created, if no request is needed to check it."""
        is_cached = as_cached(self._context.scope.journal) is not None
        return is_cached and await self._context.is_cancelled(max_age=self._clock() - self._claimed_at)

    def _without_secret(self, answer: Answer) -> Answer:
        # The message of RunningHub may repeat the request.
        callback = self._context.callback
        hide = callback.hide if callback else str
        return answer.model_copy(update={"reason": hide(answer.reason)})

    def wire_payload(self, links: Mapping[str, str]) -> dict[str, Any]:
        """Returns the payload to send: files as links, a whole graph as text, and values that are not recorded."""
        payload = {**replace_marks(self._request.payload, links), **self._request.private}
        if isinstance(payload.get("workflow"), dict):
            payload["workflow"] = json.dumps(payload["workflow"], ensure_ascii=False)
        return payload

    async def _put_in_spool(self, n: int, intent: Intent, answer: Answer) -> None:
        try:
            await self._spool.save(Spooled(*self._name, n, intent.token, answer))
        except OSError as error:
            # The ticket is recorded in the journal even if the local disk is full.
            _log.error("%s: task %s cannot be recorded on this machine: %s", self._context.job, answer.task_id, error)

    def _unspool(self, n: int, intent: Intent) -> None:
        try:
            self._spool.drop(*self._name, n, intent.token)
        except OSError as error:
            _log.warning(
                "%s: the journal already contains the ticket that is still in %s: %s",
                self._context.job,
                self._spool.folder,
                error,
            )

    async def _submit_once(self, links: Mapping[str, str], n: int) -> Answer:
        callback, client = self._context.callback, self._context.lease.account.client
        # The address names the run, which knows the places of the works that it shares with other runs.
        address = callback.address(self._context.scope.journal.scope, self._records.key, n) if callback else None
        began = self._clock()
        try:
            view = await client.submit(self._request.endpoint, self.wire_payload(links), webhook_url=address)
        except ConnectFailed as error:
            return Answer(outcome="refused", code=NOT_DELIVERED, reason=error.what or error.message, retry="throttled")
        except InputError as error:
            return Answer(outcome="refused", code=NOT_SENT, reason=error.message, retry="final")
        except ResponseLost as error:
            return Answer(outcome="unknown", reason=error.what or error.message, retry="unknown")
        except ApiError as error:
            return Answer.of(error)
        except Exception as error:
            return Answer(outcome="unknown", reason=f"{type(error).__name__}: {error}", retry="unknown")
        self.first_view, self.accepted_at = view, (began + self._clock()) / 2
        return Answer(outcome="ticket", task_id=view.task_id, node_errors=view.node_errors)

    async def record_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        """Creates answer n, and returns the valid submission: another process may have recorded it as unknown."""
        try:
            submit = await self._write_answer(intent, n, answer)
        except JournalError as error:
            raise self._unrecorded(answer, error) from error
        self._unspool(n, intent)
        return submit

    async def _write_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        if await self._records.answer(n, answer):
            return Submit(n, intent, answer)
        # Another process has waited for this intent and recorded it as unknown; this answer resolves it.
        if answer.outcome == "ticket":
            await self.resolve(n, Resolution(outcome="adopted", task_id=answer.task_id, by="the late owner"))
        elif answer.outcome == "refused":
            await self.resolve(
                n, Resolution(outcome="forgotten", by="the previous owner, whose late claim was rejected")
            )
        submit = self._submit_number(n, await self._records.view())
        if answer.outcome == "ticket" and submit.task_id != answer.task_id:
            await self._records.late(n, answer)
            _log.error(
                "%s: task %s was accepted after its submission was abandoned; it may have been paid for "
                "but not be used. What to do: check it in RunningHub's call log.",
                self._context.job,
                answer.task_id,
            )
        return submit

    def _submit_number(self, n: int, view: JobView) -> Submit:
        return next(submit for submit in view.submits if submit.n == n)

    def _unrecorded(self, answer: Answer, error: JournalError) -> JournalError:
        if answer.outcome != "ticket":
            return error
        return JournalError(
            f"{self._context.job}: task {answer.task_id} is paid for and running, but it could not be "
            f"recorded in the journal: {error} The ticket is stored in {self._spool.folder} on this "
            "machine: run again on this machine and it is adopted; from another machine: rh-prefect jobs "
            f"adopt {self._context.job} {answer.task_id}."
        )

    async def resolve(self, n: int, resolution: Resolution) -> None:
        """Resolves unknown answer n."""
        await self._records.resolve(n, resolution)

    async def watch(self, submit: Submit) -> JobView:
        """Waits for the answer of another process.

        Only this process's clock is used, since the clocks of two machines may differ.
        """
        began, pause = self._clock(), 0.05
        limit = submit.intent.give_up + submit.intent.submit_timeout + WATCH_MARGIN
        while True:
            view = await self.read()
            current = self._submit_number(submit.n, view)
            if current.state != "open":
                return view
            outcome = self._outcome(submit.intent, watched=self._clock() - began, limit=limit)
            if outcome is not None:
                await self._records.answer(submit.n, outcome)
                return await self.read()
            await self._context.services.sleep(pause)
            pause = min(2.0, pause * 1.5)

    def _outcome(self, intent: Intent, *, watched: float, limit: float) -> Answer | None:
        if intent.token in UNPOSTED:
            return Answer(outcome="refused", code=GAVE_UP, reason="its POST was never begun", retry="throttled")
        if is_surely_dead(intent.owner):
            return Answer(
                outcome="unknown", reason="the process that posted it has ended unexpectedly", retry="unknown"
            )
        if watched > limit:
            return Answer(outcome="unknown", reason=f"no response was recorded within {watched:.0f} s", retry="unknown")
        return None
