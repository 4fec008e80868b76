"""`ResultDelivery`: finds the recorded result of a work, or has its outputs downloaded, and records the result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rh_prefect.errors import JournalError, OutputsExpired, RunningHubError, StoreError, TransportError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.events import event_of, summary_of
from rh_prefect.works.journal.costs_and_budget import Costs, costs_of
from rh_prefect.works.journal.identity import text_hash
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import End, Intent, ResultRecord
from rh_prefect.works.lifecycle import Invalid
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.output_download import OutputDownload, Publish
from rh_prefect.works.result import Result
from rh_prefect.works.stored_result import StoredResult
from rh_prefect.works.work_in_progress import Work

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Delivered:
    """The result of a work, as it is recorded and as a caller receives it."""

    record: ResultRecord  # What is recorded
    result: Result  # The result for the caller, with the addresses of its files
    # The records of the submission whose outputs were downloaded now; None if the files were in the storage already
    downloaded: tuple[Intent, End] | None = None


def named_by_template(work: Work, end: End, part: Path, index: int, extension: str) -> Media:
    """Publishes an output of a job under the name that the storage's template gives it."""
    name = work.store.name_for(
        run=work.scope.run,
        flow=work.scope.flow,
        label=work.request.label or "",
        model=work.request.model,
        # With the task: records in two places may have one work each, whose files are in one storage.
        key=text_hash(f"{work.key}/{end.task_id}", 16),
        task=end.task_id,
        index=index + 1,
        ext=extension,
    )
    return work.store.move(part, name).at(name)


