"""Finds the recorded result of a work, or downloads, checks and publishes its outputs, and records the result."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rh_prefect.client import discard_partial
from rh_prefect.client.wire.task import extension_of_link
from rh_prefect.errors import (
    JournalError,
    LinkExpired,
    OutputsExpired,
    ResponseLost,
    RunningHubError,
    StoreError,
    TransportError,
)
from rh_prefect.media.file_name_templates import extension_of
from rh_prefect.media.file_types_and_completeness import format_named
from rh_prefect.media.media import Media
from rh_prefect.media.probe import DownloadDefect, defect_of, facts_or_type, file_type
from rh_prefect.media.store import MediaStore
from rh_prefect.redaction import bare
from rh_prefect.works import stored_result
from rh_prefect.works.accounts.limiter import pause_seconds
from rh_prefect.works.events import event_of, summary_of
from rh_prefect.works.journal.costs_and_budget import Costs, costs_of
from rh_prefect.works.journal.identity import text_hash
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import End, Intent, Link, ResultRecord
from rh_prefect.works.lifecycle import Invalid
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from rh_prefect.works.store_checks_and_download_folder import part_file, remove
from rh_prefect.works.stored_result import StoredResult
from rh_prefect.works.work_in_progress import Work

_log = logging.getLogger("rh_prefect")

TRIES = 5
"""Maximum number of failed downloads of one file; a download of an invalid file counts as failed."""

Publish: TypeAlias = Callable[[Work, End, Path, int, str], Media]
"""Moves a downloaded output into the store. The last arguments are the output's index, from 0, and its extension;
the `uri` of the returned `Media` is its name in the store.
"""


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


@dataclass(slots=True)
class _Failures:
    """The failed requests for one file."""

    downloads: int = 0  # Downloads that were interrupted, or gave an invalid file
    refusals: int = 0  # Consecutive responses that the link does not work
    refused_since: float = field(init=False)  # The time of the first of these
    hashes: set[str] = field(default_factory=set)  # Hashes of the invalid files


@dataclass(slots=True)
class _Files:
    """The files of a task, by index, and the missing indexes."""

    found: dict[int, Media]
    missing: list[int]
    held: Counter[str]  # Hashes of files in the store whose link is not known; empty if the order is that of the links

    def place(self, number: int, digest: str) -> int | None:
        """Returns the index of the file that a link gave, by default the link's own; None if the store has the file."""
        if self.held[digest]:  # of two equal files, the second one is another output
            self.held[digest] -= 1
            return None
        if number in self.missing:
            self.missing.remove(number)
            return number
        return self.missing.pop(0) if self.missing else None


