from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import uuid
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rh_prefect.errors import ConfigError, InputError, JournalError
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.journal import (
    FolderJournal,
    NotExclusive,
    UnreadableRecord,
    folder_scopes,
    run_together,
)
from tests.support.processes.forkserver import FORKS
from tests.support.servers.racing_s3 import racing_s3
from tests.support.servers.s3 import S3Server
from tests.support.world.filesystems import ClockedFiles
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
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


class TestJournalOfTests(JournalContract):
    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        return partial(MemoryJournal, MemoryPlace())


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


async def test_a_record_is_one_file_with_the_permissions_of_any_new_one(journal: FolderJournal, tmp_path: Path) -> None:
    await journal.create("abc-intent-1", record())
    await journal.create("abc-intent-1", record())
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file == tmp_path / "journal/run/abc/intent-1.json"
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert file.stat().st_mode == (tmp_path / "file").stat().st_mode
    assert {one.stat().st_mode for one in list(file.parents)[:3]} == {(tmp_path / "folder").stat().st_mode}


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


async def test_half_a_record_hides_only_its_own_job_and_half_a_note_hides_none(
    journal: FolderJournal, tmp_path: Path
) -> None:
    for key in ("ab-claim-1", "cd-intent-1", "ef-answer-1"):
        await journal.create(key, record())
    for name in ("ab/claim-1", "cd/intent-1"):
        (tmp_path / f"journal/run/{name}.json").write_text('{"tok')
    read = list[str]()
    with pytest.raises(UnreadableRecord, match=r"cd/intent-1\.json cannot be read \(it is not a JSON object\)"):
        async for view in jobs_of(journal):
            read.append(view.key)
    assert sorted(read) == ["ab", "ef"]


async def test_a_draft_of_a_killed_writer_is_not_a_record(journal: FolderJournal, tmp_path: Path) -> None:
    mine = record()
    await journal.create("abc-intent-1", mine)
    (tmp_path / "journal/run/abc/.intent-2.json.0123").write_text('{"tok')
    assert await journal.job("abc") == {"abc-intent-1": mine}
    assert await journal.create("abc-intent-2", mine)


@pytest.mark.parametrize("kind", ["folder", "memory"])
async def test_files_of_other_programs_are_no_records(journal: FolderJournal, tmp_path: Path, kind: str) -> None:
    """One copy by a sync client stopped each command that reads all jobs."""
    if kind == "memory":
        journal = FolderJournal(f"memory://{uuid.uuid4().hex}", scope="run")
    mine = record()
    await journal.create("abc-intent-1", mine)
    for name in ("intent-1 (conflicted copy).json", "Thumbs.db", "@eaDir/intent-1.json"):
        fs, path = fsspec.core.url_to_fs(f"{journal.url}/run/abc/{name}", auto_mkdir=True)
        await asyncio.to_thread(fs.pipe_file, path, b"no record")
    assert await journal.job("abc") == {"abc-intent-1": mine}
    assert [(job, [*texts]) async for job, texts in journal.jobs()] == [("abc", ["abc-intent-1"])]
    assert [name async for name in journal.names()] == ["abc-intent-1"]


@pytest.mark.parametrize("folder", ["a[1]", "a*b"])
async def test_a_place_with_the_characters_of_a_pattern_is_read(folder: str) -> None:
    journal, mine = FolderJournal(f"memory://{uuid.uuid4().hex}/{folder}", scope="run"), record()
    assert await journal.create("abc-intent-1", mine)
    assert not await journal.create("abc-intent-1", record())
    assert await journal.read("abc-intent-1") == mine
    assert await journal.job("abc") == {"abc-intent-1": mine}


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


class _OfOneClient(MemoryFileSystem):
    """Creates exclusively among the calls of one client only."""

    protocol = "ofoneclient"
    store: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lock, self._created = threading.Lock(), set[str]()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self._lock:
            if path in self._created:
                raise FileExistsError(path)
            self._created.add(path)
            super().pipe_file(path, value, mode="overwrite", **kwargs)


@pytest.mark.parametrize("kind", [_Careless, _LooksFirst, _OfOneClient])
async def test_a_store_without_exclusive_creation_is_refused(kind: type[MemoryFileSystem]) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    journal = FolderJournal(f"{kind.protocol}://here/journal", scope="run")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"two processes.*RH_RECORDS") as caught:
            await journal.create("abc-intent-1", record())
        assert caught.value.is_permanent
    assert await journal.read("abc-intent-1") is None
    assert kind.store == {}


