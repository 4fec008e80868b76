"""An invalid response of a file host is not published, unless each download gives the same damaged file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.client import Client, Download, RemoteOutput, TaskView
from rh_prefect.errors import InputError, LinkExpired, OutputsExpired, ResponseLost, StoreError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.events import event_of, summary_of
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.identity import text_hash
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import End, Intent, Link, ResultRecord
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.loop_thread import FILE_WORKERS, LOOP, WORKERS
from rh_prefect.works.result import Result
from rh_prefect.works.result_delivery import Delivered, ResultDelivery, extension_of_output, named_by_template
from tests.support.samples import media as samples
from tests.support.servers.scripted_server import WireServer, raw
from tests.support.world.executed_work import FileLease, services, work_of
from tests.support.world.job_records import KEY, TASK, intent, refused, ticket, write

PAGE = b"<!doctype html><html><body>Please try again later.</body></html>"
PICTURE = samples.picture("PNG")
HALF = PICTURE[: len(PICTURE) // 2]


LINK = "https://files/a.png?sign=1"
COST = Decimal("0.30")
PAUSES = (0.75, 1.5, 3.0, 6.0, 12.0, *[22.5] * 9)
"""Between the requests for a file that its host refuses, after the first request with a new link."""
GRACE = sum(PAUSES)


class FileHost:
    """A file host with given responses, and RunningHub with given links; the last one of each is repeated."""

    def __init__(self, *responses: bytes | Exception, links: Sequence[str | Exception] = (LINK,)) -> None:
        self.responses = responses
        self.links = links
        self.urls: list[str] = []
        self.queries = 0
        self.now = 0.0

    @property
    def times(self) -> int:
        return len(self.urls)

    async def download(self, url: str, to: Path) -> Download:
        data = self.responses[min(self.times, len(self.responses) - 1)]
        self.urls.append(url)
        assert not to.exists(), "an invalid file is not continued"
        if isinstance(data, Exception):
            raise data
        to.write_bytes(data)
        return Download(size=len(data))

    async def query(self, task_id: str) -> TaskView:
        link = self.links[min(self.queries, len(self.links) - 1)]
        self.queries += 1
        if isinstance(link, Exception):
            raise link
        outputs = (RemoteOutput(text="a caption"), RemoteOutput(url=link, type="png"))
        return TaskView(task_id=task_id, status="SUCCESS", outputs=outputs)

    async def pause(self, seconds: float) -> None:
        self.now += seconds


def dead() -> LinkExpired:
    return LinkExpired(
        "download of https://files/a.png: the link no longer works (HTTP 404). What to do: query the task again."
    )


SUBMIT = Submit(1, intent(label="pier", payload={"prompt": "a lighthouse", "seed": 7}), answer=ticket())


@dataclass
class Run:
    """Delivers the outputs of a task into a folder."""

    journal: FolderJournal
    folder: Path

    @property
    def store(self) -> MediaStore:
        return MediaStore(str(self.folder / "out"))

    def work(self, host: FileHost, intent: Intent = SUBMIT.intent, **facts: Any) -> Any:
        return work_of(
            JobRequest.of(intent),
            scope=FolderScope(self.journal),
            key=KEY,
            store=self.store,
            lease=FileLease(host.download, host.query),
            services=services(
                sleep=host.pause, clock=lambda: 1e6 + host.now, parts=self.folder / "parts", grace_seconds=GRACE
            ),
            **facts,
        )

    async def collect(
        self, host: FileHost, *, is_first: bool = True, links: tuple[Link, ...] = (Link(url=LINK),), take: int = 1
    ) -> Result:
        """As a run does: by the recorded result, or by a download."""
        end = End(status="SUCCESS", task_id=TASK, links=links, cost=COST)
        submit = replace(SUBMIT, intent=SUBMIT.intent.model_copy(update={"take": take}))
        work, delivery = self.work(host, submit.intent), ResultDelivery()
        record = None if is_first else await work.records.read_result(delivery.shape)
        done = None if record is None else await delivery.restore(work, record)
        if done is None:
            published = await delivery.publish(work, submit, end, first_time=is_first)
            assert isinstance(published, Delivered)
            done = await delivery.record(work, published)
        return done.result

    async def recorded(self) -> ResultRecord | None:
        return await JobRecords(self.journal, KEY).read_result()


@pytest.fixture
def run(journal: FolderJournal, tmp_path: Path) -> Run:
    return Run(journal, tmp_path)


@pytest.mark.parametrize("first", [[PAGE], [b""], [HALF], [PAGE, b"", HALF]], ids=["page", "empty", "half", "all"])
async def test_an_invalid_download_is_discarded_and_repeated(run: Run, first: list[bytes]) -> None:
    result = await run.collect(host := FileHost(*first, PICTURE))
    assert Path(result.first_output.uri).read_bytes() == PICTURE
    assert host.times == len(first) + 1
    assert host.now == sum(2.0**n / 4 for n in range(1, len(first) + 1)), "the pauses double"


@pytest.mark.parametrize(
    ("given", "link", "what"),
    [
        ([PAGE], Link(url=LINK), "a web page or a message instead of a complete png file"),
        ([b""], Link(url=LINK), "an empty file instead of a complete png file"),
        ([PAGE], Link(url="https://files/a", type="video"), "a web page or a message instead of a complete video file"),
        ([PICTURE[:-cut] for cut in range(20, 25)], Link(url=LINK), "a broken png instead of a complete png file"),
    ],
)
async def test_a_web_page_or_a_file_with_another_damage_in_each_download_is_never_published(
    run: Run, given: list[bytes], link: Link, what: str
) -> None:
    host = FileHost(*given)
    with pytest.raises(ResponseLost, match=f"task {TASK} was paid for.*{what}(?s:.*)at no cost"):
        await run.collect(host, links=(link,))
    assert host.times == 5
    assert not run.store.list()


async def test_a_file_with_the_same_damage_in_each_download_is_published_as_damaged(run: Run) -> None:
    """The file was paid for, so it is kept; result, stored result and event name the damage, and it is not done."""
    result = await run.collect(host := FileHost(HALF))
    assert Path(result.first_output.uri).read_bytes() == HALF
    assert host.times == 5
    assert result.damaged == (result.first_output,)
    assert result.first_output.defect == "a broken png"
    (stored,) = stored_result.read_all(run.store)
    assert stored_result.files_in(run.store.url, stored.outputs) == result.outputs
    assert stored_result.find(run.store, stored.base) is None, "`reuse` does not serve it"
    assert await run.recorded() is None
    event = event_of(result, prompt="", message=summary_of(result), costs=Costs())
    assert event.state == "failed"
    assert "damaged" in event.message


async def test_a_recovered_job_without_its_stored_result_is_no_result_without_files(run: Run) -> None:
    """Its record has no links: a result without an output was written, and every later call returned it."""
    with pytest.raises(OutputsExpired, match="not all of its files are in the storage"):
        await run.collect(FileHost(dead(), links=[""]), is_first=False, links=())
    again = await run.collect(FileHost(PICTURE), is_first=False, links=())
    assert again.first_output.defect is None


class ClosingHost(FileHost):
    """Sends half of a file over HTTP, without a Content-Length, and closes the connection."""

    async def download(self, url: str, to: Path) -> Download:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"
        async with WireServer(always=raw(head + HALF)) as wire, Client("k" * 32, base_url=wire.url) as client:
            self.urls.append(url)
            return await client.download(f"{wire.url}/a.png", to)


async def test_a_connection_closed_early_without_a_length_gives_a_damaged_file(run: Run) -> None:
    result = await run.collect(host := ClosingHost())
    assert result.damaged == (result.first_output,)
    assert host.times == 5


async def test_a_damaged_file_is_refused_as_an_input(run: Run) -> None:
    result = await run.collect(FileHost(HALF))
    given: list[Any] = [result, result.first_output, result.first_output.model_dump(mode="json")]
    for one in given:
        with pytest.raises(InputError, match=r"damaged \(a broken png\).*Nothing was sent"):
            models.KlingV26ProImageToVideo(image_url=one, prompt="waves", duration="5")


async def test_a_damaged_file_is_downloaded_again_by_the_next_run(run: Run) -> None:
    damaged = await run.collect(FileHost(HALF))
    assert await run.collect(host := FileHost(dead()), is_first=False) == damaged
    assert host.now == 0.0
    whole = await run.collect(FileHost(PICTURE), is_first=False)
    assert (whole.damaged, whole.first_output.uri) == ((), damaged.first_output.uri)
    assert Path(whole.first_output.uri).read_bytes() == PICTURE
    assert (await run.collect(host := FileHost(dead()), is_first=False), host.times) == (whole, 0)


async def test_links_of_files_that_only_the_result_has_are_requested(run: Run) -> None:
    """A recovered record has no links; its files that are missing in the store are not ignored."""
    first = await run.collect(FileHost(PICTURE))
    Path(first.first_output.uri).unlink()
    (before,) = stored_result.read_all(run.store)
    with pytest.raises(OutputsExpired, match="neither its record nor RunningHub lists all files"):
        await run.collect(FileHost(dead(), links=[""]), is_first=False, links=())
    assert list(stored_result.read_all(run.store)) == [before]
    again = await run.collect(host := FileHost(PICTURE), is_first=False, links=())
    assert (again.outputs, host.urls) == (first.outputs, [LINK])


RECODED = samples.picture("PNG", text="the same picture, encoded again")


@pytest.mark.parametrize("left", [b"", HALF, bytes(len(PICTURE))], ids=["deleted", "cut", "replaced"])
@pytest.mark.parametrize("given", [PICTURE, RECODED], ids=["equal bytes", "other bytes"])
async def test_a_file_that_is_not_whole_is_downloaded_again_and_then_found(run: Run, left: bytes, given: bytes) -> None:
    """The record is never changed; the stored result has the state of the newer file.

    If it cannot be downloaded, the error says what to do.
    """
    first = await run.collect(FileHost(PICTURE))
    record, file = await run.recorded(), Path(first.first_output.uri)
    file.write_bytes(left) if left else file.unlink()
    with pytest.raises(OutputsExpired, match=r"No new task was submitted.*a new run or another `take` pays for a new"):
        await run.collect(FileHost(dead()), is_first=False)
    again = await run.collect(host := FileHost(given), is_first=False)
    assert (host.times, again.first_output.uri) == (1, first.first_output.uri)
    assert Path(again.first_output.uri).read_bytes() == given
    assert again.cost == first.cost == COST
    assert await run.collect(host := FileHost(dead()), is_first=False) == again
    assert (host.times, await run.recorded()) == (0, record)


async def test_only_the_missing_one_of_several_files_is_downloaded_again(run: Run) -> None:
    links = numbered("a", "b", sign=2)
    first = await run.collect(ChangingHost(), links=links)
    Path(first.outputs[1].uri).unlink()
    again = await run.collect(host := ChangingHost(), links=links, is_first=False)
    assert (again, host.urls) == (first, [links[1].url])


@pytest.mark.parametrize(
    ("listed", "refused", "missing"),
    [
        ("ab", "", [1]),
        ("ba", "", [1]),
        ("ab", "a", [1]),
        ("ba", "a", [1]),
        ("abc", "a", [0]),
        ("cab", "", [1]),
        ("cab", "a", [1, 2]),
        ("ba", "", [0, 1]),
        ("aa", "", [0]),
        ("aa", "", [1]),
        ("aab", "", [1]),
        ("baa", "", [1, 2]),
    ],
)
async def test_links_of_a_recovered_job_may_have_another_order(
    run: Run, listed: str, refused: str, missing: list[int]
) -> None:
    """One file was in the result twice and another one lost; then an intact one was lost, if its link was refused."""
    names = sorted(listed)
    first = await run.collect(ChangingHost(), links=numbered(*names, sign=2))
    lost = {names[index] for index in missing}
    for index in missing:
        Path(first.outputs[index].uri).unlink()
    links = tuple(link for name in listed for link in numbered(name, sign=1 if name in refused else 2))
    host = ChangingHost(links)
    if lost & set(refused):
        with pytest.raises(OutputsExpired):
            await run.collect(host, links=(), is_first=False)
        for index in set(range(len(names))) - set(missing):
            assert Path(first.outputs[index].uri).read_bytes() == samples.picture("PNG", text=names[index])
        return
    again = await run.collect(host, links=(), is_first=False)
    contents = sorted(Path(media.uri).read_bytes() for media in again.outputs)
    assert contents == sorted(samples.picture("PNG", text=name) for name in names)
    for index in set(range(len(names))) - set(missing):
        assert again.outputs[index] == first.outputs[index], "an intact file is kept"
    found = await run.collect(host := ChangingHost(), links=(), is_first=False)
    assert (found, host.urls) == (again, [])


async def test_a_whole_result_is_returned_without_its_stored_result(run: Run) -> None:
    first = await run.collect(FileHost(PICTURE))
    shutil.rmtree(Path(run.store.url) / stored_result.FOLDER)
    assert (await run.collect(host := FileHost(dead()), is_first=False), host.times) == (first, 0)
    (run.folder / "moved").mkdir()
    shutil.move(run.store.url, run.folder / "moved/out")
    moved = await replace(run, folder=run.folder / "moved").collect(host := FileHost(dead()), is_first=False)
    assert (moved.first_output.sha256, host.times) == (first.first_output.sha256, 0)


async def test_a_recorded_result_is_reported_with_its_maker_and_forgotten_if_an_adopted_file_is_lost(run: Run) -> None:
    """Only a pipeline, which can make another task, waits for the files of the other work."""
    told: list[str] = []
    observer = SimpleNamespace(notify=lambda event: told.append(event.message))
    first = await run.collect(FileHost(PICTURE))
    record, work = await run.recorded(), run.work(FileHost(), observer=observer)
    assert record is not None
    file, elsewhere = first.first_output.uri, record.model_copy(update={"flow_run": "one/other", "store": "/moved"})
    for one in (record, elsewhere):
        assert await ResultDelivery().restore(work, one)
    assert told == [
        f"an earlier call of this run has made it: {file}; nothing was paid",
        f"run one/other has made it: {file}; nothing was paid",
    ]
    Path(file).unlink()
    for one, another_task, is_kept in ((record, "", True), (elsewhere, "", False), (elsewhere, "with --retake", True)):
        policy, delivery = replace(work.policy, another_task=another_task), ResultDelivery()
        assert await delivery.restore(replace(work, policy=policy), one) is None
        assert (delivery.recorded is not None) == is_kept


async def test_files_that_cannot_be_copied_from_their_storage_are_not_paid_for_again(run: Run) -> None:
    """The storage does not answer now; it may have the files."""
    (loop := run.folder / "loop").symlink_to(loop)
    file = (await run.collect(FileHost(PICTURE))).first_output.uri
    record, work, delivery = await run.recorded(), run.work(FileHost(dead())), ResultDelivery()
    assert record is not None
    Path(file).unlink()
    record = record.model_copy(update={"store": str(loop)})
    with pytest.raises(StoreError, match=f"task {TASK} was paid for, and its files are in {loop}, .* not be copied"):
        await delivery.restore(work, adopted := record.model_copy(update={"flow_run": "one/other"}))
    assert await delivery.restore(work, record) is None
    for key, answer in (("a1", refused("421")), ("b1", ticket())):
        other = replace(work, records=JobRecords(run.journal, key))
        await write(run.journal, {"intent-1": SUBMIT.intent, "answer-1": answer}, key=key)
        # A work that has a task of its own uses this task.
        with nullcontext() if answer.task_id else pytest.raises(StoreError, match="No new task was submitted"):
            assert await ResultDelivery().restore(other, adopted) is None
    end = End(status="SUCCESS", task_id=TASK, links=(Link(url=LINK),))
    with pytest.raises(OutputsExpired, match=f"were stored in {loop}, but could not be copied from there: Could not"):
        await delivery.publish(work, SUBMIT, end, first_time=False)


async def test_only_the_files_of_a_bare_machine_need_the_account_that_has_paid(run: Run) -> None:
    end = End(status="SUCCESS", task_id=TASK, links=(Link(url=LINK),))
    for is_bare in (False, True):
        work = replace(run, folder=run.folder / f"{is_bare}").work(FileHost(PICTURE))
        work.lease.account.provider.is_bare = is_bare
        await ResultDelivery().publish(work, SUBMIT, end, first_time=True)
        assert work.lease.switches == is_bare


async def test_a_second_process_returns_the_result_that_the_first_one_has_recorded(run: Run) -> None:
    """Both have downloaded the file, and the host has encoded it again meanwhile."""
    await run.collect(FileHost(PICTURE))
    record = await run.recorded()
    second = await run.collect(FileHost(RECODED))
    assert Path(second.first_output.uri).read_bytes() == RECODED
    assert await run.collect(host := FileHost(dead()), is_first=False) == second
    assert (host.times, await run.recorded()) == (0, record)


NEW = [f"https://files/a.png?sign={n}" for n in range(2, 12)]


@pytest.mark.parametrize(
    ("responses", "listed", "urls", "seconds"),
    [
        ([dead()] * 2, [ResponseLost("HTTP 502")], [LINK] * 3, PAUSES[0]),
        ([dead()] * 2 + [PAGE] + [dead()] * 2, [LINK], [LINK] * 6, PAUSES[0] + 0.5 + PAUSES[0]),
        ([dead()], NEW, [LINK, NEW[0]], 0),
        ([dead()] * 9, NEW, [LINK, *NEW[:9]], sum(PAUSES[:8])),
    ],
    ids=["a single refusal", "pauses begin again after another failure", "a new link", "changing links"],
)
async def test_a_refusal_of_a_link_only_causes_a_delay_and_a_new_link_is_used_at_once(
    run: Run, responses: Any, listed: Any, urls: list[str], seconds: float
) -> None:
    """New links that do not work do not use up the tries in milliseconds."""
    result = await run.collect(host := FileHost(*responses, PICTURE, links=listed))
    assert Path(result.first_output.uri).read_bytes() == PICTURE
    assert (host.urls, host.now) == (urls, seconds)


async def test_a_link_that_does_not_work_is_requested_for_minutes(run: Run) -> None:
    """After that, the outputs count as expired, and the message says what a later run can do at no cost."""
    host = FileHost(dead())
    with pytest.raises(
        OutputsExpired, match=r"run it again, or run `rh-prefect jobs collect`.*costs nothing"
    ) as caught:
        await run.collect(host)
    assert host.now == GRACE
    assert "pay for" not in caught.value.message
    assert caught.value.message.count("What to do:") == 1
    result = await run.collect(FileHost(PICTURE), is_first=False)
    assert Path(result.first_output.uri).read_bytes() == PICTURE


@pytest.mark.parametrize(("is_stored", "times"), [(False, 2), (True, 1)])
async def test_what_was_published_before_a_crash_is_recorded_under_its_names(
    run: Run, is_stored: bool, times: int
) -> None:
    first = await run.collect(host := FileHost(PICTURE))
    shutil.rmtree(run.folder / "journal")
    if not is_stored:
        shutil.rmtree(Path(run.store.url) / stored_result.FOLDER)
    assert (await run.collect(host, is_first=False), host.times) == (first, times)
    assert len([name for name in run.store.list() if name.endswith(".png")]) == 1
    assert await run.recorded() is not None


FILM = b"\0\0\0\x18ftypmp42"


@pytest.mark.parametrize(
    ("link", "content", "extension"),
    [
        (Link(url="https://files/a?id=7"), PICTURE, "png"),
        (Link(url="https://files/a.bin"), PICTURE, "png"),
        (Link(url="https://files/a", type="image"), PICTURE, "png"),
        (Link(url="https://files/a.webp", type="image"), PICTURE, "webp"),  # of the right kind
        (Link(url="https://files/a.webp"), PICTURE, "webp"),
        (Link(url="https://files/a", type="jpg"), PICTURE, "jpg"),
        (Link(url="https://files/a.xyz"), PICTURE, "xyz"),
        (Link(url="https://files/a.mp4"), PICTURE, "png"),
        (Link(url="https://files/a.png"), FILM, "mp4"),
        # Contents of no certain kind
        (Link(url="https://files/a.glb"), b"some words", "glb"),
        (Link(url="https://files/a.fbx"), b"\0\1", "fbx"),
        (Link(url="https://files/a.mp3"), b"glTF", "mp3"),
    ],
)
def test_the_content_gives_the_extension_that_a_link_does_not_name_or_names_wrongly(
    tmp_path: Path, link: Link, content: bytes, extension: str
) -> None:
    (tmp_path / "part").write_bytes(content)
    assert extension_of_output(link, tmp_path / "part") == extension


async def test_a_stored_result_has_the_take_the_label_and_the_seed_of_its_work_and_the_names_of_its_files(
    run: Run,
) -> None:
    """`recover` rebuilds the record of the work from it."""
    await run.collect(FileHost(PICTURE), take=3)
    (stored,) = stored_result.read_all(run.store)
    assert (stored.take, stored.label, stored.seed) == (3, "pier", 7)
    assert [file.uri for file in stored.outputs] == [f"call/run/pier-{text_hash(f'{KEY}/{TASK}', 16)}-1.png"]


async def test_two_tasks_of_one_work_have_files_with_two_names(run: Run) -> None:
    """Two machines with records of their own overwrote each other's paid file in one storage."""
    work, names = run.work(FileHost(PICTURE)), set()
    for task in ("2197942963342844553", "2197942963342844999", "2197942963342844553"):
        end = End(status="SUCCESS", task_id=task, links=(Link(url=LINK),))
        done = await ResultDelivery().publish(work, SUBMIT, end, first_time=True)
        assert isinstance(done, Delivered)
        names.add(done.record.outputs[0].uri)
    assert len(names) == 2, "another download of one task keeps its name"


