from __future__ import annotations

import asyncio
import errno
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rh_prefect.errors import InputError, JournalError
from rh_prefect.works.journal.journal import FolderJournal, NotExclusive, folder_scopes
from tests.support.processes.forkserver import FORKS
from tests.support.servers.racing_s3 import racing_s3
from tests.support.servers.s3 import S3Server
from tests.works.journal.journal_contract import JournalContract, OpenJournal, record
from tests.works.journal.racer import LONG, create_at_once

PROCESSES = 32


class TestLocalFolder(JournalContract):
    @pytest.fixture
    def open_journal(self, tmp_path: Path) -> OpenJournal:
        return lambda scope: FolderJournal(str(tmp_path), scope=scope)


class TestMemory(JournalContract):
    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        place = f"memory://{uuid.uuid4().hex}"
        return lambda scope: FolderJournal(place, scope=scope)


@pytest.mark.s3
class TestS3(JournalContract):
    @pytest.fixture
    def open_journal(self, s3: S3Server) -> OpenJournal:
        place = s3.url("journal")
        return lambda scope: FolderJournal(place, scope=scope, options=s3.options)


async def test_one_of_32_concurrent_processes_creates_a_complete_record(tmp_path: Path) -> None:
    start, won = FORKS.Barrier(PROCESSES), FORKS.SimpleQueue()
    processes = [FORKS.Process(target=create_at_once, args=(str(tmp_path), n, start, won)) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    winner = won.get()
    assert won.empty()
    there = await FolderJournal(str(tmp_path), scope="run").read("abc-intent-1")
    assert there == {"token": f"t{winner}", "text": str(winner) + LONG}


async def test_a_reader_never_reads_an_incomplete_record(journal: FolderJournal) -> None:
    written = {f"abc-intent-{n}": record(text=LONG) for n in range(1, 101)}
    is_over = threading.Event()
    seen = 0

    async def read() -> None:
        nonlocal seen
        while not is_over.is_set():
            for key, there in (await journal.job("abc")).items():
                assert there == written[key]
                seen += 1

    reader = asyncio.create_task(asyncio.to_thread(asyncio.run, read()))
    for key, value in written.items():
        assert await journal.create(key, value)
    is_over.set()
    await reader
    assert seen


async def test_creating_a_record_leaves_no_other_file(journal: FolderJournal, tmp_path: Path) -> None:
    await journal.create("abc-intent-1", record())
    await journal.create("abc-intent-1", record())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["intent-1.json"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see which file is flushed")
async def test_a_record_and_its_name_are_flushed_to_disk(
    journal: FolderJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, bool]] = []
    record_file, real = tmp_path / "journal/run/abc/intent-1.json", os.fsync

    def flush(descriptor: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), record_file.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    await journal.create("abc-intent-1", record())
    assert [has_its_name for _, has_its_name in flushed] == [False, True, True, True, True]
    assert [path for path, _ in flushed[1:]] == [str(folder) for folder in list(record_file.parents)[:4]]
    flushed.clear()
    await journal.create("abc-answer-1", record())
    assert [path for path, _ in flushed[1:]] == [str(record_file.parent)]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
async def test_a_file_system_without_hard_links_is_refused_with_what_to_do(
    journal: FolderJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A submission needs its record first, so that nothing is paid on exFAT."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(NotExclusive, match=r"no hard links.*was not submitted.*RH_STATE_DIR and RH_RECORDS"):
        await journal.create("abc-intent-1", record())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_draft_of_a_killed_writer_is_not_a_record(journal: FolderJournal, tmp_path: Path) -> None:
    mine = record()
    await journal.create("abc-intent-1", mine)
    (tmp_path / "journal/run/abc/.intent-2.json.0123").write_text('{"tok')
    assert await journal.job("abc") == {"abc-intent-1": mine}
    assert await journal.create("abc-intent-2", mine)


class _Careless(MemoryFileSystem):
    """Ignores `mode`, like an S3 server without conditional writes."""

    protocol = "careless"
    store: dict[str, Any] = {}  # noqa: RUF012  # fsspec's own way

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


class _LooksFirst(MemoryFileSystem):
    """Has fsspec's own exclusive creation, which checks and then writes."""

    protocol = "looksfirst"
    store: dict[str, Any] = {}  # noqa: RUF012
    pipe_file = fsspec.AbstractFileSystem.pipe_file


@pytest.mark.parametrize("kind", [_Careless, _LooksFirst])
async def test_a_store_without_exclusive_creation_is_refused(kind: type[MemoryFileSystem]) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    journal = FolderJournal(f"{kind.protocol}://here/journal", scope="run")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"two processes.*RH_RECORDS"):
            await journal.create("abc-intent-1", record())
    assert await journal.read("abc-intent-1") is None
    assert kind.store == {}


async def test_a_server_where_two_of_sixteen_creations_at_once_win_is_refused() -> None:
    with racing_s3(winners=2) as s3:
        journal = FolderJournal("s3://bucket/journal", scope="run", options=s3.options)
        with pytest.raises(NotExclusive, match="two processes could create the same record"):
            await journal.check()
        assert s3.objects == {}


async def test_a_place_is_proved_once_in_a_process_by_races_of_two_clients() -> None:
    with racing_s3() as s3:
        for scope in ("run", "other"):
            journal = FolderJournal("s3://bucket/journal", scope=scope, options=s3.options)
            await journal.check()
            assert await journal.create("abc-intent-1", record())
            assert not await journal.create("abc-intent-1", record())
        probes = [number for path, number in s3.writes.items() if "probe" in path]
        assert probes == [17] * 3
        assert sorted(s3.objects) == [
            "/bucket/journal/other/abc/intent-1.json",
            "/bucket/journal/run/abc/intent-1.json",
        ]


async def test_a_conflict_with_another_creation_is_tried_again() -> None:
    with racing_s3(conflicts=1) as s3:
        journal = FolderJournal("s3://bucket/conflicts", scope="run", options=s3.options)
        assert await journal.create("abc-intent-1", record())
        assert await journal.read("abc-intent-1") is not None
        assert not await journal.create("abc-intent-1", record())
        assert s3.writes["/bucket/conflicts/run/abc/intent-1.json"] == 3


async def test_a_folder_below_a_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    journal = FolderJournal(str(tmp_path / "file/journal"), scope="run")
    for work in (journal.create("abc-intent-1", record()), journal.read("abc-intent-1"), journal.job("abc")):
        with pytest.raises(JournalError, match=f"{tmp_path}/file/journal.*What to do") as caught:
            await work
        assert caught.value.is_permanent
    with pytest.raises(JournalError):
        folder_scopes(str(tmp_path / "file/journal"))


@pytest.mark.s3
async def test_a_read_only_key_is_an_error_that_does_not_contain_the_key(s3: S3Server) -> None:
    journal = FolderJournal(s3.url("journal"), scope="run", options=s3.reader_options)
    with pytest.raises(JournalError, match="What to do") as caught:
        await journal.create("abc-intent-1", record())
    assert not any(secret in f"{caught.value!r} {journal!r}" for secret in s3.secrets)


@pytest.mark.s3
async def test_a_missing_bucket_is_an_error(s3: S3Server) -> None:
    journal = FolderJournal("s3://no-such-bucket/journal", scope="run", options=s3.options)
    with pytest.raises(JournalError, match="no-such-bucket"):
        await journal.create("abc-intent-1", record())


async def test_missing_credentials_are_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    journal = FolderJournal(s3.url("journal"), scope="run", options={"endpoint_url": s3.endpoint})
    with pytest.raises(JournalError, match="credentials"):
        await journal.create("abc-intent-1", record())


def test_an_unknown_url_scheme_is_an_error() -> None:
    with pytest.raises(JournalError, match="nowhere://"):
        FolderJournal("nowhere://bucket/journal", scope="run")


async def test_a_user_in_the_url_is_not_shown() -> None:
    journal = FolderJournal("memory://someone:canary@place/journal", scope="run")
    assert "canary" not in f"{journal!r} {journal.url}"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"'])
async def test_an_invalid_record_is_named_and_stops_its_job(journal: FolderJournal, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "journal/run/abc"
    folder.mkdir(parents=True)
    (folder / "intent-1.json").write_text(text)
    with pytest.raises(JournalError, match=r"abc/intent-1\.json"):
        await journal.job("abc")
    with pytest.raises(JournalError, match=r"abc/intent-1\.json"):
        await journal.create("abc-intent-1", record())


async def test_a_relative_folder_is_unchanged_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal, mine = FolderJournal("journal", scope="run"), record()
    await journal.create("abc-intent-1", mine)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert await journal.read("abc-intent-1") == mine


@pytest.mark.parametrize("url", ["file://{}", "{}", "local://{}"])
async def test_all_spellings_of_a_local_folder_are_one_journal(tmp_path: Path, url: str) -> None:
    mine = record()
    await FolderJournal(str(tmp_path), scope="run").create("abc-intent-1", mine)
    assert await FolderJournal(url.format(tmp_path), scope="run").read("abc-intent-1") == mine


@pytest.mark.parametrize("scope", ["", "a/b", "..", ".hidden", "a b", "-x", "x" * 201])
def test_a_scope_with_an_invalid_name_is_refused(tmp_path: Path, scope: str) -> None:
    with pytest.raises(InputError, match="not a valid scope name"):
        FolderJournal(str(tmp_path), scope=scope)


async def test_scopes_are_listed(tmp_path: Path) -> None:
    assert folder_scopes(str(tmp_path / "none")) == []
    longest = "x" * 200
    for scope in (longest, "b", "a"):
        await FolderJournal(str(tmp_path), scope=scope).create("abc-intent-1", record())
    assert folder_scopes(str(tmp_path)) == ["a", "b", longest]
