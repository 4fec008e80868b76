from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rh_prefect.errors import InputError
from rh_prefect.local_files import PART
from rh_prefect.works.journal.identity import work_id
from rh_prefect.works.journal.journal import LONGEST_SCOPE, FolderJournal
from rh_prefect.works.journal.record_types import Answer
from rh_prefect.works.journal.spool import Spool, Spooled
from tests.support.processes.in_fork import in_fork
from tests.support.world.job_records import KEY, ticket

TOKEN = "0a" * 16
ENTRY = Spooled("run", KEY, 1, TOKEN, ticket())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "not" / "yet" / "there")


@pytest.mark.parametrize(
    "other",
    [
        ("other", KEY, 1, TOKEN),
        ("run", "other", 1, TOKEN),
        ("run", KEY, 2, TOKEN),
        ("run", KEY, 11, TOKEN),
        ("run", KEY, 1, "0b" * 16),
        ("run", KEY, 1, TOKEN[:-1]),
    ],
)
def test_an_answer_is_found_by_another_process_for_its_own_submission_only(
    spool: Spool, other: tuple[str, str, int, str]
) -> None:
    assert spool.get(*other) is None
    spool.put(ENTRY)
    assert (Spool(spool.folder).get(*ENTRY.submission), spool.get(*other)) == (ENTRY.answer, None)


def test_the_longest_scope_and_job_key_have_a_file_name(spool: Spool) -> None:
    """A scope of over 220 characters had no place for its tickets, which was found out after the payment."""
    entry = replace(ENTRY, scope="s" * LONGEST_SCOPE, key=work_id("b" * 40, 1), n=999)
    spool.put(entry)
    assert list(spool.entries()) == [entry]
    with pytest.raises(InputError, match="up to 200"):
        FolderJournal("memory://journal", scope="s" * (LONGEST_SCOPE + 1))


def test_a_dropped_answer_is_removed_and_dropping_it_again_has_no_effect(spool: Spool) -> None:
    spool.drop("run", KEY, 1, TOKEN)
    spool.put(ENTRY)
    spool.drop("run", KEY, 1, TOKEN)
    spool.drop("run", KEY, 1, TOKEN)
    assert spool.get("run", KEY, 1, TOKEN) is None


def test_all_spooled_answers_are_listed(spool: Spool) -> None:
    assert list(spool.entries()) == []
    entries = [ENTRY, Spooled("run", KEY, 2, TOKEN, ticket("2")), Spooled("a.b_c-d", "x--y", 1, TOKEN, ticket("3"))]
    for entry in entries:
        spool.put(entry)
    assert sorted(spool.entries(), key=repr) == sorted(entries, key=repr)


def test_a_spooled_file_is_complete_and_no_other_file_remains(spool: Spool) -> None:
    spool.put(ENTRY)
    spool.put(Spooled("run", KEY, 1, TOKEN, ticket("9")))
    assert [path.name for path in spool.folder.iterdir()] == [f"run--{KEY}--1--{TOKEN[:12]}.json"]
    assert spool.get("run", KEY, 1, TOKEN) is not None


def test_an_answer_whose_file_has_no_name_yet_is_read(spool: Spool) -> None:
    spool.put(ENTRY)
    (file,) = spool.folder.iterdir()
    file.rename(spool.folder / f".0123456789ab{PART}")  # its writer was killed here
    (spool.folder / f".ba9876543210{PART}").write_text('{"scope": "run", "key')
    assert spool.get("run", KEY, 1, TOKEN) == ENTRY.answer
    assert spool.get("run", KEY, 2, TOKEN) is None
    assert list(spool.entries()) == [ENTRY]
    spool.drop("run", KEY, 1, TOKEN)
    assert list(spool.entries()) == []


def test_an_answer_whose_draft_another_process_drops_is_written(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process took the draft for that of a killed writer, whose submission then failed."""
    flush, dropped = os.fsync, list[int]()

    def drop_once(file: int) -> None:
        flush(file)
        if not dropped:
            dropped.append(file)
            Spool(spool.folder).drop(*ENTRY.submission)

    monkeypatch.setattr(os, "fsync", drop_once)
    spool.put(ENTRY)
    assert dropped
    assert list(spool.entries()) == [ENTRY]


def test_a_spooled_file_does_not_contain_the_api_key(spool: Spool) -> None:
    spool.put(ENTRY)
    logged = json.loads(next(spool.folder.iterdir()).read_text())
    assert set(logged) == {"scope", "key", "n", "token", "answer"}
    assert set(logged["answer"]) == set(Answer.model_fields)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"scope": "run"}', '{"scope": "run", "key": "k", "n": 1, "token": "t", "answer": 5}']
)
def test_an_unreadable_file_is_logged_and_skipped(spool: Spool, text: str, caplog: pytest.LogCaptureFixture) -> None:
    spool.put(ENTRY)
    spool.put(Spooled("run", KEY, 2, TOKEN, ticket()))
    (spool.folder / f"run--{KEY}--1--{TOKEN[:12]}.json").write_text(text)
    assert spool.get("run", KEY, 1, TOKEN) is None
    assert "paid task" in caplog.text
    assert [entry.n for entry in spool.entries()] == [2]


def test_a_read_only_folder_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file" / "spool").put(ENTRY)
    assert Spool(tmp_path / "file" / "spool").get("run", KEY, 1, TOKEN) is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see which file is flushed")
def test_a_ticket_is_flushed_with_its_folder_and_every_new_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, folder, real = list[tuple[Path, bool]](), tmp_path / "not" / "yet", os.fsync

    def flush(file: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{file}").readlink(), any(folder.glob("*.json"))))
        real(file)

    monkeypatch.setattr(os, "fsync", flush)
    spool = Spool(folder)
    spool.put(ENTRY)
    (draft, has_its_name), *folders = flushed
    assert (draft.parent, has_its_name) == (folder, False)
    assert folders == [(folder, True), (folder.parent, True), (tmp_path, True)]
    flushed.clear()
    spool.put(ENTRY)
    assert flushed[1:] == [(folder, True)]


def test_a_ticket_is_flushed_off_the_loops_thread_while_there_are_threads(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk does not stop the loop; at the end of a process no thread starts any more."""
    threads, real = set[int](), os.fsync

    def flush(file: int) -> None:
        threads.add(threading.get_ident())
        real(file)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(os, "fsync", flush)
    asyncio.run(spool.save(ENTRY))
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    monkeypatch.setattr(threading.Thread, "start", refuse)

    def saves_in_its_own_thread() -> bool:
        asyncio.run(spool.save(replace(ENTRY, n=2)))
        return threading.get_ident() in threads

    assert in_fork(saves_in_its_own_thread), "a forked process has no thread for answers yet"
    assert [entry.n for entry in spool.entries()] == [1, 2]
