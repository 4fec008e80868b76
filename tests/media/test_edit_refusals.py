from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from rh_prefect.errors import MediaError, StoreError
from rh_prefect.media.edit import audio_level, concat, contact_sheet, frame, mix, mux, thumbnail
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import RED

Edit = Callable[[Path, Path], object]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A video with sound, so that each edit fails for the other input."""
    return samples.mp4(tmp_path / "good.mp4", seconds=0.5)


@pytest.fixture
def edits(good: Path) -> dict[str, Edit]:
    """Every edit as a function of the doubtful input and the result."""
    return {
        "mux-picture": lambda bad, to: mux(bad, good, to.with_suffix(".mp4")),
        "mux-sound": lambda bad, to: mux(good, bad, to.with_suffix(".mp4")),
        "mix-speech": lambda bad, to: mix([(0, good), (1, bad)], None, to.with_suffix(".wav")),
        "mix-music": lambda bad, to: mix(good, bad, to.with_suffix(".m4a")),
        "concat": lambda bad, to: concat([good, bad], to.with_suffix(".mp4"), audio="keep"),
        "sheet": lambda bad, to: contact_sheet([good, bad], to.with_suffix(".jpg")),
        "last": lambda bad, to: frame(bad, to.with_suffix(".png"), at="last"),
        "poster": lambda bad, to: frame(bad, to.with_suffix(".jpg"), at="middle"),
        "thumbnail": lambda bad, _: thumbnail(bad),
        "level": lambda bad, _: audio_level(bad),
    }


def _broken(kind: str, folder: Path) -> Path:
    path = folder / f"bad-{kind}"
    clip = clip_samples.solid(folder / "clip.mp4", [RED] * 24, faststart=True).read_bytes()
    sound = samples.mp4(folder / "film.mp4", seconds=1).read_bytes()
    contents = {
        "empty": b"",
        "junk": b"this is no media file at all " * 30,
        "index-lost": sound[:-200],
        "end-lost": clip[: len(clip) * 9 // 10],
        "holed": sound[:900] + bytes(1500) + sound[2400:],
        "half-a-picture": samples.jpg(folder / "photo.jpg", size=(200, 200)).read_bytes()[:1500],
        "half-a-sound": samples.wav(folder / "sound.wav").read_bytes()[:30000],
    }
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "empty", "junk", "index-lost", "end-lost", "half-a-picture", "half-a-sound"]
)
def test_an_unusable_file_is_named_and_nothing_is_left_behind(
    tmp_path: Path, edits: dict[str, Edit], kind: str
) -> None:
    bad, out = _broken(kind, tmp_path), tmp_path / "out"
    out.mkdir()
    for edit in edits.values():
        with pytest.raises(MediaError, match=rf"{bad.name}.*(What to do|Use)|{bad.name}.*[Gg]ive"):
            edit(bad, out / "result")
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["concat", "mix-speech"])
def test_a_file_that_is_found_broken_on_the_way_leaves_what_was_there(
    tmp_path: Path, edits: dict[str, Edit], name: str
) -> None:
    bad, out = _broken("holed", tmp_path), tmp_path / "out"
    out.mkdir()
    for suffix in (".mp4", ".wav"):
        (out / f"result{suffix}").write_bytes(b"the one from before")
    with pytest.raises(MediaError, match="bad-holed"):
        edits[name](bad, out / "result")
    assert {path.read_bytes() for path in out.iterdir()} == {b"the one from before"}
    assert len(list(out.iterdir())) == 2


def test_a_file_without_what_is_needed_is_refused(tmp_path: Path, good: Path, edits: dict[str, Edit]) -> None:
    silent, sound = clip_samples.solid(tmp_path / "silent.mp4", [RED] * 3), samples.wav(tmp_path / "sound.wav")
    for name in ("mux-sound", "mix-speech", "mix-music", "level"):
        with pytest.raises(MediaError, match=r"silent\.mp4 has no sound"):
            edits[name](silent, tmp_path / "result")
    for name in ("mux-picture", "concat", "sheet", "last", "poster", "thumbnail"):
        with pytest.raises(MediaError, match=r"sound\.wav has no picture"):
            edits[name](sound, tmp_path / "result")
    assert not list(tmp_path.glob("result*"))


def test_music_too_short_to_repeat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="shorter than half a second"):
        mix(None, samples.wav(tmp_path / "blip.wav", seconds=0.2), tmp_path / "track.wav", seconds=3)
    assert not list(tmp_path.glob("*track*"))


WRITING = ["mux-picture", "mix-speech", "mix-music", "concat", "sheet", "last", "poster"]


@pytest.mark.parametrize("name", WRITING)
def test_a_place_that_is_none_is_a_store_error(tmp_path: Path, good: Path, edits: dict[str, Edit], name: str) -> None:
    """A folder that does not exist, and a path under a regular file."""
    for place in (tmp_path / "nowhere", good):
        with pytest.raises(StoreError, match=r"result\.\w+ could not be written.*What to do"):
            edits[name](good, place / "result")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.mp4"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 300 bytes, as when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, good: Path, edits: dict[str, Edit], full_disk: None, name: str
) -> None:
    with pytest.raises(StoreError, match="File too large"):
        edits[name](good, tmp_path / "result")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.mp4"]


def test_a_picture_that_is_too_large_to_decode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("L", (20_000, 10_000)).save(path)
    with pytest.raises(MediaError, match=r"huge.png has more than 178 megapixels"):
        thumbnail(path)