async def test_creations_in_memory_are_exclusive_however_slow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = MemoryFileSystem.exists

    def slow(self: MemoryFileSystem, path: str, **options: Any) -> bool:
        found: bool = exists(self, path, **options)
        time.sleep(0.001)
        return found

    monkeypatch.setattr(MemoryFileSystem, "exists", slow)
    await FolderJournal(f"memory://{uuid.uuid4().hex}", scope="run").check()


async def test_a_server_where_two_of_sixteen_creations_at_once_win_is_refused() -> None:
    with racing_s3(winners=2) as s3:
        journal = FolderJournal("s3://bucket/journal", scope="run", options=s3.options)
        with pytest.raises(NotExclusive, match="two processes could create the same record"):
            await journal.check()
        assert s3.objects == {}


async def test_a_place_that_is_refused_is_named_with_its_host() -> None:
    with pytest.raises(NotExclusive, match=r"stored at twowriters://files\.example/records: .* Nothing was paid\."):
        await FolderJournal("twowriters://user:secret@files.example/records", scope="run").check()


async def test_a_place_is_proved_once_in_a_process_by_races_of_two_clients() -> None:
    with racing_s3() as s3:
        for folder in ("one", "two"):
            journal = FolderJournal(f"s3://bucket/{folder}", scope="run", options=s3.options)
            await journal.check()
            assert await journal.create("abc-intent-1", record())
            assert not await journal.create("abc-intent-1", record())
        assert [number for path, number in s3.writes.items() if "probe" in path] == [17] * 3
        assert sorted(s3.objects) == [f"/bucket/{folder}/run/abc/intent-1.json" for folder in ("one", "two")]


async def test_a_conflict_with_another_creation_is_tried_again() -> None:
    with racing_s3(conflicts=1) as s3:
        journal = FolderJournal("s3://bucket/conflicts", scope="run", options=s3.options)
        assert await journal.create("abc-intent-1", record())
        assert await journal.read("abc-intent-1") is not None
        assert not await journal.create("abc-intent-1", record())
        assert s3.writes["/bucket/conflicts/run/abc/intent-1.json"] == 3


async def test_a_conflict_that_does_not_end_is_an_error_after_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, slept, begun = FolderJournal(f"memory://{uuid.uuid4().hex}", scope="run"), list[float](), time.monotonic()
    await journal.check()
    tries, error = count(), OSError("try again")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": 409}}  # type: ignore[attr-defined]  # as s3fs raises it

    def conflict(*_: object, **__: object) -> None:
        assert next(tries) < 10_000, "it is tried for ever"
        raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", conflict)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: begun + sum(slept))
    with pytest.raises(JournalError, match="try again"):
        await journal.create("abc-intent-1", record())
    assert 30 <= sum(slept) < 31


