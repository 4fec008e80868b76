"""Which files in the store are a job's outputs, without a manifest or with a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.jobs.outputs import manifest
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.world.job_records import TASK

NAME = "run/1.png"


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "out")


@pytest.fixture
def media(store: MediaStore, tmp_path: Path) -> Media:
    """A file in the store without a record."""
    return store.publish(samples.png(tmp_path / "local.png"), NAME)


def found(store: MediaStore, *earlier: Media, index: int = 0, task_id: str = TASK) -> Media | None:
    return manifest.find_published(store, task_id, index, NAME, earlier)


def test_a_file_without_a_record_is_not_found(store: MediaStore, media: Media) -> None:
    assert found(store) is None


def test_a_recorded_file_is_found_by_its_task_and_its_index_only(store: MediaStore, media: Media) -> None:
    manifest.write_record(store, TASK, 0, media)
    assert found(store) == media
    assert found(store, index=1) is None
    assert found(store, task_id="2") is None
    manifest.drop_record(store, TASK, 0)
    assert found(store) is None
    assert store.list(manifest.PENDING) == []


def test_a_file_in_the_manifest_is_found(store: MediaStore, media: Media) -> None:
    assert found(store, media) == media
    other = media.model_copy(update={"sha256": "0" * 64, "size": 1})
    manifest.write_record(store, TASK, 0, other)
    assert found(store, media) == media, "the file was published by the call that wrote the manifest"


@pytest.mark.parametrize(
    "changed",
    [{"uri": "file:///elsewhere/1.png"}, {"defect": "a broken png"}, {"sha256": "0" * 64}, {"size": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_record_of_another_or_a_damaged_file_is_ignored(
    store: MediaStore, media: Media, changed: dict[str, str | int]
) -> None:
    manifest.write_record(store, TASK, 0, media.model_copy(update=changed))
    assert found(store) is None


def test_a_missing_or_replaced_file_is_not_found(store: MediaStore, media: Media) -> None:
    manifest.write_record(store, TASK, 0, media)
    there = store.read_bytes(NAME)
    store.write_bytes(NAME, there[:-1] + bytes([there[-1] ^ 1]))
    assert found(store) is None, "another content of the same size"
    store.delete(NAME)
    assert found(store) is None


def test_a_recorded_file_is_found_after_its_store_was_moved(store: MediaStore, media: Media, tmp_path: Path) -> None:
    manifest.write_record(store, TASK, 0, media)
    moved = MediaStore(Path(store.url).rename(tmp_path / "moved"))
    assert found(moved) == media.model_copy(update={"uri": moved.uri(NAME)})


def test_a_truncated_record_is_ignored(store: MediaStore, media: Media) -> None:
    store.write_bytes(f"{manifest.PENDING}/{TASK}-0.json", b'{"uri": "')
    assert found(store) is None
    assert found(store, media) == media


def test_a_file_of_several_blocks_is_compared_completely(store: MediaStore, tmp_path: Path) -> None:
    local = tmp_path / "large.bin"
    local.write_bytes(samples.png(tmp_path / "one.png").read_bytes() + bytes(3 << 20))
    media = store.publish(local, NAME)
    manifest.write_record(store, TASK, 0, media)
    assert found(store) == media
    store.write_bytes(NAME, local.read_bytes()[:-1] + b"\1")
    assert found(store) is None
