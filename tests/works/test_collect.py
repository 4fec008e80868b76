"""An invalid response of a file host is not published, unless each download gives the same damaged file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.client import Client, Download, RemoteOutput, TaskView
from rh_prefect.errors import InputError, LinkExpired, OutputsExpired, ResponseLost, StoreError
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.events import event_of, summary_of
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.job_records import JobRecords, Submit
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import End, Intent, Link, ResultRecord
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.output_collector import extension_of_output
from rh_prefect.works.output_delivery import Delivered, Delivery
from rh_prefect.works.result import Result
from tests.support.samples import media as samples
from tests.support.servers.scripted_server import WireServer, raw
from tests.support.world.executed_work import FileLease, services, work_of
from tests.support.world.job_records import KEY, TASK, intent, ticket

PAGE = b"<!doctype html><html><body>Please try again later.</body></html>"
PICTURE = samples.picture("PNG")
HALF = PICTURE[: len(PICTURE) // 2]


LINK = "https://files/a.png?sign=1"
COST = Decimal("0.30")
PAUSES = (0.75, 1.5, 3.0, 6.0, 12.0, *[22.5] * 9)
"""Between the requests for a file that its host refuses, after the first request with a new link."""
GRACE = sum(PAUSES)


class FileHost:
    """A file host with given responses, and RunningHub with given links; the last one of each is repeated.

    Args:
        given: Bytes, or the error that a request for them ends with.
        links: The link in each response of RunningHub, or its error.
    """

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
    return LinkExpired("download of https://files/a.png: the link no longer works (HTTP 404).")


def store_in(folder: Path) -> MediaStore:
    return MediaStore(str(folder / "out"))


SUBMIT = Submit(1, intent(label="pier", payload={"prompt": "a lighthouse", "seed": 7}), answer=ticket())


def work_for(host: FileHost, journal: FolderJournal, folder: Path, intent: Intent = SUBMIT.intent, **facts: Any) -> Any:
    return work_of(
        JobRequest.of(intent),
        scope=FolderScope(journal),
        key=KEY,
        store=store_in(folder),
        lease=FileLease(host.download, host.query),
        services=services(sleep=host.pause, jitter=lambda: 0.5, clock=lambda: 1e6 + host.now),
        **facts,
    )


async def collect(
    host: FileHost,
    journal: FolderJournal,
    folder: Path,
    *,
    first_time: bool = True,
    links: tuple[Link, ...] = (Link(url=LINK),),
    take: int = 1,
    **facts: Any,
) -> Result:
    """Delivers the outputs of a task, as a run does: by the recorded result, or by a download."""
    end = End(status="SUCCESS", task_id=TASK, links=links, cost=COST)
    submit = replace(SUBMIT, intent=SUBMIT.intent.model_copy(update={"take": take}))
    work = work_for(host, journal, folder, submit.intent)
    delivery = Delivery(folder / "parts", GRACE, **facts)
    record = None if first_time else await work.records.read_result(delivery.shape)
    done = None if record is None else await delivery.restore(work, record)
    if done is None:
        published = await delivery.publish(work, submit, end, first_time=first_time)
        assert isinstance(published, Delivered)
        done = await delivery.record(work, published)
    return done.result


@pytest.mark.parametrize("first", [[PAGE], [b""], [HALF], [PAGE, b"", HALF]], ids=["page", "empty", "half", "all"])
async def test_an_invalid_download_is_discarded_and_repeated(
    journal: FolderJournal, tmp_path: Path, first: list[bytes]
) -> None:
    host = FileHost(*first, PICTURE)
    result = await collect(host, journal, tmp_path)
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
    journal: FolderJournal, tmp_path: Path, given: list[bytes], link: Link, what: str
) -> None:
    host = FileHost(*given)
    with pytest.raises(ResponseLost, match=f"task {TASK} was paid for.*{what}(?s:.*)at no cost"):
        await collect(host, journal, tmp_path, links=(link,))
    assert host.times == 5
    assert not MediaStore(str(tmp_path / "out")).list()


async def test_a_file_with_the_same_damage_in_each_download_is_published_as_damaged(
    journal: FolderJournal, tmp_path: Path
) -> None:
    """The file was paid for, so it is kept; result, stored result and event name the damage, and it is not done."""
    host = FileHost(HALF)
    result = await collect(host, journal, tmp_path)
    assert Path(result.first_output.uri).read_bytes() == HALF
    assert host.times == 5
    assert result.damaged == (result.first_output,)
    assert result.first_output.defect == "a broken png"
    store = store_in(tmp_path)
    (stored,) = stored_result.read_all(store)
    assert stored_result.files_in(store.url, stored.outputs) == result.outputs
    assert stored_result.find(store, stored.base) is None, "`reuse` does not serve it"
    assert await recorded(journal) is None
    event = event_of(result, prompt="", message=summary_of(result), costs=Costs())
    assert event.state == "failed"
    assert "damaged" in event.message


async def test_a_recovered_job_without_its_stored_result_is_no_result_without_files(
    journal: FolderJournal, tmp_path: Path
) -> None:
    """Its record has no links: a result without an output was written, and every later call returned it."""
    with pytest.raises(OutputsExpired, match="not all of its files are in the storage"):
        await collect(FileHost(dead(), links=[""]), journal, tmp_path, first_time=False, links=())
    again = await collect(FileHost(PICTURE), journal, tmp_path, first_time=False, links=())
    assert again.first_output.defect is None


class ClosingHost(FileHost):
    """Sends half of a file over HTTP, without a Content-Length, and closes the connection."""

    async def download(self, url: str, to: Path) -> Download:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"
        async with WireServer(always=raw(head + HALF)) as wire, Client("k" * 32, base_url=wire.url) as client:
            self.urls.append(url)
            return await client.download(f"{wire.url}/a.png", to)


async def test_a_connection_closed_early_without_a_length_gives_a_damaged_file(
    journal: FolderJournal, tmp_path: Path
) -> None:
    """Without a length in the HTTP response, the content shows that the file is incomplete."""
    result = await collect(host := ClosingHost(), journal, tmp_path)
    assert result.damaged == (result.first_output,)
    assert host.times == 5


@pytest.mark.parametrize("given", ["media", "result", "json"])
async def test_a_damaged_file_is_refused_as_an_input(journal: FolderJournal, tmp_path: Path, given: str) -> None:
    """Half a picture is refused before anything is sent."""
    result = await collect(FileHost(HALF), journal, tmp_path)
    values: dict[str, Any] = {
        "media": result.first_output,
        "result": result,
        "json": result.first_output.model_dump(mode="json"),
    }
    with pytest.raises(InputError, match=r"damaged \(a broken png\).*Nothing was sent"):
        models.KlingV26ProImageToVideo(image_url=values[given], prompt="waves", duration="5")


async def test_a_damaged_file_is_downloaded_again_by_the_next_run(journal: FolderJournal, tmp_path: Path) -> None:
    """A file that RunningHub has repaired replaces it; a file that RunningHub has deleted does not remove it."""
    damaged = await collect(FileHost(HALF), journal, tmp_path)
    still = await collect(host := FileHost(dead()), journal, tmp_path, first_time=False)
    assert still == damaged
    assert host.now == 0.0
    whole = await collect(FileHost(PICTURE), journal, tmp_path, first_time=False)
    assert (whole.damaged, whole.first_output.uri) == ((), damaged.first_output.uri)
    assert Path(whole.first_output.uri).read_bytes() == PICTURE
    again = await collect(host := FileHost(dead()), journal, tmp_path, first_time=False)
    assert (again, host.times) == (whole, 0)


async def test_links_of_files_that_only_the_result_has_are_requested(journal: FolderJournal, tmp_path: Path) -> None:
    """A recovered record has no links; its files that are missing in the store are not ignored."""
    first = await collect(FileHost(PICTURE), journal, tmp_path)
    store = store_in(tmp_path)
    store.delete(str(store.name_of(first.first_output.uri)))
    (before,) = stored_result.read_all(store)
    with pytest.raises(OutputsExpired, match="neither its record nor RunningHub still lists its files"):
        await collect(FileHost(dead(), links=[""]), journal, tmp_path, first_time=False, links=())
    assert list(stored_result.read_all(store)) == [before]
    again = await collect(host := FileHost(PICTURE), journal, tmp_path, first_time=False, links=())
    assert (again.outputs, host.urls) == (first.outputs, [LINK])


RECODED = samples.picture("PNG", text="the same picture, encoded again")


def damage(store: MediaStore, name: str, how: str) -> None:
    if how == "deleted":
        store.delete(name)
    else:
        store.write_bytes(name, {"cut": HALF, "replaced": bytes(len(PICTURE))}[how])


@pytest.mark.parametrize("how", ["deleted", "cut", "replaced"])
@pytest.mark.parametrize("given", [PICTURE, RECODED], ids=["equal bytes", "other bytes"])
async def test_a_file_that_is_not_whole_is_downloaded_again_and_then_found(
    journal: FolderJournal, tmp_path: Path, how: str, given: bytes
) -> None:
    """The record is never changed; the stored result has the state of the newer file.

    If it cannot be downloaded, the error says what to do.
    """
    first, store = await collect(FileHost(PICTURE), journal, tmp_path), store_in(tmp_path)
    record = await recorded(journal)
    damage(store, str(store.name_of(first.first_output.uri)), how)
    with pytest.raises(OutputsExpired, match=r"No new task was submitted.*a new run or another `take` pays for a new"):
        await collect(FileHost(dead()), journal, tmp_path, first_time=False)
    again = await collect(host := FileHost(given), journal, tmp_path, first_time=False)
    assert (host.times, again.first_output.uri) == (1, first.first_output.uri)
    assert Path(again.first_output.uri).read_bytes() == given
    assert again.cost == first.cost == COST
    assert await collect(host := FileHost(dead()), journal, tmp_path, first_time=False) == again
    assert (host.times, await recorded(journal)) == (0, record)


async def test_only_the_missing_one_of_several_files_is_downloaded_again(
    journal: FolderJournal, tmp_path: Path
) -> None:
    links = numbered("a", "b", sign=2)
    first, store = await collect(ChangingHost(), journal, tmp_path, links=links), store_in(tmp_path)
    store.delete(str(store.name_of(first.outputs[1].uri)))
    again = await collect(host := ChangingHost(), journal, tmp_path, links=links, first_time=False)
    assert (again, host.urls) == (first, [links[1].url])


async def test_a_whole_result_is_returned_without_its_stored_result(journal: FolderJournal, tmp_path: Path) -> None:
    first = await collect(FileHost(PICTURE), journal, tmp_path)
    shutil.rmtree(tmp_path / "out" / stored_result.FOLDER)
    again = await collect(host := FileHost(dead()), journal, tmp_path, first_time=False)
    assert (again, host.times) == (first, 0)
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "out", tmp_path / "moved/out")
    moved = await collect(host := FileHost(dead()), journal, tmp_path / "moved", first_time=False)
    assert (moved.first_output.sha256, host.times) == (first.first_output.sha256, 0)


async def test_a_recorded_result_is_reported_with_its_maker_and_forgotten_if_an_adopted_file_is_lost(
    journal: FolderJournal, tmp_path: Path
) -> None:
    """Only a pipeline, which can make another task, waits for the files of the other work."""
    told: list[str] = []
    observer = SimpleNamespace(notify=lambda event: told.append(event.message))
    first = await collect(FileHost(PICTURE), journal, tmp_path)
    record, work = await recorded(journal), work_for(FileHost(), journal, tmp_path, observer=observer)
    assert record is not None
    file, elsewhere = first.first_output.uri, record.model_copy(update={"flow_run": "one/other", "store": "/moved"})
    for one in (record, elsewhere):
        assert await Delivery(tmp_path, GRACE).restore(work, one)
    assert told == [
        f"an earlier call of this run has made it: {file}; nothing was paid",
        f"run one/other has made it: {file}; nothing was paid",
    ]
    Path(file).unlink()
    for one, another_task, is_kept in ((record, "", True), (elsewhere, "", False), (elsewhere, "with --retake", True)):
        policy, delivery = replace(work.policy, another_task=another_task), Delivery(tmp_path, GRACE)
        assert await delivery.restore(replace(work, policy=policy), one) is None
        assert (delivery.recorded is not None) == is_kept


async def test_only_the_files_of_a_bare_machine_need_the_account_that_has_paid(
    journal: FolderJournal, tmp_path: Path
) -> None:
    end = End(status="SUCCESS", task_id=TASK, links=(Link(url=LINK),))
    for is_bare in (False, True):
        work = work_for(FileHost(PICTURE), journal, tmp_path / f"{is_bare}")
        work.lease.account.provider.is_bare = is_bare
        await Delivery(tmp_path / "parts", GRACE).publish(work, SUBMIT, end, first_time=True)
        assert work.lease.switches == is_bare


async def test_a_second_process_returns_the_result_that_the_first_one_has_recorded(
    journal: FolderJournal, tmp_path: Path
) -> None:
    """Both have downloaded the file, and the host has encoded it again meanwhile."""
    await collect(FileHost(PICTURE), journal, tmp_path)
    record = await recorded(journal)
    second = await collect(FileHost(RECODED), journal, tmp_path)
    assert Path(second.first_output.uri).read_bytes() == RECODED
    assert await collect(host := FileHost(dead()), journal, tmp_path, first_time=False) == second
    assert (host.times, await recorded(journal)) == (0, record)


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
    journal: FolderJournal, tmp_path: Path, responses: Any, listed: Any, urls: list[str], seconds: float
) -> None:
    """New links that do not work do not use up the tries in milliseconds."""
    host = FileHost(*responses, PICTURE, links=listed)
    result = await collect(host, journal, tmp_path)
    assert Path(result.first_output.uri).read_bytes() == PICTURE
    assert (host.urls, host.now) == (urls, seconds)


async def test_a_link_that_does_not_work_is_requested_for_minutes(journal: FolderJournal, tmp_path: Path) -> None:
    """After that, the outputs count as expired, and the message says what a later run can do at no cost."""
    host = FileHost(dead())
    with pytest.raises(OutputsExpired, match=r"run it again, or `rh-prefect jobs collect`.*at no cost") as caught:
        await collect(host, journal, tmp_path)
    assert host.now == GRACE
    assert "pay for" not in caught.value.message
    result = await collect(FileHost(PICTURE), journal, tmp_path, first_time=False)
    assert Path(result.first_output.uri).read_bytes() == PICTURE


@pytest.mark.parametrize(("is_stored", "times"), [(False, 2), (True, 1)])
async def test_what_was_published_before_a_crash_is_recorded_under_its_names(
    journal: FolderJournal, tmp_path: Path, is_stored: bool, times: int
) -> None:
    """The process was killed before it could record the result, or even store it."""
    store, host = store_in(tmp_path), FileHost(PICTURE)
    first = await collect(host, journal, tmp_path)
    shutil.rmtree(tmp_path / "journal")
    if not is_stored:
        shutil.rmtree(tmp_path / "out" / stored_result.FOLDER)
    again = await collect(host, journal, tmp_path, first_time=False)
    assert (again, host.times) == (first, times)
    assert len([name for name in store.list() if name.endswith(".png")]) == 1
    assert await recorded(journal) is not None


async def recorded(journal: FolderJournal) -> ResultRecord | None:
    return await JobRecords(journal, KEY).read_result()


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
    journal: FolderJournal, tmp_path: Path
) -> None:
    """`recover` rebuilds the record of the work from it."""
    await collect(FileHost(PICTURE), journal, tmp_path, take=3)
    (stored,) = stored_result.read_all(store_in(tmp_path))
    assert (stored.take, stored.label, stored.seed) == (3, "pier", 7)
    assert [file.uri for file in stored.outputs] == [f"call/run/pier-{KEY[:16]}-1.png"]


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


def queried(*names: str, sign: int) -> tuple[Link, ...]:
    return tuple(Link(url=f"https://files/view?file=/{name}.png&sign={sign}", type="png") for name in names)


def tokens(*names: str, sign: int) -> tuple[Link, ...]:
    return tuple(Link(url=f"https://files/view?token=/{name}.{sign}&sign={sign}") for name in names)


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
        (queried("red", "blue", sign=1), queried("red", "blue", sign=2), ["red", "blue"]),
        (queried("red", "blue", sign=1), queried("blue", "red", sign=2), ["red", "blue"]),
        ((*queried("red", sign=1), Link(url="")), queried("blue", "red", sign=2), ["red", "blue"]),
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
    journal: FolderJournal, tmp_path: Path, first: tuple[Link, ...], listed: tuple[Link, ...], found: list[str]
) -> None:
    """Taken by its place in the list, one file would be published twice and another one lost."""
    result = await collect(ChangingHost(listed), journal, tmp_path, links=first)
    contents = [Path(media.uri).read_bytes() for media in result.outputs]
    assert contents == [samples.picture("PNG", text=name) for name in found]


@pytest.mark.parametrize(
    ("first", "listed", "saved"),
    [
        (queried("red", "blue", sign=1), queried("red", sign=2), ["red"]),
        (numbered("kept", "a", "b", sign=1), numbered("c", "kept", "d", sign=2), ["kept"]),
    ],
    ids=["of another file", "of one of two files"],
)
async def test_a_new_link_that_may_be_another_file_s_is_not_taken(
    journal: FolderJournal, tmp_path: Path, first: tuple[Link, ...], listed: tuple[Link, ...], saved: list[str]
) -> None:
    with pytest.raises(OutputsExpired):
        await collect(ChangingHost(listed), journal, tmp_path, links=first)
    store = store_in(tmp_path)
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
async def test_an_output_beside_one_with_an_invalid_link_is_saved(
    journal: FolderJournal, tmp_path: Path, url: str
) -> None:
    """The other one is downloaded as soon as RunningHub lists its link, in any order."""
    links = (*numbered("a", sign=2), Link(url=url, node_id="9"))
    with pytest.raises(OutputsExpired, match="could not be downloaded"):
        await collect(LateHost(links), journal, tmp_path, links=links)
    (saved,) = [name for name in store_in(tmp_path).list() if name.endswith(".png")]
    assert store_in(tmp_path).read_bytes(saved) == samples.picture("PNG", text="a")
    host = LateHost(numbered("b", "a", sign=3))
    result = await collect(host, journal, tmp_path, links=links, first_time=False)
    assert [Path(media.uri).read_bytes() for media in result.outputs] == [
        samples.picture("PNG", text=name) for name in "ab"
    ]
    assert host.urls == [links[0].url, "https://files/b.png?sign=3"]


async def test_an_output_is_saved_although_another_one_fails_at_once(journal: FolderJournal, tmp_path: Path) -> None:
    """The process may end with the error, and the links of all outputs expire at the same time."""

    class Host(LateHost):
        async def download(self, url: str, to: Path) -> Download:
            if "/broken" in url:
                raise StoreError("no space left")
            return await super().download(url, to)

    links = numbered("broken", "a", sign=2)
    with pytest.raises(StoreError, match="no space left"):
        await collect(Host(links), journal, tmp_path, links=links)
    assert [name for name in store_in(tmp_path).list() if name.endswith(".png")]
