"""Brings a finished job's outputs home: downloaded, checked, hashed, and published in one step; then the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from rh_prefect.client import Download, TaskView, discard_partial
from rh_prefect.errors import LinkExpired, NoAnswer, OutputsLost, RunningHubError, TaskNotFound
from rh_prefect.jobs.ledger.records import End, Link, Submit
from rh_prefect.jobs.ledger.scope import Scope
from rh_prefect.jobs.orders.order import Order
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.manifest import Manifest
from rh_prefect.jobs.outputs.parts import part_file, remove
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.scratch import kept_here
from rh_prefect.media.arrival import flaw_of
from rh_prefect.media.ref import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.private_files import make_folder

TRIES = 5
"""How often a download that was cut is taken up again where it stopped."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Fetches the outputs of one job.

    Attributes:
        download: Fetches a link into a local file, going on where it stopped.
        query: Asks the account that paid once more for links that have died.
        store: Where the files go.
        scope: The run, for names.
        folder: Where downloads in progress lie on this machine.
        pause: Waits before a download is taken up again.
    """

    download: Callable[[str, Path], Awaitable[Download]]
    query: Callable[[str], Awaitable[TaskView]]
    store: MediaStore
    scope: Scope
    folder: Path
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def collect(self, order: Order, *, job: str, key: str, submit: Submit, end: End, first_time: bool) -> Result:
        """Publishes what is not published yet, and writes the manifest.

        Args:
            order: What was asked for.
            job: The job's full name.
            key: The job's key.
            submit: The submit that succeeded.
            end: How it ended.
            first_time: Nobody can have collected it before, so that need not be looked up.

        Returns:
            The result, with every output in the store.

        Raises:
            OutputsLost: The links are dead, and RunningHub gave no living ones.
            StoreError: The store refuses the files; they can still be collected by running again within a day.
        """
        name = manifests.manifest_name(order.base, end.task_id)
        known = None if first_time else await asyncio.to_thread(manifests.read, self.store, name)
        if known is not None and not await asyncio.to_thread(manifests.is_whole, self.store, known):
            known = None  # a file was deleted since; its link may still live
        if known is None:
            outputs = await self._outputs(order, job, key, end, first_time=first_time)
            known = _manifest(order, self.scope, job=job, key=key, submit=submit, end=end, outputs=outputs)
            await asyncio.to_thread(manifests.write, self.store, known)
        return known.result(self.store)

    async def _outputs(self, order: Order, job: str, key: str, end: End, *, first_time: bool) -> tuple[Media, ...]:
        files = _file_links(end.links)
        names = [self._name(order, key, end, index, link) for index, link in enumerate(files, 1)]
        # Links die together, so the files of one job are fetched together.
        return tuple(
            await asyncio.gather(
                *(self._output(job, end, index, name, first_time=first_time) for index, name in enumerate(names))
            )
        )

    async def _output(self, job: str, end: End, index: int, name: str, *, first_time: bool) -> Media:
        if not first_time and await asyncio.to_thread(self.store.exists, name):
            return await asyncio.to_thread(self._published, name)
        with part_file(self.folder, f"{end.task_id}-{index}") as part:
            await self._download(job, end, index, part)
            media = await asyncio.to_thread(self.store.take, part, name)
            remove(part)
        return media

    async def _download(self, job: str, end: End, index: int, part: Path) -> None:
        link, seen = _file_links(end.links)[index], set[str]()
        url = link.url or ""
        for tried in range(1, TRIES + 1):
            is_last = tried == TRIES
            try:
                await self.download(url, part)
                await self._look_at(part, link, seen, task=f"{job}: task {end.task_id}", is_last=is_last)
            except LinkExpired:
                url = await self._living_link(job, end, index, dead=url)
            except RunningHubError:
                if is_last:
                    raise
                await self.pause(min(2.0**tried / 4, 10.0))
            else:
                return
        raise _lost(job, end)

    async def _look_at(self, part: Path, link: Link, seen: set[str], *, task: str, is_last: bool) -> None:
        """Throws away what is no such file: what comes with HTTP 200 may be a page, or half of it."""
        extension = _extension(link)
        flaw = await asyncio.to_thread(flaw_of, part, extension=extension)
        # Broken in the same way each time, it is broken at RunningHub: it was paid for, and is kept as it is.
        if flaw is None or (is_last and flaw.sha256 in seen):
            return
        seen.update({flaw.sha256} - {""})
        await asyncio.to_thread(discard_partial, part)
        raise NoAnswer(
            f"{task} was paid for, and its file host gave {flaw.what} in place of a whole {extension}; that was thrown "
            "away. What to do: run again within a day; nothing is paid for it."
        )

    async def _living_link(self, job: str, end: End, index: int, *, dead: str) -> str:
        """Asks once more for links; RunningHub may sign new ones."""
        try:
            view = await self.query(end.task_id)
        except TaskNotFound as error:
            raise _lost(job, end) from error
        urls = [output.url for output in view.outputs if output.url]
        if index >= len(urls) or urls[index] == dead:
            raise _lost(job, end)
        return urls[index]

    def _name(self, order: Order, key: str, end: End, index: int, link: Link) -> str:
        return self.store.name_for(
            run=self.scope.run,
            flow=self.scope.flow,
            label=order.label or "",
            model=order.model,
            key=key[:12],
            task=end.task_id,
            index=index,
            ext=_extension(link),
        )

    def _published(self, name: str) -> Media:
        """Describes a file that an earlier run published and did not live to describe."""
        with kept_here(self.folder):
            make_folder(self.folder)
            with TemporaryDirectory(dir=self.folder) as folder:
                local = Path(folder) / PurePosixPath(name).name
                with self.store.open(name) as reader, local.open("wb") as writer:
                    while block := reader.read(1 << 20):
                        writer.write(block)
                return self.store.describe(local, name)


def _file_links(links: tuple[Link, ...]) -> list[Link]:
    return [link for link in links if link.url]


def _extension(link: Link) -> str:
    suffix = PurePosixPath(urlsplit(link.url or "").path).suffix.lower().removeprefix(".")
    return link.type or suffix or "bin"


def _lost(job: str, end: End) -> OutputsLost:
    return OutputsLost(
        f"{job}: task {end.task_id} was paid for and succeeded, but its files' links are dead (they live for a day). "
        "No new task was submitted. What to do: look for the files in RunningHub's history on the site; "
        "to pay for the job once more, run it in a new flow run.",
        job=job,
        task_id=end.task_id,
    )


def _manifest(
    order: Order, scope: Scope, *, job: str, key: str, submit: Submit, end: End, outputs: tuple[Media, ...]
) -> Manifest:
    seed = order.payload.get("seed")
    return Manifest(
        key=key,
        job=job,
        base=order.base,
        site=order.site,
        account=submit.intent.account,
        model=order.model,
        endpoint=order.endpoint,
        payload=dict(order.payload),
        label=order.label,
        seed=seed if isinstance(seed, int) else None,
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