def numbered(*names: str, sign: int, node: str | None = None) -> tuple[Link, ...]:
    return tuple(Link(url=f"https://files/{name}.png?sign={sign}", type="png", node_id=node) for name in names)


class ChangingHost(FileHost):
    """RunningHub lists other links in each response, and the file host refuses those with the first signature."""

    def __init__(self, *listed: tuple[Link, ...]) -> None:
        super().__init__()
        self.listed = listed

    async def download(self, url: str, to: Path) -> Download:
        self.urls.append(url)
        if not url or (url.endswith("sign=1") and "/kept" not in url):
            raise dead()
        name = url.rpartition("/")[2].partition(".")[0]
        to.write_bytes(samples.picture("PNG", text=name))
        return Download(size=to.stat().st_size)

    async def query(self, task_id: str) -> TaskView:
        links = self.listed[min(self.queries, len(self.listed) - 1)]
        self.queries += 1
        outputs = tuple(RemoteOutput(url=one.url, type=one.type, node_id=one.node_id) for one in links)
        return TaskView(task_id=task_id, status="SUCCESS", outputs=outputs)


def tokens(*names: str, sign: int) -> tuple[Link, ...]:
    return tuple(Link(url=f"https://files/view?token=/{name}.{sign}&sign={sign}") for name in names)


