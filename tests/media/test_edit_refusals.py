from __future__ import annotations

import resource
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from rh_prefect.errors import InputError, MediaError, StoreError
from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, convert_image, frame, thumbnail
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.lettering import captions, title_clip
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.muxing import mux
from rh_prefect.media.edit.output import write_pictures
from rh_prefect.media.edit.single_file_edits import add_sounds, extract_audio, resize, still_clip, trim, watermark
from rh_prefect.media.edit.subtitle_writer import Cue
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import RED

Edit = Callable[[Path, Path], object]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A video with sound, so that each edit fails for the other input."""
    return samples.mp4(tmp_path / "good.mp4", seconds=0.5)


@pytest.fixture
def logo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.png(tmp_path_factory.mktemp("logo") / "logo.png")


@pytest.fixture
def edits(good: Path, logo: Path) -> dict[str, Edit]:
    """Every edit as a function of the doubtful input and the result."""
    return {
        "mux-picture": lambda bad, to: mux(bad, good, to.with_suffix(".mp4")),
        "mux-sound": lambda bad, to: mux(good, bad, to.with_suffix(".mp4")),
        "mix-speech": lambda bad, to: mix([(0, good), (1, bad)], None, to.with_suffix(".wav")),
        "mix-music": lambda bad, to: mix(good, bad, to.with_suffix(".m4a")),
        "concat": lambda bad, to: concat([good, bad], to.with_suffix(".mp4")),
        "sheet": lambda bad, to: contact_sheet([good, bad], to.with_suffix(".jpg")),
        "last": lambda bad, to: frame(bad, to.with_suffix(".png"), at="last"),
        "poster": lambda bad, to: frame(bad, to.with_suffix(".jpg"), at="middle"),
        "captions": lambda bad, to: captions(bad, to.with_suffix(".mp4"), cues=[Cue(0, 1, "a")]),
        "transition": lambda bad, to: concat([good, bad], to.with_suffix(".mp4"), seconds=0.1),
        "resize": lambda bad, to: resize(
            bad, to.with_suffix(".jpg" if "picture" in bad.name else ".mp4"), width=32, height=32
        ),
        "trim": lambda bad, to: trim(bad, to.with_suffix(".mp4"), seconds=0.2),
        "watermark": lambda bad, to: watermark(bad, logo, to.with_suffix(".jpg" if "picture" in bad.name else ".mp4")),
        "logo": lambda bad, to: watermark(good, bad, to.with_suffix(".mp4")),
        "still": lambda bad, to: still_clip(bad, to.with_suffix(".mp4"), seconds=0.2),
        "title": lambda bad, to: title_clip("a", to.with_suffix(".mp4"), seconds=0.2, image=bad),
        "convert": lambda bad, to: convert_image(bad, to.with_suffix(".jpg")),
        "sound": lambda bad, to: extract_audio(bad, to.with_suffix(".wav")),
        "sounds": lambda bad, to: add_sounds(good, bad, to.with_suffix(".wav")),
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
def test_an_unusable_file_is_named_and_nothing_is_left(tmp_path: Path, edits: dict[str, Edit], kind: str) -> None:
    bad, out = _broken(kind, tmp_path), tmp_path / "out"
    out.mkdir()
    for edit in edits.values():
        with pytest.raises(MediaError, match=rf"{bad.name}.*(What to do|Use)|{bad.name}.*[Gg]ive"):
            edit(bad, out / "result")
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["concat", "mix-speech"])
def test_a_file_that_breaks_on_the_way_leaves_what_was_there(tmp_path: Path, edits: dict[str, Edit], name: str) -> None:
    bad, out = _broken("holed", tmp_path), tmp_path / "out"
    out.mkdir()
    for suffix in (".mp4", ".wav"):
        (out / f"result{suffix}").write_bytes(b"the one from before")
    with pytest.raises(MediaError, match="bad-holed"):
        edits[name](bad, out / "result")
    assert {path.read_bytes() for path in out.iterdir()} == {b"the one from before"}
    assert len(list(out.iterdir())) == 2


def test_a_file_without_what_is_needed_is_refused(tmp_path: Path, edits: dict[str, Edit]) -> None:
    silent, sound = clip_samples.solid(tmp_path / "silent.mp4", [RED] * 3), samples.wav(tmp_path / "sound.wav")
    for name in ("mux-sound", "mix-speech", "mix-music", "level"):
        with pytest.raises(MediaError, match=r"silent\.mp4 has no sound"):
            edits[name](silent, tmp_path / "result")
    for name in ("mux-picture", "concat", "sheet", "last", "poster", "thumbnail"):
        with pytest.raises(MediaError, match=r"sound\.wav has no video track"):
            edits[name](sound, tmp_path / "result")
    assert not list(tmp_path.glob("result*"))


def test_a_video_shorter_than_a_frame_of_the_result_is_refused(tmp_path: Path) -> None:
    short, to = samples.mp4(tmp_path / "short.mp4", seconds=0.003, fps=1000, audio=False), tmp_path / "result.mp4"
    with pytest.raises(MediaError, match=r"result\.mp4 would have no frames.*What to do"):
        resize(short, to, width=32, height=32)
    with pytest.raises(MediaError, match=r"result\.mp4 would have no frames.*What to do"):
        concat([short], to)
    assert not to.exists()


@pytest.mark.parametrize("curve", [16, 18], ids=["PQ", "HLG"])
def test_an_hdr_video_is_refused_where_it_would_lose_its_colours(tmp_path: Path, good: Path, curve: int) -> None:
    bright, other, to = tmp_path / "bright.mp4", tmp_path / "other.mkv", tmp_path / "result.mp4"
    clip_samples.solid(bright, [RED] * 12, curve=curve)
    clip_samples.solid(other, [RED] * 12, curve=curve, pixels="yuv444p", container="matroska")
    edits: list[Callable[[], object]] = [
        lambda: resize(bright, to, width=32, height=32),
        lambda: concat([good, bright], to),
        lambda: trim(bright, to, seconds=0.2),
        lambda: mux(other, good, to),
    ]
    for edit in edits:
        with pytest.raises(MediaError, match=r"(bright|other)\.\w+ is HDR .*What to do: convert it to SDR"):
            edit()
    assert not to.exists()
    add_sounds(bright, good, tmp_path / "both.wav")
    mux(bright, tmp_path / "both.wav", to)
    thumbnail(bright)


def test_music_too_short_to_repeat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="shorter than half a second"):
        mix(None, samples.wav(tmp_path / "blip.wav", seconds=0.2), tmp_path / "track.wav", seconds=3)
    assert not list(tmp_path.glob("*track*"))


def test_a_size_that_follows_from_the_picture_is_checked(tmp_path: Path) -> None:
    wide, to = clip_samples.plain(tmp_path / "wide.png", RED, (2000, 100)), tmp_path / "result.mp4"
    with pytest.raises(InputError, match="width would be 21600 pixels, but must be from 1 to 16384"):
        still_clip(wide, to, seconds=0.2, height=1080)
    squeezed = clip_samples.solid(tmp_path / "squeezed.mp4", [RED], size=(8200, 16), pixel_aspect=Fraction(2))
    with pytest.raises(InputError, match="width would be 16400 pixels, but must be from 1 to 16384"):
        concat([squeezed], to)
    assert not to.exists()


def test_what_an_encoder_refuses_is_no_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"odd\.mp4 could not be encoded: .*What to do"):
        write_pictures(tmp_path / "odd.mp4", (33, 25), [Image.new("RGB", (33, 25))])
    assert not list(tmp_path.iterdir())


def test_a_sound_without_samples_is_called_empty(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    with wave.open(str(empty), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
    for edit in (extract_audio, lambda source, to: trim(source, to, seconds=1)):
        with pytest.raises(MediaError, match=r"sound track of .*empty\.wav is empty\. What to do"):
            edit(empty, tmp_path / "result.wav")


WRITING = ["mux-picture", "mix-speech", "mix-music", "concat", "sheet", "last", "poster", "resize", "trim"]


@pytest.mark.parametrize("name", WRITING)
def test_a_place_that_is_none_is_a_store_error(tmp_path: Path, good: Path, edits: dict[str, Edit], name: str) -> None:
    for place in (tmp_path / "nowhere", good):
        with pytest.raises(StoreError, match=r"result\.\w+ could not be written.*What to do"):
            edits[name](good, place / "result")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.mp4"]


def test_a_name_of_another_type_is_refused_before_anything_is_written(tmp_path: Path, good: Path, logo: Path) -> None:
    to, cues = tmp_path / "result.mp4", [Cue(0, 1, "a")]
    png, wav = to.with_suffix(".png"), to.with_suffix(".wav")
    edits: dict[str, list[Callable[[], object]]] = {
        r"result\.png is not a valid name for a video": [
            lambda: resize(good, png, width=32, height=32),
            lambda: trim(good, png, seconds=0.2),
            lambda: watermark(good, logo, png),
            lambda: still_clip(logo, png, seconds=0.2),
            lambda: title_clip("a", png, seconds=0.2),
            lambda: captions(good, png, cues=cues),
            lambda: concat([good], png),
            lambda: mux(good, good, png),
        ],
        r"result\.mp4 is not a valid name for a picture": [
            lambda: resize(logo, to, width=32, height=32),
            lambda: watermark(logo, logo, to),
            lambda: frame(good, to),
            lambda: contact_sheet([good], to),
            lambda: convert_image(logo, to),
        ],
        r"result\.mp4 is not a valid name for a sound track": [
            lambda: mix(good, None, to),
            lambda: extract_audio(good, to),
            lambda: add_sounds(good, good, to),
        ],
        "nothing to mix in 0 seconds": [lambda: mix([], None, wav)],
        "no clips to join": [lambda: concat([], to)],
    }
    for words, calls in edits.items():
        for call in calls:
            with pytest.raises(InputError, match=rf"{words}.*What to do"):
                call()
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"]


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


def test_a_picture_with_a_side_that_jpeg_cannot_have_is_refused(tmp_path: Path) -> None:
    path, to = tmp_path / "long.png", tmp_path / "long.jpg"
    Image.new("L", (2, 65_501)).save(path)
    with pytest.raises(InputError, match=r"long\.jpg would be 2 x 65501 pixels.*What to do: use a name .* \.png"):
        convert_image(path, to)
    assert not to.exists()
    convert_image(path, tmp_path / "again.png")


@pytest.mark.long
def test_a_picture_that_is_too_large_to_decode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("L", (20_000, 10_000)).save(path)
    with pytest.raises(MediaError, match=r"huge.png has more than 178 megapixels"):
        thumbnail(path)