@dataclass(slots=True)
class ResultDelivery:
    """Downloads, publishes and records the outputs of one work."""

    publish_file: Publish = named_by_template  # Publishes an output
    parse: Callable[[str], Any] | None = None  # Reads the answer; raises `ValueError` if it has another shape
    shape: str = ""  # What `parse` asks for; empty without `parse`
    # Whether the files of a recorded result belong in the caller's store; otherwise they stay in the recorded one
    is_here: Callable[[ResultRecord, MediaStore], bool] = lambda _record, _store: True
    advice: str = (
        "run it again, or run `rh-prefect jobs collect`: RunningHub stores the file for about a day, and the download "
        "costs nothing. After that, a new run or another `take` pays for a new result; so does this run after "
        "`rh-prefect jobs mark-lost` for this job."
    )  # What to do if a file cannot be downloaded
    recorded: ResultRecord | None = None  # The recorded result, whose files may be missing
    unread: RunningHubError | None = None  # Why its files could not be copied from the storage that has them

    async def restore(self, work: Work, record: ResultRecord) -> Delivered | None:
        """Returns the recorded result, and notifies the observer; None if files must be downloaded."""
        self.recorded = record
        done = await self._find(work, record)
        if done is None and record.is_adopted:
            # The files may be there, and this work would pay for a new result, unless it has a task of its own.
            if self.unread is not None and not any(one.may_give_result for one in (await work.records.view()).submits):
                raise _uncopied(work, record, self.unread)
            if not work.policy.another_task:
                # The files of the other work's result are lost; this work makes a new result, except in a pipeline.
                self.recorded = None
        if done is not None:
            if record.n > 1 and work.costs is None and not done.result.reused:  # earlier tasks may have cost something
                with suppress(RunningHubError):  # only for the message: the result exists
                    view = await work.records.view()
                    own = tuple(filter(work.policy.is_own, view.submits))
                    work.spending.replace_job(replace(view, submits=own))
            self._notify(work, done, is_found=True)
        return done

    async def adopt(self, work: Work) -> ResultRecord | None:
        """Records the newest stored result of an equal request as this work's result; None if there is none."""
        found = await LOOP.in_file_thread(stored_result.find_equal, work.store, work.request, take=work.policy.take)
        if found is None:
            return None
        # The other job's name in place of a flow run marks the result as adopted: it is not a payment of this run.
        record = ResultRecord.model_validate({**dict(found), "flow_run": found.job})
        return record if await work.records.create_result(record) else await work.records.read_result()

    async def publish(self, work: Work, submit: Submit, end: End, *, first_time: bool) -> Delivered | Invalid:
        """Downloads and publishes an ended submission's outputs; returns `Invalid` if `parse` refuses the answer."""
        record = ResultRecord(
            task_id=end.task_id,
            n=submit.n,
            flow_run=submit.intent.flow_run,
            base=work.request.base,
            texts=tuple(link.text for link in end.links if link.text),
            **end.charged,
        )
        collecting = self._collect(work, submit.intent, end, record, first_time=first_time)
        found = await work.services.stores.storing(work.run_attempt, work.store, work.job, collecting)
        try:
            value = self.parse("\n\n".join(found.texts)) if self.parse is not None else None
        except ValueError as error:
            return Invalid(str(error))
        record = ResultRecord.model_validate({**dict(found), "value": value})
        downloaded = None if isinstance(found, StoredResult) else (submit.intent, end)
        return Delivered(record, self._result(work, record, record, work.store.url), downloaded)

    async def record(self, work: Work, done: Delivered) -> Delivered:
        """Writes the stored result into the store, then the record `result`; returns an earlier record if one exists.

        A result with a damaged file is not recorded, so that a later run downloads the file again.
        """
        storing = self._store(work, done)
        # Before the record: once the work is done, no later call would write the stored result.
        await work.services.stores.storing(work.run_attempt, work.store, work.job, storing)
        if self.recorded is not None:
            done = replace(done, record=self.recorded)
        elif not done.record.is_damaged and (first := await self._record(work, done.record)) is not None:
            done = await self._find(work, first) or done
        self._notify(work, done)
        return done

    async def _collect(
        self, work: Work, intent: Intent, end: End, record: ResultRecord, *, first_time: bool
    ) -> ResultRecord:
        """Publishes the outputs that are not in the store; returns the record with all outputs."""
        store, earlier = work.store, None
        if not first_time:
            earlier = await LOOP.in_file_thread(stored_result.read, store, stored_result.name_of(record))
        known = [one for one in (earlier, self.recorded) if one is not None and one.task_id == end.task_id]
        there = await LOOP.in_file_thread(stored_result.whole_files, store, known)
        # If the store has all files, though damaged ones, a link that does not work is not tried again for long.
        is_complete = earlier is not None and await LOOP.in_file_thread(stored_result.has_all_files, store, earlier)
        if earlier is not None and is_complete and not earlier.is_damaged:
            return earlier
        grace = 0.0 if is_complete else work.services.grace_seconds
        advice = self.advice
        if self.recorded is not None and self.unread is not None:
            advice += f" Its files were stored in {self.recorded.store}, but {_reason(self.unread)}"
        download = OutputDownload(work, intent, end, self.publish_file, grace, advice)
        try:
            outputs = await download.run(there=there, count=max(len(one.outputs) for one in (record, *known)))
        except (OutputsExpired, TransportError):
            if earlier is None or not is_complete:
                raise
            return earlier
        record = record.model_copy(update={"outputs": outputs})
        return await LOOP.in_file_thread(stored_result.stamped, store, record)

    async def _find(self, work: Work, record: ResultRecord) -> Delivered | None:
        """Returns the recorded result if it belongs to another store or all of its files exist; None otherwise."""
        if not self.is_here(record, work.store):
            return Delivered(record, self._result(work, record, record, record.store))
        there = await LOOP.in_file_thread(stored_result.whole, work.store, record)
        if there is None and record.store != work.store.url:
            try:
                there = await LOOP.in_file_thread(stored_result.copy_from_its_place, work.store, record)
            except RunningHubError as error:
                self.unread = error
        return None if there is None else Delivered(record, self._result(work, record, there, work.store.url))

    def _result(self, work: Work, record: ResultRecord, files: ResultRecord, url: str) -> Result:
        reused = record.flow_run != work.policy.run  # the stored result of another work names the run of that work
        return stored_result.as_result(files, work.request, job=work.job, url=url, reused=reused)

    async def _store(self, work: Work, done: Delivered) -> ResultRecord:
        if done.downloaded is not None:
            stored = _stored(work, *done.downloaded, done.record)
            await LOOP.in_file_thread(stored_result.write, work.store, stored)
        return done.record

    async def _record(self, work: Work, record: ResultRecord) -> ResultRecord | None:
        """Creates the record `result` and returns None; if another process was first, returns its record."""
        try:
            is_first = await work.records.create_result(record, self.shape)
            return None if is_first else await work.records.read_result(self.shape)
        except JournalError as error:
            # A later call finds the stored result and its files, and records the result then.
            _log.warning("%s: the result of task %s is not recorded yet: %s", work.job, record.task_id, error)
            return None

    def _notify(self, work: Work, done: Delivered, *, is_found: bool = False) -> None:
        """Tells the observer the result, and who has paid for it: this call, an earlier call or another run."""
        result, record = done.result, done.record
        costs = Costs() if result.reused else work.spending.spent_on(work.key) or costs_of(record)
        message = summary_of(result.model_copy(update={"reused": True}) if is_found else result)
        if is_found or result.reused:
            maker = f"run {record.flow_run}" if result.reused else "an earlier call of this run"
            message = f"{maker} has made it: {message.removeprefix('done: ')}; nothing was paid"
        sources = tuple(one.source for one in work.request.inputs.values())
        event = event_of(result, message=message, prompt=work.request.prompt, costs=costs, sources=sources)
        work.observer.notify(event)


def _reason(error: RunningHubError) -> str:
    """Returns why files could not be copied, as the end of a sentence, without advice."""
    return f"could not be copied from there: {error.message.partition(' What to do: ')[0]}"


def _uncopied(work: Work, record: ResultRecord, error: RunningHubError) -> StoreError:
    """Returns the error for a result of another work whose files may exist, but could not be copied."""
    advice = error.message.partition(" What to do: ")[2].rstrip(".") or "run again"
    return StoreError(
        f"{work.policy.title}: task {record.task_id} was paid for, and its files are in {record.store}, but "
        f"{_reason(error)} No new task was submitted. What to do: {advice}; or "
        f"{work.policy.another_task or 'pass another take for a new result'}.",
        is_permanent=isinstance(error, StoreError) and error.is_permanent,
    )


def _stored(work: Work, intent: Intent, end: End, record: ResultRecord) -> StoredResult:
    seed = work.request.payload.get("seed")
    return StoredResult(
        **dict(record),
        **{**intent.requested, "label": work.request.label},
        job=work.job,
        seed=seed if isinstance(seed, int) else None,
        submitted_at=intent.at,
        ended_at=end.at,
        run=dict(work.scope.details),
    )
