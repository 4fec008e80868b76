"""What a file host gives in place of a file is not published, unless it never gives anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.client import Download, TaskView
from rh_prefect.errors import NoAnswer
from rh_prefect.jobs.ledger.journal import FolderJournal
from rh_prefect.jobs.ledger.records import End, Link, Submit
from rh_prefect.jobs.ledger.scope import FolderScope
from rh_prefect.jobs.orders.order import Order
from rh_prefect.jobs.outputs.collect import TRIES, Collector
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.media.store import MediaStore
from tests.support import samples
from tests.support.job_records import KEY, TASK, intent, ticket

PAGE = b"<!doctype html><html><body>Please try again later.</body></html>"
PICTURE = samples.picture("PNG")
HALF = PICTURE[: len(PICTURE) // 2]


class FileHost:
    """Gives one thing after another, and the last one again and again."""

    def __init__(self, *given: bytes) -> None:
        self.given = given
        self.times = 0

    async def download(self, url: str, to: Path) -> Download:
        data = self.given[min(self.times, len(self.given) - 1)]
        self.times += 1
        to.write_bytes(data)
        return Download(size=len(data))


async def collect(host: FileHost, journal: FolderJournal, folder: Path) -> Result:
    async def query(task_id: str) -> TaskView:
        raise AssertionError("the link lives")

    async def no_pause(seconds: float) -> None:
        pass

    collector = Collector(
        host.download, query, MediaStore(str(folder / "out")), FolderScope(journal), folder / "parts", no_pause
    )
    end = End(status="SUCCESS", task_id=TASK, links=(Link(url="https://files/a.png?sign=1"),))
    submit = Submit(1, intent(), answer=ticket())
    return await collector.collect(
        Order.of(submit.intent), job=f"run/{KEY}", key=KEY, submit=submit, end=end, first_time=True
    )


@pytest.mark.parametrize("first", [[PAGE], [b""], [HALF], [PAGE, b"", HALF]], ids=["page", "empty", "half", "all"])
async def test_what_is_no_such_file_is_thrown_away_and_asked_for_again(
    journal: FolderJournal, tmp_path: Path, first: list[bytes]
) -> None:
    host = FileHost(*first, PICTURE)
    result = await collect(host, journal, tmp_path)
    assert Path(result.media.uri).read_bytes() == PICTURE
    assert host.times == len(first) + 1


@pytest.mark.parametrize(("given", "what"), [(PAGE, "a web page or a message"), (b"", "an empty file")])
async def test_a_page_is_never_published_however_often_it_comes(
    journal: FolderJournal, tmp_path: Path, given: bytes, what: str
) -> None:
    host = FileHost(given)
    with pytest.raises(NoAnswer, match=f"task {TASK} was paid for.*{what} in place of a whole png.*nothing is paid"):
        await collect(host, journal, tmp_path)
    assert host.times == TRIES
    assert not MediaStore(str(tmp_path / "out")).list()


async def test_a_file_that_is_broken_in_the_same_way_each_time_is_kept_as_it_is(
    journal: FolderJournal, tmp_path: Path
) -> None:
    host = FileHost(HALF)
    result = await collect(host, journal, tmp_path)
    assert Path(result.media.uri).read_bytes() == HALF
    assert host.times == TRIES


async def test_a_file_that_is_broken_in_another_way_each_time_is_not(journal: FolderJournal, tmp_path: Path) -> None:
    host = FileHost(*(PICTURE[:-cut] for cut in range(20, 20 + TRIES)))
    with pytest.raises(NoAnswer, match="a broken png in place of a whole png"):
        await collect(host, journal, tmp_path)
    assert not MediaStore(str(tmp_path / "out")).list()