async def test_a_record_that_may_exist_or_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that counts as absent, or as written, would be paid for twice or never found again."""
    journal = FolderJournal(f"memory://{uuid.uuid4().hex}", scope="run")
    await journal.create("abc-intent-1", record())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no right")

    for name in ("cat_file", "pipe_file"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    for work in (journal.read("abc-intent-1"), journal.job("abc"), journal.create("abc-intent-2", record())):
        with pytest.raises(JournalError, match="no right"):
            await work


async def test_a_reader_sees_new_records_although_the_library_caches_listings() -> None:
    writer, of_job, of_names = (FolderJournal(f"{ClockedFiles.protocol}://seen", scope="run") for _ in range(3))
    for n in (1, 2):
        assert await writer.create(f"abc-intent-{n}", record())
        assert len(await of_job.job("abc")) == n
        assert len([name async for name in of_names.names()]) == n


async def test_calls_run_together_up_to_a_number_and_an_error_cancels_the_others() -> None:
    running, most, cancelled = set[str](), 0, list[str]()

    async def call(name: str) -> str:
        nonlocal most
        running.add(name)
        most = max(most, len(running))
        try:
            await asyncio.sleep(1 if name == "slow" else 0)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            cancelled.append(name)
            raise
        running.discard(name)
        if name == "bad":
            raise KeyError(name)
        return name

    assert sorted([name async for name in run_together(map(call, "abcde"), at_once=2)]) == [*"abcde"]
    assert most == 2
    with pytest.raises(KeyError):
        assert [name async for name in run_together(map(call, ("slow", "bad")), at_once=2)] == []
    assert cancelled == ["slow"]


async def test_a_folder_below_a_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    journal = FolderJournal(str(tmp_path / "file/journal"), scope="run")
    for work in (journal.create("abc-intent-1", record()), journal.read("abc-intent-1"), journal.job("abc")):
        with pytest.raises(JournalError, match=f"{tmp_path}/file/journal.*What to do") as caught:
            await work
        assert caught.value.is_permanent
    with pytest.raises(JournalError):
        folder_scopes(str(tmp_path / "file/journal"), options={})


@pytest.mark.s3
async def test_a_read_only_key_or_a_missing_bucket_is_an_error_without_secrets(s3: S3Server) -> None:
    journal = FolderJournal(s3.url("journal"), scope="run", options=s3.reader_options)
    nowhere = FolderJournal("s3://no-such-bucket/journal", scope="run", options=s3.options)
    for one, words in ((journal, "What to do"), (nowhere, "no-such-bucket")):
        with pytest.raises(JournalError, match=words) as caught:
            await one.create("abc-intent-1", record())
        assert not any(secret in f"{caught.value!r} {one!r}" for secret in s3.secrets)


async def test_missing_credentials_are_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    journal = FolderJournal(s3.url("journal"), scope="run", options={"endpoint_url": s3.endpoint})
    with pytest.raises(JournalError, match="credentials"):
        await journal.create("abc-intent-1", record())


def test_a_url_of_an_unknown_scheme_or_with_a_signature_is_an_error_and_a_user_is_not_shown() -> None:
    with pytest.raises(JournalError, match="nowhere://"):
        FolderJournal("nowhere://bucket/journal", scope="run")
    with pytest.raises(ConfigError, match="has a signature or a token"):
        FolderJournal("memory://bucket/journal?sig=canary", scope="run")
    journal = FolderJournal("memory://someone:canary@place/journal", scope="run")
    assert "canary" not in f"{journal!r} {journal.url}"
    services = [FolderJournal("memory://place/journal", scope="run", options={"where": where}) for where in "ab"]
    assert repr(services[0]) != repr(services[1]), "their buckets have one name"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"'])
async def test_an_invalid_record_is_named_and_stops_its_job(journal: FolderJournal, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "journal/run/abc"
    folder.mkdir(parents=True)
    (folder / "intent-1.json").write_text(text)
    for work in (journal.job("abc"), journal.create("abc-intent-1", record())):
        with pytest.raises(JournalError, match=r"abc/intent-1\.json") as caught:
            await work
        assert caught.value.is_permanent


async def test_all_spellings_of_a_local_folder_are_one_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one is unchanged when the working folder changes."""
    monkeypatch.chdir(tmp_path)
    here, mine = tmp_path / "journal", record()
    journals = [FolderJournal(url, scope="run") for url in ("journal", str(here), f"file://{here}", f"local://{here}")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await journals[0].create("abc-intent-1", mine)
    assert [await one.read("abc-intent-1") for one in journals] == [mine] * len(journals)


@pytest.mark.parametrize("scope", ["", "a/b", "..", ".hidden", "a b", "-x", "x" * 201])
def test_a_scope_with_an_invalid_name_is_refused(tmp_path: Path, scope: str) -> None:
    with pytest.raises(InputError, match="not a valid scope name"):
        FolderJournal(str(tmp_path), scope=scope)


@pytest.mark.parametrize("kind", ["folder", "memory"])
async def test_scopes_are_listed(tmp_path: Path, kind: str) -> None:
    place = str(tmp_path) if kind == "folder" else f"memory://{uuid.uuid4().hex}"
    assert folder_scopes(f"{place}/none", options={}) == []
    longest = "x" * 200
    for scope in (longest, "b", "a"):
        await FolderJournal(place, scope=scope).create("abc-intent-1", record())
    fs, path = fsspec.core.url_to_fs(f"{place}/run-1 copy/attempt-1.json", auto_mkdir=True)
    await asyncio.to_thread(fs.pipe_file, path, b"of another program")
    assert folder_scopes(place, options={}) == ["a", "b", longest]