@dataclass(frozen=True, slots=True)
class OutputDownload:
    """Downloads and publishes the outputs of one task."""

    work: Work
    intent: Intent  # The record of its submission, which names the account that paid
    end: End  # The record of the task's end
    publish: Publish
    grace: float  # Seconds for which a file host may refuse a file before `OutputsExpired` is raised
    advice: str  # What to do if a file cannot be downloaded

    async def run(self, *, there: Mapping[int, Media], count: int) -> tuple[Media, ...]:
        """Publishes the outputs that are not in the store, and returns all files, named as in the store.

        If RunningHub has only a damaged file, it is published with a `Media.defect`. `there` contains the files in the
        store, by index. `count` is the known number of files; if fewer links are recorded, the task is queried.
        """
        if self.work.lease.account.provider.is_bare:  # files of a machine are behind the key that paid for them
            await self.work.lease.switch_to(self.intent)
        links = [link for link in self.end.links if link.url is not None]
        if not self.end.links:  # its stored result may also be gone, and each task that succeeded has an output
            count = max(count, 1)
        held: Counter[str] = Counter()
        if len(links) < count:
            # The order may be another one, so the contents determine which links are those of the files in the store.
            links, held = await self._queried_links(count), Counter(one.sha256 for one in there.values())
        files = _Files(dict(there), [index for index, _ in enumerate(links) if index not in there], held)
        errors = await self._save(links, tuple(files.missing), files)
        if held and files.missing:
            errors += await self._save(links, sorted(there), files)
        if errors and len(files.found) < len(links):
            raise errors[0]
        return tuple(files.found[index] for index in sorted(files.found))

    async def _save(self, links: list[Link], numbers: Iterable[int], files: _Files) -> list[BaseException]:
        """Downloads the links with these indexes, and publishes those of missing files; returns the errors."""
        # The links of a job expire at the same time, so its files are downloaded concurrently, and each one that can be
        # saved is saved before the error of another one ends the job, and with it perhaps the process.
        saving = (self._output(links, number, files) for number in numbers)
        return [one for one in await asyncio.gather(*saving, return_exceptions=True) if one is not None]

    async def _queried_links(self, count: int) -> list[Link]:
        """Queries the task for links for at least `count` files."""
        links = await self._newer_links()
        if len(links) < count:
            raise self._error(
                "not all of its files are in the storage, and neither its record nor RunningHub lists all files. "
                f"No new task was submitted. What to do: put the files back into the storage, or {self.advice}"
            )
        return links

    async def _output(self, links: list[Link], number: int, files: _Files) -> None:
        with part_file(self.work.services.parts, f"{self.end.task_id}-{number}") as part:
            defect = await self._download(links, number, part)
            digest = await LOOP.in_file_thread(_sha256, part) if files.held else ""
            if (index := files.place(number, digest)) is not None:
                extension = await LOOP.in_file_thread(extension_of_output, links[number], part)
                media = await LOOP.in_file_thread(self.publish, self.work, self.end, part, index, extension)
                files.found[index] = media.model_copy(update={"defect": defect.what if defect else None})
            await asyncio.to_thread(remove, part)

    async def _download(self, links: list[Link], index: int, part: Path) -> DownloadDefect | None:
        """Downloads a file, with retries; returns the defect if the file is damaged at RunningHub itself."""
        url, failures = links[index].url or "", _Failures()
        while True:
            try:
                await self.work.lease.account.provider.download(url, part)
                return await self._check(part, links[index], failures)
            except LinkExpired as error:
                await self._pause_after_refusal(failures, error)
                url = _renewed(links, index, await self._newer_links()) or url
            except RunningHubError:
                failures.downloads, failures.refusals = failures.downloads + 1, 0
                if failures.downloads >= TRIES:
                    raise
                await self.work.services.sleep(2.0**failures.downloads / 4)

    async def _check(self, part: Path, link: Link, failures: _Failures) -> DownloadDefect | None:
        """Checks a file, which may be incomplete or a web page; deletes an invalid file, and raises an error.

        If RunningHub itself has only a damaged file, the file is kept, and its defect is returned.
        """
        extension = _extension(link) or link.type or ""
        defect = await LOOP.in_file_thread(defect_of, part, extension=extension)
        is_last = failures.downloads == TRIES - 1
        # Equal damaged bytes twice mean that the file is damaged at RunningHub. It was paid for, so it is kept.
        if defect is None or (is_last and defect.sha256 in failures.hashes):
            return defect
        failures.hashes |= {defect.sha256} - {""}
        await asyncio.to_thread(discard_partial, part)
        raise ResponseLost(
            f"{self.work.policy.job}: task {self.end.task_id} was paid for, but the file host returned {defect.what} "
            f"instead of a complete {f'{extension} file' if extension else 'file'}; this response was discarded. "
            "What to do: run again within a day, at no cost."
        )

    async def _pause_after_refusal(self, failures: _Failures, error: LinkExpired) -> None:
        """Pauses, longer after each refusal; a file host may not have a new file yet, or may refuse it by mistake."""
        services = self.work.services
        if not failures.refusals:
            failures.refused_since = services.clock()
        failures.refusals += 1
        if failures.refusals == 1:
            return  # a new link is tried first
        waited = services.clock() - failures.refused_since
        if waited >= self.grace:
            reason = error.message.partition(" What to do: ")[0]
            raise self._error(
                f"its file could not be downloaded within {waited:.0f} s: {reason} No new task was submitted. "
                f"What to do: {self.advice}"
            ) from error
        await services.sleep(pause_seconds(failures.refusals - 2, jitter=services.jitter()))

    async def _newer_links(self) -> list[Link]:
        """Queries the task again, for links with new signatures; returns no links if the query fails."""
        try:
            # Only this needs the account: links take no key, and published outputs need no link.
            account = await self.work.lease.switch_to(self.intent)
            view = await account.provider.query(self.end.task_id)
        except RunningHubError as error:
            _log.info("task %s: requesting new links from RunningHub failed: %s", self.end.task_id, error)
            return []
        return [Link.model_validate(output.model_dump()) for output in view.outputs if output.url and output.is_usable]

    def _error(self, what: str) -> OutputsExpired:
        job, task_id = self.work.policy.job, self.end.task_id
        return OutputsExpired(f"{job}: task {task_id} was paid for and succeeded, but {what}", job=job, task_id=task_id)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _renewed(recorded: list[Link], index: int, newer: list[Link]) -> str | None:
    """Returns the new link of a recorded output. RunningHub may list outputs in a different order each time.

    Links are compared by their addresses without the query, then by the number of equal query parameters. A new address
    belongs to the output if no other output of its node and type has a new address. Otherwise the order decides.
    """
    link, pairs = recorded[index], _pairs(recorded, newer)
    if id(link) in pairs:
        return pairs[id(link)].url
    taken = {id(one) for one in pairs.values()}
    old = [one for one in recorded if id(one) not in pairs and _is_of_kind(one, link)]
    new = [one for one in newer if id(one) not in taken and _is_of_kind(one, link)]
    is_renewed = any(_is_of_kind(one, link) for one in pairs.values())
    if len(old) != len(new) or (is_renewed and len(old) > 1):
        return None
    return new[next(n for n, one in enumerate(old) if one is link)].url


