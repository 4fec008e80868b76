"""Where a batch's state lies on places that cannot create a file exclusively, and on drivers of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from rh_prefect.errors import ConfigError
from rh_prefect.flows.batch.attempt_records import find_state_place
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.journal import FolderJournal, NotExclusive


class Drive(MemoryFileSystem):
    """A place with a driver of one's own, which looks first and writes then."""

    protocol = "drive"
    store: dict[str, Any] = {}  # noqa: RUF012  # as in fsspec
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


@pytest.fixture(autouse=True)
def drive() -> Iterator[None]:
    fsspec.register_implementation("drive", Drive, clobber=True)
    yield
    _registry.pop("drive", None)
    Drive.store.clear()


def test_a_driver_that_is_registered_as_a_class_is_accepted(tmp_path: Path) -> None:
    """fsspec knows such a driver, though not by an import path."""
    store = MediaStore("drive://films/out")
    store.write_bytes("a.txt", b"1")
    assert store.read_bytes("a.txt") == b"1"
    store.check()


async def test_a_batchs_state_goes_to_the_journal_where_the_store_cannot_create_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state lies where exclusive creation exists."""
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "journal"))
    place = await find_state_place(MediaStore("drive://films/out"))
    assert place.url == str(tmp_path / "journal")
    assert await place.journal("batch").create("state-1", {"token": "1"})


async def test_without_a_journal_it_is_refused_before_a_row_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is true: RH_RECORDS is where the state goes then."""
    monkeypatch.delenv("RH_RECORDS", raising=False)
    with pytest.raises(ConfigError, match=r"No row was read.*set RH_RECORDS to a folder or an S3 bucket"):
        await find_state_place(MediaStore("drive://films/out"))
    monkeypatch.setenv("RH_RECORDS", "drive://films/journal")
    with pytest.raises(ConfigError, match="nor in RH_RECORDS"):
        await find_state_place(MediaStore("drive://films/out"))


async def test_a_journal_that_a_worker_deletes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run of the batch would know nothing of this one, and pay for its rows again."""
    monkeypatch.setenv("RH_RECORDS", "journal")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="which its worker deletes"):
        await find_state_place(MediaStore("drive://films/out"))


async def test_a_folder_keeps_its_own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "journal"))
    assert (await find_state_place(MediaStore(tmp_path / "out"))).url == (tmp_path / "out").as_posix()


async def test_a_journal_says_that_it_cannot_be_there() -> None:
    with pytest.raises(NotExclusive):
        await FolderJournal("drive://films/journal", scope="x").check()
