from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.edit.frames_and_thumbnails import frame, thumbnail
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.single_file_edits import Corner, Zoom, extract_audio, resize, still_clip, trim, watermark
from rh_prefect.media.edit.video_reader import Fit
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLACK, BLUE, GREEN, RED, near, plain


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A second of red, of green and of blue, 12 frames each."""
    return clip_samples.solid(tmp_path / "three.mp4", [RED] * 12 + [GREEN] * 12 + [BLUE] * 12)


def test_a_video_is_cut_to_the_frame(three: Path, tmp_path: Path) -> None:
    assert trim(three, tmp_path / "cut.mp4", start=1, seconds=1.5) == pytest.approx(1.5)
    film = clip_samples.play(tmp_path / "cut.mp4")
    assert len(film.frames) == 18
    assert [near(film.frames[n].getpixel((9, 9)), c) for n, c in ((0, GREEN), (11, GREEN), (12, BLUE))] == [True] * 3
    assert film.codecs == ("h264",)


@pytest.mark.parametrize("fps", [Fraction(1, 10), Fraction(2, 3), Fraction(2)])
def test_a_cut_of_a_slow_video_is_as_long_as_asked_for(fps: Fraction, tmp_path: Path) -> None:
    each = float(1 / fps)
    slow = clip_samples.solid(tmp_path / "slow.mp4", [RED, GREEN, BLUE, RED], fps=fps)
    seconds = trim(slow, tmp_path / "cut.mp4", start=0.7 * each, seconds=1.1 * each)
    film = clip_samples.play(tmp_path / "cut.mp4")
    assert [seconds, film.seconds] == pytest.approx([1.1 * each] * 2, abs=0.06)
    shown = [near(film.frames[round(share * (len(film.frames) - 1))].getpixel((9, 9)), GREEN) for share in (0, 0.5, 1)]
    assert shown == [False, True, True]


def test_the_sound_of_a_cut_begins_with_its_picture(tmp_path: Path) -> None:
    clip = samples.mp4(tmp_path / "clip.mp4", seconds=2, hz=440)
    trim(clip, tmp_path / "cut.mp4", start=0.5, seconds=1)
    film = clip_samples.play(tmp_path / "cut.mp4")
    assert film.codecs == ("h264", "aac")
    assert np.allclose(film.lengths, 1, atol=0.05)
    assert clip_samples.strength(clip_samples.heard(tmp_path / "cut.mp4"), 440, 0.2, 0.6) > -20


def test_a_sound_is_cut_to_the_sample(tmp_path: Path) -> None:
    wave = np.concatenate([clip_samples.tone(440, 1), clip_samples.tone(3000, 1)])
    source = clip_samples.sound(tmp_path / "source.wav", wave)
    assert trim(source, tmp_path / "cut.wav", start=0.75, seconds=0.5) == 0.5
    heard = clip_samples.heard(tmp_path / "cut.wav")
    assert heard.shape[1] == 24_000
    assert clip_samples.strength(heard, 440, 0, 0.2) > -15 > -40 > clip_samples.strength(heard, 440, 0.3, 0.2)
    assert trim(source, tmp_path / "rest.m4a", start=1.5, seconds=9) == pytest.approx(0.5)


@pytest.mark.parametrize("end", ["mp4", "wav"])
def test_a_cut_after_the_end_is_refused(three: Path, tmp_path: Path, end: str) -> None:
    source = three if end == "mp4" else samples.wav(tmp_path / "s.wav", seconds=1)
    with pytest.raises(MediaError, match=r"ends before 7 s\. What to do"):
        trim(source, tmp_path / f"cut.{end}", start=7, seconds=1)
    assert not (tmp_path / f"cut.{end}").exists()


@pytest.mark.parametrize(("fit", "corner"), [("cover", RED), ("contain", BLACK), ("stretch", RED)])
def test_a_video_gets_another_size(tmp_path: Path, fit: Fit, corner: tuple[int, int, int]) -> None:
    clip = clip_samples.solid(tmp_path / "clip.mp4", [RED] * 6, size=(64, 48))
    assert resize(clip, tmp_path / "upright.mp4", width=36, height=64, fit=fit) == pytest.approx(0.5)
    film = clip_samples.play(tmp_path / "upright.mp4")
    assert (film.size, len(film.frames)) == ((36, 64), 6)
    assert near(film.frames[2].getpixel((18, 32)), RED)
    assert near(film.frames[2].getpixel((2, 2)), corner)


def test_a_video_of_key_frames_only_is_compressed(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "camera.mov"), "w") as file:
        stream = file.add_stream("mjpeg", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(24):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    resize(tmp_path / "camera.mov", tmp_path / "small.mp4", width=32, height=24)
    with av.open(str(tmp_path / "small.mp4")) as film:
        assert [packet.is_keyframe for packet in film.demux() if packet.size].count(True) == 1


def test_a_resized_video_keeps_its_sound(tmp_path: Path) -> None:
    clip = samples.mp4(tmp_path / "clip.mp4", seconds=1)
    resize(clip, tmp_path / "small.mp4", width=33, height=25)
    film = clip_samples.play(tmp_path / "small.mp4")
    assert (film.codecs, film.size) == (("h264", "aac"), (32, 24))


@pytest.mark.parametrize(("fit", "corner"), [("cover", (0, 0, 255)), ("contain", (0, 0, 0)), ("stretch", (0, 0, 255))])
def test_a_picture_gets_another_size_and_format(tmp_path: Path, fit: Fit, corner: tuple[int, int, int]) -> None:
    source = plain(tmp_path / "source.png", (0, 0, 255))
    assert resize(source, tmp_path / "square.jpg", width=50, height=50, fit=fit) is None
    with Image.open(tmp_path / "square.jpg") as made:
        assert (made.format, made.size) == ("JPEG", (50, 50))
        assert near(made.getpixel((25, 2)), corner)
    with pytest.raises(InputError, match=r"ends in \.png or \.jpg"):
        resize(source, tmp_path / "square.webp", width=50, height=50)


def test_a_photo_that_is_to_be_turned_is_resized_upright(tmp_path: Path) -> None:
    source = samples.jpg(tmp_path / "photo.jpg", size=(64, 48), orientation=6)
    resize(source, tmp_path / "same.png", width=48, height=64, fit="contain")
    with Image.open(tmp_path / "same.png") as made:
        assert made.size == (48, 64)
        assert not near(made.convert("RGB").getpixel((2, 2)), BLACK)


@pytest.mark.parametrize(("corner", "at"), [("top-left", (4, 4)), ("bottom-right", (59, 43))])
def test_a_logo_is_laid_over_each_frame(tmp_path: Path, corner: Corner, at: tuple[int, int]) -> None:
    clip = clip_samples.solid(tmp_path / "clip.mp4", [RED] * 6, size=(64, 48), tagged=True)
    logo = plain(tmp_path / "logo.png", (*GREEN, 255))
    assert watermark(clip, logo, tmp_path / "marked.mp4", corner=corner, size=0.5) == pytest.approx(0.5)
    film = clip_samples.play(tmp_path / "marked.mp4")
    assert len(film.frames) == 6
    for shown in (film.frames[0], film.frames[5]):
        assert near(shown.getpixel(at), GREEN, by=25)
        assert near(shown.getpixel((63 - at[0], 47 - at[1])), RED, by=25)


def test_a_logo_is_laid_over_a_picture_as_far_as_it_is_opaque(tmp_path: Path) -> None:
    source, logo = plain(tmp_path / "source.png", RED, (200, 100)), plain(tmp_path / "logo.png", (*GREEN, 255))
    watermark(source, logo, tmp_path / "half.png", size=0.2, opacity=0.5)
    watermark(source, logo, tmp_path / "none.jpg", size=0.2, opacity=0)
    with Image.open(tmp_path / "half.png") as half, Image.open(tmp_path / "none.jpg") as none:
        mixed = tuple(round((a + b) / 2) for a, b in zip(RED, GREEN))
        assert near(half.convert("RGB").getpixel((180, 90)), mixed)
        assert near(half.convert("RGB").getpixel((20, 20)), RED)
        assert near(none.getpixel((180, 90)), RED)


def test_there_is_no_frame_after_the_end(three: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="has no frame at 3 s"):
        frame(three, tmp_path / "frame.png", at=3)


@pytest.mark.parametrize("zoom", ["none", "in", "out"])
def test_a_picture_becomes_a_clip(tmp_path: Path, zoom: Zoom) -> None:
    source = Image.new("RGB", (80, 60), RED)
    source.paste(BLUE, (0, 0, 4, 60))
    source.save(tmp_path / "source.png")
    length = still_clip(tmp_path / "source.png", tmp_path / "clip.mp4", seconds=1.2, width=40, zoom=zoom)
    film = clip_samples.play(tmp_path / "clip.mp4")
    assert length == pytest.approx(1.2)
    assert (len(film.frames), film.size) == (30, (40, 30))
    edges = [near(film.frames[n].getpixel((0, 15)), BLUE, by=60) for n in (0, 29)]
    assert edges == {"none": [True, True], "in": [True, False], "out": [False, True]}[zoom]
    assert near(film.frames[10].getpixel((20, 15)), RED, by=20)


@pytest.mark.parametrize("end", ["wav", "m4a"])
def test_the_sound_of_a_video_is_saved(tmp_path: Path, end: str) -> None:
    clip = samples.mp4(tmp_path / "clip.mp4", seconds=1.5)
    assert extract_audio(clip, tmp_path / f"sound.{end}") == pytest.approx(1.5, abs=0.03)
    assert clip_samples.strength(clip_samples.heard(tmp_path / f"sound.{end}"), 440, 0.2, 1) > -20


def test_a_sound_is_brought_to_a_loudness(tmp_path: Path) -> None:
    clip = clip_samples.sound(tmp_path / "quiet.wav", clip_samples.tone(1000, 3, amplitude=0.05))
    extract_audio(clip, tmp_path / "loud.wav", loudness=-20)
    assert audio_level(tmp_path / "loud.wav").lufs == pytest.approx(-20, abs=0.5)


def test_clips_are_joined_at_a_given_size(tmp_path: Path) -> None:
    clips = [
        clip_samples.solid(tmp_path / f"{n}.mp4", [c] * 6, size=s)
        for n, (c, s) in enumerate([(RED, (64, 48)), (GREEN, (36, 64))])
    ]
    concat(clips, tmp_path / "joined.mp4", fit="cover", width=48, height=48)
    film = clip_samples.play(tmp_path / "joined.mp4")
    assert film.size == (48, 48)
    assert [near(film.frames[n].getpixel((1, 1)), c) for n, c in ((2, RED), (8, GREEN))] == [True, True]


def test_the_level_of_the_music_can_be_given(tmp_path: Path) -> None:
    music = clip_samples.sound(tmp_path / "music.wav", clip_samples.tone(300, 3, amplitude=0.1))
    mix(None, music, tmp_path / "bed.wav", music_level=-30)
    assert audio_level(tmp_path / "bed.wav").lufs == pytest.approx(-30, abs=1.5)


@pytest.mark.parametrize("name", ["still.png", "moving.gif", "moving.webp"])
def test_a_picture_is_not_cut(name: str, tmp_path: Path) -> None:
    images = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN)]
    images[0].save(tmp_path / name, save_all=True, append_images=[] if name == "still.png" else images[1:])
    with pytest.raises(MediaError, match=rf"{name} is a picture, which has no length\. What to do: give a video or a"):
        trim(tmp_path / name, tmp_path / "cut.mp4", seconds=1)


def test_what_a_file_has_decides_how_it_is_cut(tmp_path: Path) -> None:
    stream = clip_samples.solid(tmp_path / "stream.ts", [RED] * 12 + [GREEN] * 12, container="mpegts")
    assert trim(stream, tmp_path / "cut.mp4", start=1, seconds=0.5) == pytest.approx(0.5)
    assert near(clip_samples.play(tmp_path / "cut.mp4").frames[0].getpixel((9, 9)), GREEN)
    (tmp_path / "song.mp4").write_bytes(samples.sound("mp4", "aac", 2))
    assert trim(tmp_path / "song.mp4", tmp_path / "cut.wav", seconds=0.5) == 0.5


def grey(values: list[float], kind: str, path: Path) -> Path:
    """A picture of 8 x 8 pixels for each of the values, from left to right."""
    Image.fromarray(np.repeat(np.repeat([values], 8, 0), 8, 1).astype(kind)).save(path)
    return path


def greys(path: Path, count: int) -> list[int]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    return [int(pixels[4, 8 * number + 4]) for number in range(count)]


@pytest.mark.parametrize(
    ("name", "kind", "values", "expected"),
    [
        ("depth.png", "uint16", [0, 16384, 32768, 65535], [0, 64, 128, 255]),
        ("depth.tiff", "uint16", [0, 16384, 32768, 65535], [0, 64, 128, 255]),
        ("big_endian.tiff", ">u2", [0, 16384, 32768, 65535], [0, 64, 128, 255]),
        ("dark.png", "uint16", [0, 257, 514], [0, 1, 2]),
        ("integers.tiff", "int32", [0, 16384, 65535], [0, 64, 255]),
        ("small_integers.tiff", "int32", [0, 64, 255], [0, 64, 255]),
        ("distances.tiff", "int32", [-100_000, 0, 100_000], [0, 128, 255]),
        ("floats.tiff", "float32", [0, 0.25, 1], [0, 64, 255]),
        ("bytes.tiff", "float32", [0, 64, 255], [0, 64, 255]),
        ("metres.tiff", "float32", [-2, 0, 2], [0, 128, 255]),
        ("nowhere.tiff", "float32", [0, float("nan"), 1, float("inf")], [0, 0, 255, 255]),
    ],
)
def test_a_picture_of_more_than_eight_bits_keeps_its_greys(
    name: str, kind: str, values: list[float], expected: list[int], tmp_path: Path
) -> None:
    source, size = grey(values, kind, tmp_path / name), (8 * len(values), 8)
    resize(source, tmp_path / "a.png", width=size[0], height=size[1])
    resize(source, tmp_path / "a.jpg", width=size[0], height=size[1])
    (tmp_path / "small.jpg").write_bytes(thumbnail(source))
    for result in ("a.png", "a.jpg", "small.jpg"):
        assert greys(tmp_path / result, len(values)) == pytest.approx(expected, abs=3), result


def test_a_clip_of_a_depth_map_is_as_grey_as_the_map(tmp_path: Path) -> None:
    still_clip(grey([30_000] * 8, "uint16", tmp_path / "depth.png"), tmp_path / "clip.mp4", seconds=0.2)
    frame(tmp_path / "clip.mp4", tmp_path / "frame.png")
    assert greys(tmp_path / "frame.png", 1) == pytest.approx([117], abs=3)


def test_the_transparent_value_of_sixteen_bits_stays_transparent(tmp_path: Path) -> None:
    with Image.open(grey([0, 30_000], "uint16", tmp_path / "plain.png")) as image:
        image.save(tmp_path / "source.png", transparency=30_000)
    resize(tmp_path / "source.png", tmp_path / "a.png", width=16, height=8)
    with Image.open(tmp_path / "a.png") as result:
        assert np.asarray(result)[4, [2, 13], 3].tolist() == [255, 0]


def _profile() -> bytes:
    """The profile of a screen whose red lamp shines green, and whose green lamp shines red."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[at : at + 4]): struct.unpack_from(">2I", data, at + 4) for at in range(132, len(data) - 12, 12)}
    (red, length), (green, _) = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red : red + length], data[green : green + length] = data[green : green + length], data[red : red + length]
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "mode", "shown"),
    [
        ("photo.jpg", "RGB", (30, 200, 30, 255)),
        ("photo.png", "RGBA", (30, 200, 30, 128)),
        ("palette.png", "P", (30, 200, 30, 255)),
        ("grey.jpg", "L", (128, 128, 128, 255)),
    ],
)
def test_a_picture_with_a_colour_profile_keeps_its_look(
    name: str, mode: str, shown: tuple[int, int, int, int], tmp_path: Path
) -> None:
    image = Image.new("RGBA", (32, 32), (128, 128, 128) if mode == "L" else (200, 30, 30, shown[3]))
    image.convert(mode).save(tmp_path / name, icc_profile=_profile())
    for result in ("a.png", "a.jpg"):
        resize(tmp_path / name, tmp_path / result, width=16, height=16)
        with Image.open(tmp_path / result) as made:
            assert "icc_profile" not in made.info
            colour = shown if result == "a.png" or shown[3] == 255 else (27, 112, 28, 255)
            assert near(made.convert("RGBA").getpixel((8, 8)), colour, by=3), result
    still_clip(tmp_path / name, tmp_path / "a.mp4", seconds=0.1)
    if shown[3] == 255:
        assert near(clip_samples.play(tmp_path / "a.mp4").frames[0].getpixel((8, 8)), shown, by=6)


def test_a_picture_in_srgb_or_with_a_broken_profile_is_not_converted(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for one in (profile, profile[:-200], b"no profile"):
        Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "photo.png", icc_profile=one)
        resize(tmp_path / "photo.png", tmp_path / "a.png", width=16, height=16)
        with Image.open(tmp_path / "a.png") as made:
            assert (made.getpixel((8, 8)), made.info["icc_profile"]) == ((200, 30, 30), one)
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "print.jpg", icc_profile=_profile())
    with Image.open(grey([0, 30_000], "uint16", tmp_path / "plain.png")) as image:
        image.save(tmp_path / "depth.png", icc_profile=_profile())
    resize(tmp_path / "print.jpg", tmp_path / "a.jpg", width=16, height=16)
    resize(tmp_path / "depth.png", tmp_path / "b.png", width=16, height=8)
    assert greys(tmp_path / "b.png", 2) == pytest.approx([0, 117], abs=3)