QUERIED = "view?file=/{}.png&sign="


def written(form: str, *names: str) -> tuple[Link, ...]:
    return tuple(Link(url=f"https://files/{form.format(name)}", type="png") for name in names)


PAIR = numbered("red", "blue", sign=1)
THREE = numbered("red", "kept", "blue", sign=1)
NODES = numbered("a", sign=1, node="7") + numbered("b", sign=1, node="9")


@pytest.mark.parametrize(
    ("first", "listed", "found"),
    [
        (THREE, numbered("red", "kept", "blue", sign=2), ["red", "kept", "blue"]),
        (THREE, numbered("blue", "red", "kept", sign=2), ["red", "kept", "blue"]),
        (THREE, numbered("kept", "blue", "red", sign=2), ["red", "kept", "blue"]),
        (written(f"{QUERIED}1", "red", "blue"), written(f"{QUERIED}2", "red", "blue"), ["red", "blue"]),
        (written(f"{QUERIED}1", "red", "blue"), written(f"{QUERIED}2", "blue", "red"), ["red", "blue"]),
        ((*written(f"{QUERIED}1", "red"), Link(url="")), written(f"{QUERIED}2", "blue", "red"), ["red", "blue"]),
        (tokens("a", "b", sign=1), tokens("c", "d", sign=2), ["c", "d"]),
        (NODES, numbered("c", sign=2, node="9") + numbered("d", sign=2, node="7"), ["d", "c"]),
        (PAIR, written("{}.png?sign=2&expires=9", "blue", "red"), ["red", "blue"]),
        (PAIR, written("{}.png?token=2", "blue", "red"), ["red", "blue"]),
        (PAIR, written("{}.png", "blue", "red"), ["red", "blue"]),
        (written("view?f=/{}.png&sign=1", "a", "b"), written("view?f=/{}.png&sign=2", "c", "a"), ["a", "c"]),
    ],
    ids=[
        *("in order", "turned", "moved", "by query", "by query, turned", "invalid at first", "tokens", "by node"),
        *("one parameter more", "another parameter", "no parameter", "another file of a query"),
    ],
)
async def test_a_new_link_is_that_of_the_same_file_in_whatever_order_it_is_listed(
    run: Run, first: tuple[Link, ...], listed: tuple[Link, ...], found: list[str]
) -> None:
    """Taken by its place in the list, one file would be published twice and another one lost."""
    result = await run.collect(ChangingHost(listed), links=first)
    contents = [Path(media.uri).read_bytes() for media in result.outputs]
    assert contents == [samples.picture("PNG", text=name) for name in found]


