"""The names of `save_as`: a file is saved once and for all runs, and one of somebody else is kept."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rh_prefect.errors import StoreError
from rh_prefect.media.file_state import SETTLED
from rh_prefect.media.file_types_and_completeness import sniff
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.named_file_saver import SavedNames, with_extension
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server


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


@pytest.fixture
def other(store: MediaStore, tmp_path: Path) -> Media:
    return store.publish(samples.png(tmp_path / "b.png", size=(20, 20)), "pipelines/b.png")


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
    store: MediaStore, picture: Media, other: Media
) -> None:
    for one in (picture, other, picture):
        await names(store).save(one, "film.png")
        assert store.read_bytes("film.png") == store.read_bytes(store.name_of(one.uri) or "")
    store.write_bytes("mine.png", b"mine")
    with pytest.raises(StoreError, match="no pipeline has saved it"):
        await names(store).save(picture, "mine.png")
    assert store.read_bytes("mine.png") == b"mine"


RETOUCHED = b"hours of work by a designer"


@pytest.mark.parametrize("next_result", ["a.png", "b.png"])
@pytest.mark.parametrize("has_same_size", [False, True])
async def test_a_saved_file_that_a_person_has_changed_is_kept(
    store: MediaStore, picture: Media, other: Media, next_result: str, has_same_size: bool
) -> None:
    await names(store).save(picture, "film.png")
    retouched = (RETOUCHED * 100)[: picture.size] if has_same_size else RETOUCHED
    store.write_bytes("film.png", retouched)
    with pytest.raises(StoreError, match="was changed after a pipeline saved it"):
        await names(store).save({"a.png": picture, "b.png": other}[next_result], "film.png")
    assert await names(store).find(picture, "film.png") is None
    assert store.read_bytes("film.png") == retouched


async def test_a_file_that_has_the_content_already_is_kept(store: MediaStore, picture: Media, other: Media) -> None:
    """Also one that no pipeline saved, or that an older result was put back to."""
    store.write_bytes("mine.png", store.read_bytes("pipelines/a.png"))
    before = Path(store.uri("mine.png")).stat().st_ino
    assert (await names(store).save(picture, "mine.png")).uri == store.uri("mine.png")
    assert Path(store.uri("mine.png")).stat().st_ino == before
    with pytest.raises(StoreError, match="no pipeline has saved it"):
        await names(store).save(other, "mine.png")


class Counting(MediaStore):
    reads = 0

    def digest(self, name: str) -> str:
        self.reads += 1
        return super().digest(name)


async def test_a_saved_file_is_read_once(store: MediaStore, picture: Media) -> None:
    """Later runs know a film by the state that its disk reports, and do not read it again."""
    counting = Counting(store.url)
    await names(counting).save(picture, "film.png")
    await asyncio.sleep(SETTLED + 0.1)  # a time stamp is no proof right after a change
    for _ in range(3):
        await names(counting).save(picture, "film.png")
        assert await names(counting).find(picture, "film.png") is not None
    assert counting.reads == 1


async def test_a_saved_object_is_not_read(s3: S3Server, picture: Media) -> None:
    """An object's ETag is noted when it is saved."""
    bucket = Counting(s3.url("out"), options=s3.options)
    for _ in range(3):
        await SavedNames(bucket.url, bucket, options=s3.options).save(picture, "film.png")
    assert bucket.reads == 0
    bucket.write_bytes("film.png", RETOUCHED)
    with pytest.raises(StoreError, match="was changed"):
        await SavedNames(bucket.url, bucket, options=s3.options).save(picture, "film.png")


async def test_a_disk_that_ignores_case_keeps_each_content(store: MediaStore, picture: Media, other: Media) -> None:
    """The second of two names for one file is refused; it was returned with the other one's content."""
    fsspec.register_implementation("folding", Folding, clobber=True)
    disk = MediaStore(f"folding://{uuid.uuid4().hex}")
    saved = SavedNames(store.url, disk)
    first, second = await asyncio.gather(
        saved.save(picture, "Mug.png"), saved.save(other, "mug.png"), return_exceptions=True
    )
    assert isinstance(first, Media)
    assert disk.read_bytes("Mug.png") == store.read_bytes("pipelines/a.png")
    assert isinstance(second, StoreError)


