from __future__ import annotations

import asyncio
import hashlib
import uuid
from pathlib import Path

import fsspec
import pytest

from rh_prefect.errors import InputError, MediaError
from rh_prefect.jobs.ledger.identity import media_mark
from rh_prefect.jobs.ledger.journal import FolderJournal
from rh_prefect.jobs.orders.inputs import Inputs, check_unchanged, fetched
from rh_prefect.media.ref import Media
from tests.support import samples


class Options:
    """Gives no storage options, and counts how often a file is looked at."""

    def __init__(self) -> None:
        self.looks: list[str] = []

    def __call__(self, source: str) -> dict[str, object]:
        self.looks.append(source)
        return {}


@pytest.fixture
def options() -> Options:
    return Options()


@pytest.fixture
def inputs(journal: FolderJournal, tmp_path: Path, options: Options) -> Inputs:
    return Inputs(journal, tmp_path / "scratch", options_for=options)


@pytest.fixture
def later_run(journal: FolderJournal, tmp_path: Path, options: Options) -> Inputs:
    """The same scope, in a process that has seen nothing yet."""
    return Inputs(journal, tmp_path / "scratch", options_for=options)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return samples.png(tmp_path / "photo.png")


def mark_of(path: Path) -> str:
    return media_mark(hashlib.sha256(path.read_bytes()).hexdigest())


async def test_a_file_is_known_by_its_content(inputs: Inputs, photo: Path) -> None:
    given = await inputs.identify(str(photo))
    assert given.mark == mark_of(photo)
    assert (given.seen.kind, given.seen.extension, given.seen.mime) == ("image", "png", "image/png")
    assert given.seen.size == photo.stat().st_size
    assert given.source == str(photo)


async def test_a_video_s_length_is_known(inputs: Inputs, tmp_path: Path) -> None:
    given = await inputs.identify(str(samples.mp4(tmp_path / "clip.mp4", seconds=2)))
    assert given.seen.kind == "video"
    assert given.seen.seconds == pytest.approx(2, abs=0.2)


async def test_one_content_in_two_places_has_one_mark(inputs: Inputs, photo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(photo.read_bytes())
    assert (await inputs.identify(str(photo))).mark == (await inputs.identify(str(copy))).mark


async def test_all_spellings_of_a_place_are_one_record(
    inputs: Inputs, photo: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    given = [await inputs.identify(source) for source in (str(photo), "photo.png", f"file://{photo}", photo.as_uri())]
    assert len({one.seen for one in given}) == 1
    assert len(options.looks) == 1


async def test_many_who_ask_at_once_read_it_once(inputs: Inputs, photo: Path, options: Options) -> None:
    await asyncio.gather(*(inputs.identify(str(photo)) for _ in range(20)))
    assert len(options.looks) == 1


async def test_one_who_is_cancelled_does_not_hurt_the_others(inputs: Inputs, photo: Path) -> None:
    first, second = (asyncio.create_task(inputs.identify(str(photo))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).mark == mark_of(photo)


async def test_a_later_run_trusts_what_was_first_seen(inputs: Inputs, later_run: Inputs, photo: Path) -> None:
    first = await inputs.identify(str(photo))
    samples.png(photo, text="another")
    assert (await later_run.identify(str(photo))).mark == first.mark
    photo.unlink()
    assert (await later_run.identify(str(photo))).mark == first.mark


async def test_what_another_process_saw_first_is_what_counts(
    inputs: Inputs, later_run: Inputs, journal: FolderJournal, photo: Path
) -> None:
    await inputs.identify(str(photo))
    key = next(path for path in Path(journal.url).rglob("media/*.json")).stem
    again = (await later_run.identify(str(photo))).seen
    record = await journal.read(f"media-{key}")
    assert record is not None
    assert again.token == record["token"]


async def test_a_signature_is_no_part_of_where_a_file_is(
    inputs: Inputs, later_run: Inputs, journal: FolderJournal
) -> None:
    place = f"memory://{uuid.uuid4().hex}/photo.png"
    fsspec.filesystem("memory").pipe_file(place, samples.picture("PNG"))
    first = await inputs.identify(place)
    assert first.seen.uri == place
    signed = f"{place}?X-Amz-Signature=canary&X-Amz-Expires=60"
    assert (await later_run.identify(signed)).seen == first.seen
    assert not any("canary" in path.read_text() for path in Path(journal.url).rglob("*.json"))


async def test_a_media_says_itself_what_it_is(inputs: Inputs, journal: FolderJournal, options: Options) -> None:
    media = Media(uri="s3://b/film.MP4", kind="video", mime="video/mp4", size=9, sha256="a" * 64, seconds=5.0)
    given = await inputs.identify(media)
    assert given.mark == media_mark("a" * 64)
    assert (given.seen.extension, given.seen.seconds, given.source) == ("mp4", 5.0, "s3://b/film.MP4")
    assert not options.looks
    assert not Path(journal.url).exists()


async def test_a_missing_file_is_looked_for_again_the_next_time(inputs: Inputs, tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    with pytest.raises(MediaError, match=r"late\.png"):
        await inputs.identify(str(late))
    samples.png(late)
    assert (await inputs.identify(str(late))).mark == mark_of(late)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nbroken"])
async def test_a_broken_file_is_refused_and_not_recorded(
    inputs: Inputs, journal: FolderJournal, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(MediaError):
        await inputs.identify(str(tmp_path / "broken.png"))
    assert not Path(journal.url).exists()


async def test_one_name_for_two_files_in_one_run_is_refused(inputs: Inputs, photo: Path) -> None:
    await inputs.identify(str(photo))
    samples.png(photo, text="another")
    with pytest.raises(InputError, match="name of its own"):
        await inputs.identify(str(photo))


async def test_a_file_that_was_merely_written_again_is_the_same(inputs: Inputs, photo: Path) -> None:
    first = await inputs.identify(str(photo))
    photo.write_bytes(photo.read_bytes())
    assert await inputs.identify(str(photo)) == first


async def test_a_remote_file_is_fetched_and_its_copy_removed(inputs: Inputs, tmp_path: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}/photo.png"
    data = samples.picture("PNG")
    fsspec.filesystem("memory").pipe_file(place, data)
    given = await inputs.identify(place)
    assert given.mark == media_mark(hashlib.sha256(data).hexdigest())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_local_file_is_not_copied(photo: Path, tmp_path: Path) -> None:
    with fetched(str(photo), tmp_path / "scratch") as (path, sha256, size):
        assert path == photo
        assert media_mark(sha256) == mark_of(photo)
        assert size == photo.stat().st_size
    assert photo.exists()
    assert not (tmp_path / "scratch").exists()


async def test_a_file_that_has_changed_must_not_be_uploaded(inputs: Inputs, photo: Path) -> None:
    given = await inputs.identify(str(photo))
    check_unchanged(given, given.seen.sha256)
    with pytest.raises(InputError, match="has changed"):
        check_unchanged(given, "b" * 64)