@pytest.mark.parametrize(
    ("first", "listed", "saved"),
    [
        (written(f"{QUERIED}1", "red", "blue"), written(f"{QUERIED}2", "red"), ["red"]),
        (numbered("kept", "a", "b", sign=1), numbered("c", "kept", "d", sign=2), ["kept"]),
    ],
    ids=["of another file", "of one of two files"],
)
async def test_a_new_link_that_may_be_another_file_s_is_not_taken(
    run: Run, first: tuple[Link, ...], listed: tuple[Link, ...], saved: list[str]
) -> None:
    with pytest.raises(OutputsExpired):
        await run.collect(ChangingHost(listed), links=first)
    store = run.store
    contents = [store.read_bytes(name) for name in store.list() if name.endswith(".png")]
    assert contents == [samples.picture("PNG", text=name) for name in saved]


class LateHost(ChangingHost):
    """The file host answers only a while after the request."""

    async def download(self, url: str, to: Path) -> Download:
        if not url.startswith("https://"):
            raise dead()
        await asyncio.sleep(0.05)
        return await super().download(url, to)


@pytest.mark.parametrize("url", ["", "/files/b.png", "http://[::1"])
async def test_an_output_beside_one_with_an_invalid_link_is_saved(run: Run, url: str) -> None:
    """The other one is downloaded as soon as RunningHub lists its link, in any order."""
    links = (*numbered("a", sign=2), Link(url=url, node_id="9"))
    with pytest.raises(OutputsExpired, match="could not be downloaded"):
        await run.collect(LateHost(links), links=links)
    (saved,) = [name for name in run.store.list() if name.endswith(".png")]
    assert run.store.read_bytes(saved) == samples.picture("PNG", text="a")
    host = LateHost(numbered("b", "a", sign=3))
    result = await run.collect(host, links=links, is_first=False)
    assert [Path(media.uri).read_bytes() for media in result.outputs] == [
        samples.picture("PNG", text=name) for name in "ab"
    ]
    assert host.urls == [links[0].url, "https://files/b.png?sign=3"]


