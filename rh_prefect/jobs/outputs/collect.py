"""Collects a finished job's outputs: downloads, checks, hashes and publishes them; then writes the manifest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from rh_prefect.client import Download, TaskView, discard_partial
from rh_prefect.client.connections import chance
from rh_prefect.client.wire.task import extension_of_link
from rh_prefect.errors import LinkExpired, OutputsExpired, ResponseLost, RunningHubError, TransportError
from rh_prefect.jobs.download_folder import part_file, remove
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.record_types import End, Link
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.manifest import Manifest, drop_record, find_published, read_pending, write_record
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.requests.request_preparation import JobRequest
from rh_prefect.media.file_types import format_named
from rh_prefect.media.media import Media
from rh_prefect.media.names import extension_of
from rh_prefect.media.probe import DownloadDefect, defect_of, facts_or_type, file_type
from rh_prefect.media.store import MediaStore
from rh_prefect.redaction import bare

_log = logging.getLogger("rh_prefect")

TRIES = 5
"""Maximum number of downloads of one file that fail or give an invalid file."""

LONGEST_PAUSE = 30.0
"""Maximum time in seconds between two requests for a file that its host refuses."""


Names: TypeAlias = Callable[[str], str]
"""Returns the name of one output in the store for an extension."""


@dataclass(slots=True)
class _Failures:
    """The failed requests for one file.

    Attributes:
        downloads: Downloads that were interrupted, or gave an invalid file.
        refusals: Consecutive responses that the link does not work.
        refused_since: The time of the first of these.
        hashes: Hashes of the invalid files.
    """

    downloads: int = 0
    refusals: int = 0
    refused_since: float = 0.0
    hashes: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Collector:
    """Downloads and publishes the outputs of one job.

    Attributes:
        download: Downloads a link into a local file; resumes an interrupted download.
        query: Queries a task on the account that paid for it, for new links.
        store: The store for the files.
        scope: The run, for the names of the files.
        folder: Local folder for unfinished downloads.
        grace: Seconds for which a file host may refuse a file before `OutputsExpired` is raised.
        pause: Waits before the next request.
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
    jitter: Callable[[], float] = chance

    async def collect(self, request: JobRequest, *, job: str, key: str, submit: Submit, first_time: bool) -> Result:
        """Publishes the outputs that are not in the store, and writes the manifest.

        A file that is damaged at RunningHub itself is published with `Media.defect`, and each later call downloads it
        again.

        Args:
            request: The request.
            job: The job's full name.
            key: The job's key.
            submit: The submission that succeeded, with its end.
            first_time: The outputs cannot have been collected before, so the store is not searched for them.

        Returns:
            The result, with every output in the store.

        Raises:
            OutputsExpired: The links do not work, and RunningHub gave no working ones within `grace`.
            StoreError: The store refuses the files; a run within a day can still collect them.
        """
        end = submit.end
        if end is None:
            raise ValueError(f"{job}: its task has not ended")
        name = manifests.manifest_name(request.base, end.task_id)
        earlier = None if first_time else await asyncio.to_thread(manifests.read, self.store, name)
        is_complete = earlier is not None and await asyncio.to_thread(manifests.has_all_files, self.store, earlier)
        if earlier is not None and is_complete and not earlier.damaged:
            return earlier.result(self.store)
        # Damaged files are in the store already, so a working link is not waited for.
        collector = replace(self, grace=0.0) if is_complete else self
        try:
            outputs = await collector._outputs(request, job, key, end, earlier=earlier, first_time=first_time)
        except (OutputsExpired, TransportError):
            if earlier is None or not is_complete:
                raise
            return earlier.result(self.store)
        manifest = _manifest(request, self.scope, job=job, key=key, submit=submit, end=end, outputs=outputs)
        await asyncio.to_thread(self._write_manifest, manifest)
        return manifest.result(self.store)

    def _write_manifest(self, manifest: Manifest) -> None:
        manifests.write(self.store, manifests.noted(self.store, manifest))
        for index, _ in enumerate(manifest.outputs):
            drop_record(self.store, manifest.task_id, index)

    async def _outputs(
        self, request: JobRequest, job: str, key: str, end: End, *, earlier: Manifest | None, first_time: bool
    ) -> tuple[Media, ...]:
        published = earlier.outputs if earlier is not None else ()
        end = await self._with_all_links(job, end, count=len(published))
        files = _file_links(end.links)
        names = [self._names(request, key, end, index) for index, _ in enumerate(files, 1)]
        # The links of a job expire at the same time, so its files are downloaded concurrently, and each one that can be
        # saved is saved before the error of another one ends the job, and with it perhaps the process.
        outputs = await asyncio.gather(
            *(
                self._output(job, end, index, name, earlier=published, first_time=first_time)
                for index, name in enumerate(names)
            ),
            return_exceptions=True,
        )
        errors = [one for one in outputs if isinstance(one, BaseException)]
        if errors:
            raise errors[0]
        return tuple(one for one in outputs if isinstance(one, Media))

    async def _with_all_links(self, job: str, end: End, *, count: int) -> End:
        """Returns the end with a link for each of `count` files: the record of a recovered job has no links.

        Raises:
            OutputsExpired: RunningHub returns no links either.
        """
        if not end.links:  # its manifest may be gone, too, and each task that succeeded has an output
            count = max(count, 1)
        if len(_file_links(end.links)) >= count:
            return end
        newer = await self._newer_links(end)
        if len(newer) < count:
            raise _without_links(job, end)
        texts = [link for link in end.links if link.url is None]
        return end.model_copy(update={"links": (*newer, *texts)})

    async def _output(
        self, job: str, end: End, index: int, names: Names, *, earlier: Sequence[Media], first_time: bool
    ) -> Media:
        if not first_time:
            published = await asyncio.to_thread(self._published, end, index, names, earlier)
            if published is not None:
                return published
        with part_file(self.folder, f"{end.task_id}-{index}") as part:
            defect = await self._download(job, end, index, part)
            name = names(await asyncio.to_thread(extension_of_output, end, index, part))
            return await asyncio.to_thread(self._publish, part, name, end.task_id, index, defect)

    def _published(self, end: End, index: int, names: Names, earlier: Sequence[Media]) -> Media | None:
        """Finds a published output; if its link names no extension, under that of a recorded file."""
        task_id, extension = end.task_id, _extension(_file_links(end.links)[index])
        recorded = [] if extension else [read_pending(self.store, task_id, index), *earlier]
        extensions = [extension] if extension else [_suffix(media.name) for media in recorded if media]
        found = (find_published(self.store, task_id, index, names(one), earlier) for one in dict.fromkeys(extensions))
        return next((media for media in found if media), None)

    def _publish(self, part: Path, name: str, task_id: str, index: int, defect: DownloadDefect | None) -> Media:
        media = self.store.describe(part, name).model_copy(update={"defect": defect.what if defect else None})
        # The record comes first: a file at this name belongs to this job only if the record lists it.
        write_record(self.store, task_id, index, media)
        self.store.take(part, name, known=media)
        remove(part)
        return media

    async def _download(self, job: str, end: End, index: int, part: Path) -> DownloadDefect | None:
        """Downloads a file, with retries; returns its defect if the file is damaged at RunningHub itself."""
        link, failures = _file_links(end.links)[index], _Failures()
        url, task = link.url or "", f"{job}: task {end.task_id}"
        while True:
            try:
                await self.download(url, part)
                return await self._check(part, link, failures, task=task)
            except LinkExpired as error:
                await self._pause_after_refusal(failures, job, end, error)
                url = await self._newer_link(end, index) or url
            except RunningHubError:
                failures.downloads, failures.refusals = failures.downloads + 1, 0
                if failures.downloads >= TRIES:
                    raise
                await self.pause(min(2.0**failures.downloads / 4, 10.0))

    async def _check(self, part: Path, link: Link, failures: _Failures, *, task: str) -> DownloadDefect | None:
        """Discards an invalid file: a response with HTTP 200 can be a web page or half a file."""
        extension = _extension(link) or link.type or ""
        defect = await asyncio.to_thread(defect_of, part, extension=extension)
        is_last = failures.downloads == TRIES - 1
        # Equal damaged bytes twice mean that the file is damaged at RunningHub. It was paid for, so it is kept.
        if defect is None or (is_last and defect.sha256 in failures.hashes):
            return defect
        failures.hashes.update({defect.sha256} - {""})
        await asyncio.to_thread(discard_partial, part)
        raise ResponseLost(
            f"{task} was paid for, but the file host returned {defect.what} instead of a complete "
            f"{f'{extension} file' if extension else 'file'}, which was discarded. What to do: run again within a day, "
            "at no cost."
        )

    async def _pause_after_refusal(self, failures: _Failures, job: str, end: End, error: LinkExpired) -> None:
        """Pauses, longer after each refusal: a file host may not have a new file yet, or refuse it by mistake.

        Raises:
            OutputsExpired: The host has refused the file for `grace` seconds.
        """
        if not failures.refusals:
            failures.refused_since = self.clock()
        failures.refusals += 1
        if failures.refusals == 1:
            return  # a new link is tried first
        waited = self.clock() - failures.refused_since
        if waited >= self.grace:
            raise _expired(job, end, error, waited=waited) from error
        longest = min(LONGEST_PAUSE, 2.0 ** min(failures.refusals - 2, 10))
        await self.pause(longest * (0.5 + self.jitter() / 2))

    async def _newer_link(self, end: End, index: int) -> str | None:
        return _renewed(_file_links(end.links), index, await self._newer_links(end))

    async def _newer_links(self, end: End) -> list[Link]:
        """Queries the task again: RunningHub may return links with a new signature."""
        try:
            view = await self.query(end.task_id)
        except RunningHubError as error:
            _log.info("task %s: requesting new links from RunningHub failed: %s", end.task_id, error)
            return []
        return [Link.model_validate(output.model_dump()) for output in view.outputs if output.url and output.is_usable]

    def _names(self, request: JobRequest, key: str, end: End, index: int) -> Names:
        def name_for(extension: str) -> str:
            return self.store.name_for(
                run=self.scope.run,
                flow=self.scope.flow,
                label=request.label or "",
                model=request.model,
                key=key,
                task=end.task_id,
                index=index,
                ext=extension,
            )

        return name_for


