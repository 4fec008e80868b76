"""Collects a finished job's outputs: downloads, checks, hashes and publishes them; then writes the manifest."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rh_prefect.client import Download, TaskView, discard_partial
from rh_prefect.errors import LinkExpired, OutputsExpired, ResponseLost, RunningHubError, TransportError
from rh_prefect.jobs.download_folder import part_file, remove
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.record_types import End, Link
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.manifest import Manifest, drop_record, find_published, write_record
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.requests.request import JobRequest
from rh_prefect.media.media import Media
from rh_prefect.media.probe import DownloadDefect, flaw_of
from rh_prefect.media.store import MediaStore

_log = logging.getLogger("rh_prefect")

TRIES = 5
"""How often a download that was cut is taken up again where it stopped."""

LONGEST_PAUSE = 30.0
"""The longest wait between two requests for a file that its host refuses, in seconds."""


@dataclass(slots=True)
class _Attempts:
    """How the download of one file has gone so far.

    Attributes:
        cuts: Downloads that broke off, or brought something else than the file.
        refusals: Answers in a row by which the host says that there is no such file.
        refused_since: When these began.
        seen: Hashes of the broken files that came.
    """

    cuts: int = 0
    refusals: int = 0
    refused_since: float = 0.0
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Collector:
    """Fetches the outputs of one job.

    Attributes:
        download: Fetches a link into a local file, going on where it stopped.
        query: Asks the account that paid for newer links.
        store: Where the files go.
        scope: The run, for names.
        folder: Where downloads in progress lie on this machine.
        grace: Seconds for which a file host may refuse a file before its link counts as dead.
        pause: Waits before a download is taken up again.
        clock: Monotonic seconds.
        jitter: Numbers from 0 to 1.
    """

    download: Callable[[str, Path], Awaitable[Download]]
    query: Callable[[str], Awaitable[TaskView]]
    store: MediaStore
    scope: Scope
    folder: Path
    grace: float
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    async def collect(
        self, request: JobRequest, *, job: str, key: str, submit: Submit, end: End, first_time: bool
    ) -> Result:
        """Publishes what is not published yet, and writes the manifest.

        A file that is damaged at RunningHub itself is published as such (`Media.defect`), and fetched again by each
        later call.

        Args:
            request: What was asked for.
            job: The job's full name.
            key: The job's key.
            submit: The submit that succeeded.
            end: How it ended.
            first_time: The outputs cannot have been collected before, so they are not looked up.

        Returns:
            The result, with every output in the store.

        Raises:
            OutputsExpired: The links are dead, and RunningHub gave no living ones for as long as `grace`.
            StoreError: The store refuses the files; they can still be collected by running again within a day.
        """
        name = manifests.manifest_name(request.base, end.task_id)
        known = None if first_time else await asyncio.to_thread(manifests.read, self.store, name)
        is_whole = known is not None and await asyncio.to_thread(manifests.is_whole, self.store, known)
        if known is not None and is_whole and not known.damaged:
            return known.result(self.store)
        # There is a copy to fall back on, so that nothing is gained by long waits.
        fetching = replace(self, grace=0.0) if is_whole else self
        try:
            outputs = await fetching._outputs(request, job, key, end, known=known, first_time=first_time)
        except (OutputsExpired, TransportError):
            if known is None or not is_whole:
                raise
            return known.result(self.store)
        made = _manifest(request, self.scope, job=job, key=key, submit=submit, end=end, outputs=outputs)
        await asyncio.to_thread(self._write_manifest, made)
        return made.result(self.store)

    def _write_manifest(self, made: Manifest) -> None:
        manifests.write(self.store, made)
        for index, _ in enumerate(made.outputs):
            drop_record(self.store, made.task_id, index)

    async def _outputs(
        self, request: JobRequest, job: str, key: str, end: End, *, known: Manifest | None, first_time: bool
    ) -> tuple[Media, ...]:
        end = await self._with_all_links(job, end, known)
        files = _file_links(end.links)
        names = [self._name(request, key, end, index, link) for index, link in enumerate(files, 1)]
        earlier = known.outputs if known is not None else ()
        # Links die together, so the files of one job are fetched together.
        return tuple(
            await asyncio.gather(
                *(
                    self._output(job, end, index, name, earlier=earlier, first_time=first_time)
                    for index, name in enumerate(names)
                )
            )
        )

    async def _with_all_links(self, job: str, end: End, known: Manifest | None) -> End:
        """The end with a link for each file of the manifest: the record of a recovered job has none.

        Raises:
            OutputsExpired: RunningHub has none either.
        """
        count = len(known.outputs) if known is not None else 0
        if len(_file_links(end.links)) >= count:
            return end
        newer = await self._newer_links(end)
        if len(newer) < count:
            raise _unlisted(job, end, count)
        texts = [link for link in end.links if not link.url]
        return end.model_copy(update={"links": (*newer, *texts)})

    async def _output(
        self, job: str, end: End, index: int, name: str, *, earlier: Sequence[Media], first_time: bool
    ) -> Media:
        if not first_time:
            published = await asyncio.to_thread(find_published, self.store, end.task_id, index, name, earlier)
            if published is not None:
                return published
        with part_file(self.folder, f"{end.task_id}-{index}") as part:
            flaw = await self._download(job, end, index, part)
            return await asyncio.to_thread(self._put, part, name, end.task_id, index, flaw)

    def _put(self, part: Path, name: str, task_id: str, index: int, flaw: DownloadDefect | None) -> Media:
        media = self.store.describe(part, name).model_copy(update={"defect": flaw.what if flaw else None})
        # First the record, then the file: what lies at the name is this job's only if the record says so.
        write_record(self.store, task_id, index, media)
        self.store.take(part, name, known=media)
        remove(part)
        return media

    async def _download(self, job: str, end: End, index: int, part: Path) -> DownloadDefect | None:
        """Fetches a file in spite of errors of its host; says what is wrong with it at RunningHub itself."""
        link, attempts = _file_links(end.links)[index], _Attempts()
        url, task = link.url or "", f"{job}: task {end.task_id}"
        while True:
            try:
                await self.download(url, part)
                return await self._look_at(part, link, attempts, task=task)
            except LinkExpired as error:
                await self._wait_out(attempts, job, end, error)
                url = await self._newer_link(end, index) or url
            except RunningHubError:
                attempts.cuts, attempts.refusals = attempts.cuts + 1, 0
                if attempts.cuts >= TRIES:
                    raise
                await self.pause(min(2.0**attempts.cuts / 4, 10.0))

    async def _look_at(self, part: Path, link: Link, attempts: _Attempts, *, task: str) -> DownloadDefect | None:
        """Throws away what is no such file: what comes with HTTP 200 may be a page, or half of it."""
        extension = _extension(link)
        flaw = await asyncio.to_thread(flaw_of, part, extension=extension)
        is_last = attempts.cuts == TRIES - 1
        # Broken in the same way each time, it is broken at RunningHub: it was paid for, and is kept as it is.
        if flaw is None or (is_last and flaw.sha256 in attempts.seen):
            return flaw
        attempts.seen.update({flaw.sha256} - {""})
        await asyncio.to_thread(discard_partial, part)
        raise ResponseLost(
            f"{task} was paid for, but the file host returned {flaw.what} instead of a complete "
            f"{extension} file, which was discarded. What to do: run again within a day, at no cost."
        )

    async def _wait_out(self, attempts: _Attempts, job: str, end: End, error: LinkExpired) -> None:
        """Pauses after a refusal, longer each time; a file host may not have a new file yet, or err.

        Raises:
            OutputsExpired: It has refused for long enough.
        """
        if not attempts.refusals:
            attempts.refused_since = self.clock()
        attempts.refusals += 1
        if attempts.refusals == 1:
            return  # a newer link may be all that it takes
        waited = self.clock() - attempts.refused_since
        if waited >= self.grace:
            raise _lost(job, end, error, waited=waited) from error
        longest = min(LONGEST_PAUSE, 2.0 ** min(attempts.refusals - 2, 10))
        await self.pause(longest * (0.5 + self.jitter() / 2))

    async def _newer_link(self, end: End, index: int) -> str | None:
        links = await self._newer_links(end)
        return links[index].url if index < len(links) else None

    async def _newer_links(self, end: End) -> list[Link]:
        """Asks once more for links; RunningHub may sign new ones."""
        try:
            view = await self.query(end.task_id)
        except RunningHubError as error:
            _log.info("task %s: requesting new links from RunningHub failed: %s", end.task_id, error)
            return []
        return [Link.model_validate(one.model_dump()) for one in view.outputs if one.url and one.is_usable]

    def _name(self, request: JobRequest, key: str, end: End, index: int, link: Link) -> str:
        return self.store.name_for(
            run=self.scope.run,
            flow=self.scope.flow,
            label=request.label or "",
            model=request.model,
            key=key,
            task=end.task_id,
            index=index,
            ext=_extension(link),
        )


def _file_links(links: tuple[Link, ...]) -> list[Link]:
    return [link for link in links if link.url]


def _extension(link: Link) -> str:
    return link.type or PurePosixPath(urlsplit(link.url or "").path).suffix.lower().removeprefix(".") or "bin"


def _lost(job: str, end: End, error: LinkExpired, *, waited: float) -> OutputsExpired:
    return OutputsExpired(
        f"{job}: task {end.task_id} was paid for and succeeded, but its file could not be downloaded "
        f"within {waited:.0f} s: {error.message} No new task was submitted. What to do: run it again, or "
        "`rh-prefect jobs collect`: the file can be downloaded at no cost while RunningHub stores it, "
        "which is about a day.",
        job=job,
        task_id=end.task_id,
    )


def _unlisted(job: str, end: End, count: int) -> OutputsExpired:
    return OutputsExpired(
        f"{job}: task {end.task_id} was paid for and succeeded; not all of its {count} files are in the "
        "storage, and neither its record nor RunningHub still lists its files. No new task was "
        "submitted. What to do: put the files back into the storage, or run it again within a day of the "
        "task, if RunningHub did not respond.",
        job=job,
        task_id=end.task_id,
    )


def _manifest(
    request: JobRequest, scope: Scope, *, job: str, key: str, submit: Submit, end: End, outputs: tuple[Media, ...]
) -> Manifest:
    seed = request.payload.get("seed")
    return Manifest(
        key=key,
        job=job,
        base=request.base,
        site=request.site,
        account=submit.intent.account,
        model=request.model,
        endpoint=request.endpoint,
        payload=dict(request.payload),
        address=submit.intent.address,
        flow_version=submit.intent.version,
        order=submit.intent.order,
        label=request.label,
        seed=seed if isinstance(seed, int) else None,
        graph=submit.intent.graph,
        task_id=end.task_id,
        submitted_at=submit.intent.at,
        ended_at=end.at,
        queued_seconds=end.queued_seconds,
        run_seconds=end.run_seconds,
        cost=end.cost,
        currency=end.currency,
        coins=end.coins,
        outputs=outputs,
        texts=tuple(link.text for link in end.links if link.text),
        run=dict(scope.details),
    )