async def test_slow_uploads_of_outputs_delay_no_record_and_slow_records_no_answer(run: Run) -> None:
    """The answers to paid requests waited for a thread until outputs were stored, and were lost with the process."""
    going, go_on = Semaphore(0), Event()

    def hold() -> None:
        going.release()
        go_on.wait()

    def publish(*output: Any) -> Media:
        hold()
        return named_by_template(*output)

    async def call(function: Callable[..., object], *args: object) -> object:
        return await asyncio.to_thread(function, *args)

    end, spool = End(status="SUCCESS", task_id=TASK, links=(Link(url=LINK),)), Spool(run.folder / "spool")
    delivery, work = ResultDelivery(publish), run.work(FileHost(PICTURE))
    calls: list[Future[Any]] = []
    try:
        calls += [LOOP.submit(delivery.publish(work, SUBMIT, end, first_time=True)) for _ in range(WORKERS)]
        for _ in range(FILE_WORKERS):
            await asyncio.to_thread(going.acquire)
        await asyncio.sleep(0.5)
        LOOP.submit(call(int)).result(60)
        calls += [LOOP.submit(call(hold)) for _ in range(WORKERS)]
        for _ in range(WORKERS):
            await asyncio.to_thread(going.acquire)
        LOOP.submit(spool.save(Spooled("run", KEY, 1, "0a" * 16, ticket()))).result(60)
    finally:
        go_on.set()
        for one in calls:
            one.result()
    assert [entry.answer.task_id for entry in spool.entries()] == [TASK]


async def test_an_output_is_saved_although_another_one_fails_at_once(run: Run) -> None:
    """The process may end with the error, and the links of all outputs expire at the same time."""

    class Host(LateHost):
        async def download(self, url: str, to: Path) -> Download:
            if "/broken" in url:
                raise StoreError("no space left")
            return await super().download(url, to)

    links = numbered("broken", "a", sign=2)
    with pytest.raises(StoreError, match="no space left"):
        await run.collect(Host(links), links=links)
    assert [name for name in run.store.list() if name.endswith(".png")]