def _file_links(links: tuple[Link, ...]) -> list[Link]:
    return [link for link in links if link.url is not None]


def _renewed(recorded: list[Link], index: int, newer: list[Link]) -> str | None:
    """Finds the new link of a recorded output. RunningHub may list a task's outputs in another order each time.

    The address without the query decides, and of several links with one address the parameters that they have in
    common. A new address belongs to the output if no other output of its node and type has a new one. If nothing tells
    several outputs apart, their order decides.
    """
    link, pairs = recorded[index], _pairs(recorded, newer)
    if id(link) in pairs:
        return pairs[id(link)].url
    taken = {id(one) for one in pairs.values()}
    old = [one for one in recorded if id(one) not in pairs and _is_of_kind(one, link)]
    new = [one for one in newer if id(one) not in taken and _is_of_kind(one, link)]
    is_renewed = any(_is_of_kind(one, link) for one in pairs.values())
    return None if is_renewed and len(old) > 1 else _by_order(link, old, new)


def _pairs(recorded: list[Link], newer: list[Link]) -> dict[int, Link]:
    """Returns the new links of recorded ones with the same address, by the identity of the recorded one."""
    pairs: dict[int, Link] = {}
    for address in dict.fromkeys(map(_address, recorded)):
        old, new = ([one for one in links if _address(one) == address] for links in (recorded, newer))
        # Each must be the closest of the other: the new link of one output must not be taken for a missing one.
        found = {id(one): best for one in old if (best := _closest(one, new)) and _closest(best, old) is one}
        taken = {id(one) for one in found.values()}
        rest = [one for one in old if id(one) not in found], [one for one in new if id(one) not in taken]
        if len(rest[0]) == len(rest[1]):
            found |= {id(one): other for one, other in zip(*rest, strict=True)}
        pairs |= found
    return pairs