async def test_a_picture_is_converted_to_the_format_of_its_name(store: MediaStore, picture: Media) -> None:
    for _ in range(2):
        saved = await names(store).save(picture, "film.jpg")
        assert (saved.mime, saved.uri) == ("image/jpeg", store.uri("film.jpg"))
        assert sniff(store.read_bytes("film.jpg"), size=saved.size).extension == "jpg"
        assert await names(store).find(picture, "film.jpg") == saved
    assert saved.sha256 == store.digest("film.jpg") != picture.sha256


async def test_a_converted_picture_is_replaced_if_unchanged(store: MediaStore, picture: Media, other: Media) -> None:
    first = await names(store).save(picture, "film.jpg")
    assert (await names(store).save(other, "film.jpg")).sha256 != first.sha256
    assert (await names(store).save(picture, "film.jpg")).sha256 == first.sha256
    store.write_bytes("film.jpg", RETOUCHED)
    with pytest.raises(StoreError, match="was changed after a pipeline saved it"):
        await names(store).save(picture, "film.jpg")


WEBM_SOUND, M4A, MKA = (samples.sound(*one) for one in (("webm", "libopus"), ("mp4", "aac"), ("matroska", "aac")))
OGV = samples.film("ogg", 1, (64, 48), 12, "")


@pytest.mark.parametrize(
    ("data", "stored", "fitting", "refused", "extended"),
    [
        (WEBM_SOUND, "a.webm", "x.webm x.mkv x.weba", "x.mp3 x.wav x.ogg x.m4a x.mp4", "x.webm"),
        (WEBM_SOUND, "a.mp3", "", "", "x.webm"),
        (MKA, "a.mkv", "x.mkv x.mka x.webm", "x.m4a x.mp3", "x.mka"),
        (M4A, "a.mp4", "x.mp4 x.mov x.m4a", "x.aac x.mp3 x.webm", "x.m4a"),
        (OGV, "a.ogv", "x.ogv x.ogg", "x.mp4 x.opus", "x.ogv"),
        (samples.picture("PNG"), "a.webp", "x.png x.PNG x x.final", "x.webp x.mp4 x.mp3 x.GIF", "x.png"),
        (samples.sound("wav", "pcm_s16le"), "a.mp3", "x.wav", "x.mp3", "x.wav"),
        (samples.film("mp4", 1, (64, 48), 12, ""), "a.mp4", "x.mp4 x.MOV", "x.m4a x.webm x.avi", "x.mp4"),
    ],
)
async def test_a_name_must_have_an_extension_of_the_results_container(
    store: MediaStore, tmp_path: Path, data: bytes, stored: str, fitting: str, refused: str, extended: str
) -> None:
    (tmp_path / stored).write_bytes(data)
    file = store.publish(tmp_path / stored, stored)
    assert with_extension("x.*", file) == extended
    for name in (*fitting.split(), extended):
        assert (await names(store).save(file, name)).sha256 == store.digest(name) == file.sha256, name
    for name in refused.split():
        with pytest.raises(StoreError, match=f"does not fit the result, which has the type {file.mime}. .* at no cost"):
            await names(store).save(file, name)
        assert not store.exists(name), name


async def test_a_file_of_another_pipeline_is_not_replaced(store: MediaStore, picture: Media, other: Media) -> None:
    shop, film = (SavedNames(store.url, store, pipeline=name) for name in ("shop", "film"))
    await shop.save(picture, "sheet.png")
    with pytest.raises(StoreError, match=r"sheet.png was saved by another pipeline, shop. It was not replaced"):
        await film.save(other, "sheet.png")
    assert (await film.save(picture, "sheet.png")).sha256 == picture.sha256
    assert (await shop.save(other, "sheet.png")).sha256 == other.sha256
