"""The names of `save_as`: a file is saved once and for all runs, and one of somebody else is kept."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rh_prefect.errors import StoreError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.save_as import SavedNames
from tests.support import samples


class Folding(MemoryFileSystem):
    """A disk that ignores case in names."""

    protocol = "folding"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("folding://"))).lower()


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(str(tmp_path / "store"))


@pytest.fixture
def picture(store: MediaStore, tmp_path: Path) -> Media:
    return store.publish(samples.png(tmp_path / "a.png"), "pipelines/a.png")


def names(store: MediaStore) -> SavedNames:
    return SavedNames(store.url, store)


async def test_a_save_that_was_killed_after_its_record_is_done_again(store: MediaStore, picture: Media) -> None:
    await names(store).save(picture, "film.png")
    store.delete("film.png")
    saved = await names(store).save(picture, "film.png")
    assert store.read_bytes("film.png") == store.read_bytes("pipelines/a.png")
    assert saved.sha256 == picture.sha256


async def test_runs_at_once_save_the_same_file(store: MediaStore, picture: Media) -> None:
    saved = await asyncio.gather(*(names(store).save(picture, "film.png") for _ in range(5)))
    assert {one.uri for one in saved} == {store.uri("film.png")}
    assert store.read_bytes("film.png") == store.read_bytes("pipelines/a.png")


async def test_another_result_takes_the_name_and_a_file_of_somebody_else_is_kept(
    store: MediaStore, picture: Media, tmp_path: Path
) -> None:
    other = store.publish(samples.png(tmp_path / "b.png", size=(20, 20)), "pipelines/b.png")
    for one in (picture, other, picture):
        await names(store).save(one, "film.png")
        assert store.read_bytes("film.png") == store.read_bytes(store.name_of(one.uri) or "")
    store.write_bytes("mine.png", b"mine")
    with pytest.raises(StoreError, match="no pipeline has saved it"):
        await names(store).save(picture, "mine.png")
    assert store.read_bytes("mine.png") == b"mine"


async def test_on_a_disk_that_ignores_case_a_name_keeps_its_own_content(
    store: MediaStore, picture: Media, tmp_path: Path
) -> None:
    """The second of two names for one file is refused; it was returned with the other one's content."""
    fsspec.register_implementation("folding", Folding, clobber=True)
    disk = MediaStore(f"folding://{uuid.uuid4().hex}")
    other = store.publish(samples.png(tmp_path / "b.png", size=(20, 20)), "pipelines/b.png")
    saved = SavedNames(store.url, disk)
    first, second = await asyncio.gather(
        saved.save(picture, "Mug.png"), saved.save(other, "mug.png"), return_exceptions=True
    )
    assert isinstance(first, Media)
    assert disk.read_bytes("Mug.png") == store.read_bytes("pipelines/a.png")
    assert isinstance(second, StoreError)
