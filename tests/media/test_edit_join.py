from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rh_prefect.media.edit.frames_and_thumbnails import frame
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.muxing import mux
from rh_prefect.media.edit.single_file_edits import add_sounds, extract_audio, trim
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLACK, BLUE, GREEN, RED, near


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Wide and slow, small and upright and fast, another container and pixel format: all of them together 2.5 s."""
    other = {"size": (64, 48), "fps": 10, "container": "matroska", "pixels": "yuv444p"}
    return [
        clip_samples.solid(tmp_path / "wide.mp4", [RED] * 12, size=(128, 72)),
        clip_samples.solid(tmp_path / "upright.mp4", [GREEN] * 25, size=(36, 64), fps=25),
        clip_samples.solid(tmp_path / "other", [BLUE] * 5, **other),  # type: ignore[arg-type]
    ]


def test_clips_of_all_kinds_become_one_plain_video(three: list[Path], tmp_path: Path) -> None:
    seconds = concat(three, tmp_path / "joined.mp4")
    film = clip_samples.play(tmp_path / "joined.mp4")
    assert (film.codecs, film.pixels, film.size, film.fps) == (("h264",), "yuv420p", (128, 72), Fraction(25))
    assert abs(seconds - 2.5) <= 2 / 25
    assert abs(film.seconds - seconds) < 0.001
    assert np.allclose(film.times, np.arange(len(film.frames)) / 25, atol=0.001)
    assert clip_samples.index_first(tmp_path / "joined.mp4")
    # Each clip is shown whole between bars, from its start on.
    for start, colour, bar in zip((0, 1, 2), (RED, GREEN, BLUE), (0, 44, 16)):
        for picture in (film.frames[start * 25 + 2], film.frames[start * 25 + 10]):
            assert near(picture.getpixel((64, 36)), colour)
            assert near(picture.getpixel((bar + 3, 3)), colour)
            assert not bar or near(picture.getpixel((bar - 4, 36)), BLACK)
            assert not bar or near(picture.getpixel((127 - bar + 4, 36)), BLACK)


def test_kept_sound_stays_with_its_picture_and_is_silent_under_silent_clips(tmp_path: Path) -> None:
    clips = [
        samples.mp4(tmp_path / "low.mp4", seconds=1, hz=440),
        clip_samples.solid(tmp_path / "silent.mp4", [RED] * 12),
        samples.mp4(tmp_path / "high.mp4", seconds=1, hz=3000),
    ]
    seconds = concat(clips, tmp_path / "joined.mp4")
    film = clip_samples.play(tmp_path / "joined.mp4")
    assert (film.codecs, film.audio) == (("h264", "aac"), (48000, 2))
    assert np.allclose(film.lengths, seconds, atol=1 / 12)
    sound = clip_samples.heard(tmp_path / "joined.mp4")
    for start, (low, high) in zip((0, 1, 2), [(True, False), (False, False), (False, True)]):
        assert (clip_samples.strength(sound, 440, start + 0.2, 0.6) > -15) == low
        assert (clip_samples.strength(sound, 3000, start + 0.2, 0.6) > -15) == high
    assert np.abs(sound[:, round(1.1 * 48000) : round(1.9 * 48000)]).max() < 0.001


@pytest.mark.parametrize("late", [0.5, -0.5])
def test_sound_that_begins_before_or_after_the_picture_is_kept_in_time(tmp_path: Path, late: float) -> None:
    """The tone sounds from the second picture second on, whenever its track begins."""
    wave = np.concatenate([np.zeros(round((1 - late) * 48000)), clip_samples.tone(440, 1)])
    clip = _with_sounds(tmp_path / "shifted.mkv", [(1 + late, wave)], begin=1)
    silent = clip_samples.solid(tmp_path / "silent.mp4", [BLUE] * 48)
    concat([clip], tmp_path / "joined.mp4")
    extract_audio(clip, tmp_path / "sound.wav")
    extract_audio(clip, tmp_path / "level.wav", loudness=-20)
    mux(silent, clip, tmp_path / "film.mp4")
    add_sounds(silent, clip, tmp_path / "both.wav")
    for name in ("joined.mp4", "sound.wav", "level.wav", "film.mp4", "both.wav"):
        loud = np.abs(clip_samples.heard(tmp_path / name)[0]) > 0.05
        assert abs(np.argmax(loud) / 48000 - 1) < 0.03, name


def test_the_sound_of_an_avi_with_delayed_frames_stays_in_sync(tmp_path: Path) -> None:
    """Its frames have no times: those that FFmpeg guesses are late by the delay."""
    wave = np.concatenate([np.zeros(48_000), clip_samples.tone(440, 1)])
    clip = _with_sounds(tmp_path / "clip.avi", [(0, wave)], container="avi", delayed=2)
    extract_audio(clip, tmp_path / "sound.wav")
    assert np.argmax(np.abs(clip_samples.heard(tmp_path / "sound.wav")[0]) > 0.05) / 48000 == pytest.approx(1, abs=0.03)


def test_a_recording_that_begins_between_key_frames_stays_in_sync(tmp_path: Path) -> None:
    """Its sound begins at 0.25 s, its first frame that can be decoded is at 1 s; at 2 s, it is bright and loud."""
    whole = _with_sounds(tmp_path / "whole.mkv", [(0, np.zeros(96_000)), (2, clip_samples.tone(440, 1))])
    cut, sound, film = tmp_path / "cut.mkv", tmp_path / "sound.wav", tmp_path / "film.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", format="matroska") as file:
        copies = [file.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.size and float((packet.pts or 0) * packet.time_base) >= 0.25:
                packet.stream = copies[packet.stream.index]
                file.mux(packet)
    extract_audio(cut, sound)
    edits: dict[str, Callable[[], object]] = {
        "concat": lambda: concat([cut], film),
        "trim": lambda: trim(cut, film, seconds=3),
        "mux": lambda: mux(cut, cut, film),
        "mux its sound": lambda: mux(cut, sound, film),
    }
    for name, edit in edits.items():
        edit()
        bright = [picture.getpixel((30, 20)) > (128, 128, 128) for picture in clip_samples.play(film).frames]  # type: ignore[operator]
        loud = np.abs(clip_samples.heard(film)[0]) > 0.05
        assert (bright.index(True) / 12, np.argmax(loud) / 48000) == pytest.approx((1, 1), abs=0.03), name
    frame(cut, tmp_path / "dark.png", at=0.9)
    frame(cut, tmp_path / "bright.png", at=1.05)
    assert [np.asarray(Image.open(tmp_path / f"{name}.png")).mean() > 128 for name in ("dark", "bright")] == [
        False,
        True,
    ]


@pytest.mark.parametrize(("codec", "rate"), [("pcm_s16le", 48000), ("aac", 44100)])
def test_a_gap_in_the_sound_is_silent(tmp_path: Path, codec: str, rate: int) -> None:
    """The tone sounds from 0 to 1 s and from 3 to 4 s; nothing was recorded in between."""
    clip = _with_tones(tmp_path / "gap.mkv", [0, 3], codec=codec, rate=rate)
    concat([clip], tmp_path / "joined.mp4")
    trim(clip, tmp_path / "cut.mp4", start=0.5, seconds=3.5)
    extract_audio(clip, tmp_path / "sound.wav")
    for name, since in (("joined.mp4", 0.0), ("cut.mp4", 0.5), ("sound.wav", 0.0)):
        sound = clip_samples.heard(tmp_path / name)
        heard = [round((at - since) * 48000) for at in (0.6, 1.2, 2.5, 3.1, 3.6)]
        loud = [bool(np.abs(sound[0, at : at + 12_000]).max() > 0.1) for at in heard]
        assert loud == [True, False, False, True, True], name
        assert sound.shape[1] / 48000 == pytest.approx(4 - since, abs=0.06)


@pytest.mark.parametrize("starts", [[0, 1.05], [0, 0.5], [0, 5000]], ids=["rounded", "back", "beyond the end"])
def test_times_that_are_no_gap_change_no_sound(tmp_path: Path, starts: list[float]) -> None:
    clip = _with_tones(tmp_path / "clip.mkv", starts)
    if starts[1] == 5000:
        header = re.sub(
            rb"\x44\x89\x88.{8}", b"\x44\x89\x88" + struct.pack(">d", 4000), clip.read_bytes(), flags=re.DOTALL
        )
        clip.write_bytes(header)
    assert clip_samples.heard(clip).shape[1] / 48000 == pytest.approx(2 * 46 * 1024 / 48000, abs=0.01)


def test_colours_are_the_same_whether_a_clip_names_its_matrix_or_not(tmp_path: Path) -> None:
    plain = clip_samples.solid(tmp_path / "plain.mp4", [RED] * 4)
    tagged = clip_samples.solid(tmp_path / "tagged.mp4", [RED] * 4, tagged=True)
    for clips in ([plain, tagged], [tagged, tagged], [plain, plain]):
        concat(clips, tmp_path / "joined.mp4")
        frames = clip_samples.play(tmp_path / "joined.mp4").frames
        assert all(near(frames[number].getpixel((30, 30)), RED, by=6) for number in (1, 6))


def test_odd_sizes_and_fractional_rates_are_no_obstacle(tmp_path: Path) -> None:
    odd, rate = tmp_path / "odd.mp4", Fraction(30000, 1001)
    clip_samples.solid(odd, [GREEN] * 30, size=(65, 49), fps=rate, pixels="yuv444p")
    assert concat([odd, odd], tmp_path / "joined.mp4") == pytest.approx(2.002)
    film = clip_samples.play(tmp_path / "joined.mp4")
    assert (film.fps, len(film.frames)) == (rate, 60)
    assert all(length % 2 == 0 for length in film.size)


def test_pixels_become_square_and_rates_are_at_most_sixty(tmp_path: Path) -> None:
    squeezed = clip_samples.solid(tmp_path / "squeezed.mp4", [RED] * 3, size=(64, 48), pixel_aspect=Fraction(2))
    concat([squeezed], tmp_path / "joined.mp4")
    frame(squeezed, tmp_path / "frame.png", at="last")
    for picture in (clip_samples.play(tmp_path / "joined.mp4").frames[0], Image.open(tmp_path / "frame.png")):
        assert picture.size == (128, 48)
    seconds = concat([clip_samples.solid(tmp_path / "fast.mp4", [RED] * 30, fps=120)], tmp_path / "joined.mp4")
    assert clip_samples.play(tmp_path / "joined.mp4").fps == 60
    assert seconds == pytest.approx(0.25, abs=1 / 60)


def _with_tones(path: Path, starts: list[float], *, codec: str = "pcm_s16le", rate: int = 48000) -> Path:
    """A film of 4 s with a tone of about a second from each of these times on."""
    tone = clip_samples.tone(440, 1, 0.5)[: rate // 1024 * 1024]
    return _with_sounds(path, [(start, tone) for start in starts], codec=codec, rate=rate)


def _with_sounds(
    path: Path,
    sounds: list[tuple[float, np.ndarray]],
    *,
    begin: int = 0,
    codec: str = "pcm_s16le",
    rate: int = 48000,
    container: str = "matroska",
    delayed: int = 0,
) -> Path:
    """A film of 4 s, bright from 2 s on, which begins at a second of its own, with sounds that begin at theirs."""
    with av.open(str(path), "w", format=container) as file:
        picture = file.add_stream("libx264", rate=12, options={"g": "12", "bf": str(delayed)})
        picture.width, picture.height = 64, 48
        track = file.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(track, av.AudioStream)
        packets = []
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number // 24 * 255, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 12 * begin + number, Fraction(1, 12)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        form = "s16" if codec == "pcm_s16le" else "fltp"
        for start, wave in sounds:
            wave = (wave[None] * 32767).astype(np.int16) if form == "s16" else wave[None].astype(np.float32)
            for at in range(0, wave.shape[1], 1024):
                sound = av.AudioFrame.from_ndarray(wave[:, at : at + 1024].copy(), format=form, layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = rate, round(start * rate) + at, Fraction(1, rate)
                packets += track.encode(sound)
        packets += track.encode(None)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            file.mux(packet)
    return path