def _closest(link: Link, others: list[Link]) -> Link | None:
    """Returns the link that has most parameters in common with a link; None if that is not only one."""
    common = [len(_parameters(link) & _parameters(one)) for one in others]
    return others[common.index(max(common))] if common and common.count(max(common)) == 1 else None


def _by_order(link: Link, old: list[Link], new: list[Link]) -> str | None:
    return new[next(n for n, one in enumerate(old) if one is link)].url if len(old) == len(new) else None


def _address(link: Link) -> str:
    url = link.url or ""
    return url if url.startswith("data:") else bare(url)


def _parameters(link: Link) -> set[str]:
    return set((link.url or "").partition("?")[2].split("&"))


def _is_of_kind(one: Link, other: Link) -> bool:
    """Whether two links can be of one node and type; an invalid link may name none."""
    pairs = ((one.node_id, other.node_id), (one.type, other.type))
    return all(first == second or first is None or second is None for first, second in pairs)


_NO_EXTENSIONS = frozenset({"image", "video", "audio", "3d", "model", "text", "file", "other", "bin", "unknown"})
"""Types and endings of links that leave the extension open; the content then determines it."""


def _extension(link: Link) -> str:
    """Returns the extension that a link names, or an empty text."""
    named = (link.type or "", extension_of_link(link.url or "") or "")
    return next((one for one in named if one and one not in _NO_EXTENSIONS), "")


def extension_of_output(end: End, index: int, part: Path) -> str:
    """Returns the extension of a downloaded output: the one that its link names, if that says its kind."""
    named = _extension(_file_links(end.links)[index])
    said = format_named(f"file.{named}")
    if named and (said is None or file_type(part).kind == said[0]):
        return extension_of(named)
    found = facts_or_type(part)
    is_other = said is not None and found.kind in ("image", "video", "audio") and found.kind != said[0]
    return extension_of(found.extension if is_other or not named else named)


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def _expired(job: str, end: End, error: LinkExpired, *, waited: float) -> OutputsExpired:
    return OutputsExpired(
        f"{job}: task {end.task_id} was paid for and succeeded, but its file could not be downloaded "
        f"within {waited:.0f} s: {error.message} No new task was submitted. What to do: run it again, or "
        "`rh-prefect jobs collect`: the file can be downloaded at no cost while RunningHub stores it, "
        "which is about a day.",
        job=job,
        task_id=end.task_id,
    )


def _without_links(job: str, end: End) -> OutputsExpired:
    return OutputsExpired(
        f"{job}: task {end.task_id} was paid for and succeeded; not all of its files are in the "
        "storage, and neither its record nor RunningHub still lists its files. No new task was "
        "submitted. What to do: put the files back into the storage, or run it again within a day of the "
        "task, if RunningHub did not respond.",
        job=job,
        task_id=end.task_id,
    )


def _manifest(
    request: JobRequest,
    scope: Scope,
    *,
    job: str,
    key: str,
    submit: Submit,
    end: End,
    outputs: tuple[Media, ...],
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