def _pairs(recorded: list[Link], newer: list[Link]) -> dict[int, Link]:
    """Pairs recorded links with new links to the same address; returns new links by the `id` of the recorded link."""
    pairs: dict[int, Link] = {}
    for address in dict.fromkeys(map(_address, recorded)):
        old, new = ([one for one in links if _address(one) == address] for links in (recorded, newer))
        # Each must be the closest of the other: the new link of one output must not be taken for a missing one.
        found = {id(one): best for one in old if (best := _closest(one, new)) and _closest(best, old) is one}
        taken = {id(one) for one in found.values()}
        rest = [one for one in old if id(one) not in found], [one for one in new if id(one) not in taken]
        if len(rest[0]) == len(rest[1]):
            found |= {id(one): other for one, other in zip(*rest)}
        pairs |= found
    return pairs


def _closest(link: Link, others: list[Link]) -> Link | None:
    """Returns the other link that shares the most URL parameters with a link; None if several links tie."""
    common = [len(_parameters(link) & _parameters(one)) for one in others]
    return others[common.index(max(common))] if common and common.count(max(common)) == 1 else None


def _address(link: Link) -> str:
    url = link.url or ""
    return url if url.startswith("data:") else bare(url)


def _parameters(link: Link) -> set[str]:
    return set((link.url or "").partition("?")[2].split("&"))


def _is_of_kind(one: Link, other: Link) -> bool:
    """Returns whether two links can have the same node and type; a missing node or type matches any other."""
    pairs = ((one.node_id, other.node_id), (one.type, other.type))
    return all(first == second or first is None or second is None for first, second in pairs)


_NO_EXTENSIONS = frozenset({"image", "video", "audio", "3d", "model", "text", "file", "other", "bin", "unknown"})
"""Types and endings of links that do not determine the format; the content then determines the extension."""


def _extension(link: Link) -> str:
    """Returns the extension that a link names, or an empty string."""
    named = (link.type or "", extension_of_link(link.url or "") or "")
    return next((one for one in named if one and one not in _NO_EXTENSIONS), "")


def extension_of_output(link: Link, part: Path) -> str:
    """Returns an output's extension: the link's extension, or another one if that does not fit the content."""
    named = _extension(link)
    said = format_named(f"file.{named}")
    if named and (said is None or file_type(part).kind in (said.kinds[0], "3d", "text", "other")):
        return extension_of(named)
    return extension_of(facts_or_type(part).extension)
