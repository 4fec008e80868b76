from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from rh_prefect.media.edit import mux
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLUE, GREEN, RED, near


def _packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(video=0) if packet.size]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return samples.mp4(tmp_path / "picture.mp4", seconds=2, audio=False)


@pytest.mark.parametrize("length", [1.2, 3])
def test_a_film_is_as_long_as_its_picture(picture: Path, tmp_path: Path, length: float) -> None:
    track = samples.wav(tmp_path / "track.wav", seconds=length)
    assert mux(picture, track, tmp_path / "film.mp4") == pytest.approx(2)
    film = clip_samples.play(tmp_path / "film.mp4")
    assert (film.codecs, film.audio) == (("h264", "aac"), (48000, 2))
    assert np.allclose((film.seconds, *film.lengths), 2, atol=0.03)
    assert np.allclose(film.starts, 0, atol=0.001)
    sound = clip_samples.heard(tmp_path / "film.mp4")
    assert clip_samples.strength(sound, 440, 0.2, 0.8) > -15
    assert (clip_samples.strength(sound, 440, 1.4, 0.5) > -15) == (length == 3)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_h264_is_copied_bit_by_bit_in_time(tmp_path: Path, container: str) -> None:
    picture = clip_samples.solid(tmp_path / "picture", [RED, GREEN, BLUE] * 8, container=container)
    mux(picture, samples.wav(tmp_path / "track.wav"), tmp_path / "film.mp4")
    film = clip_samples.play(tmp_path / "film.mp4")
    assert _packets(tmp_path / "film.mp4") == _packets(picture)
    assert np.allclose(film.times, np.arange(24) / 12, atol=0.002)
    assert clip_samples.index_first(tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("container", "pixels"),
    [("avi", "yuv420p"), ("mp4", "yuv444p")],
    ids=["no times of packets", "a form that few players show"],
)
def test_h264_that_cannot_be_copied_is_encoded_anew(tmp_path: Path, container: str, pixels: str) -> None:
    picture = clip_samples.solid(tmp_path / "a", [RED] * 12 + [GREEN] * 12, container=container, pixels=pixels)
    assert mux(picture, samples.wav(tmp_path / "track.wav"), tmp_path / "film.mp4") == pytest.approx(2, abs=0.1)
    film = clip_samples.play(tmp_path / "film.mp4")
    assert (film.codecs, film.pixels, film.size) == (("h264", "aac"), "yuv420p", (64, 48))
    assert np.allclose(film.times, np.arange(len(film.frames)) / 12, atol=0.002)
    assert [near(film.frames[number].getpixel((30, 30)), RED) for number in (5, 20)] == [True, False]


def test_other_codecs_are_encoded_anew(tmp_path: Path) -> None:
    picture = samples.video(tmp_path / "picture.webm", container="webm", seconds=1, audio=False)
    mux(picture, samples.mp3(tmp_path / "track.mp3", seconds=1), tmp_path / "film.mp4")
    film = clip_samples.play(tmp_path / "film.mp4")
    assert (film.codecs, film.pixels, film.size, len(film.frames)) == (("h264", "aac"), "yuv420p", (64, 48), 12)


def test_a_sound_is_heard_when_it_should_be(picture: Path, tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(48000), clip_samples.tone(440, 0.5)])
    mux(picture, clip_samples.sound(tmp_path / "track.wav", wave), tmp_path / "film.mp4")
    loud = np.flatnonzero(np.abs(clip_samples.heard(tmp_path / "film.mp4")[0]) > 0.05) / 48000
    assert loud[0] == pytest.approx(1, abs=0.01)
    assert loud[-1] == pytest.approx(1.5, abs=0.01)


def test_the_sound_of_a_video_can_be_given_and_replaces_the_other(tmp_path: Path) -> None:
    low, high = (samples.mp4(tmp_path / f"{hz}.mp4", hz=hz) for hz in (440, 3000))
    mux(low, high, tmp_path / "film.mp4")
    sound = clip_samples.heard(tmp_path / "film.mp4")
    assert len(clip_samples.play(tmp_path / "film.mp4").codecs) == 2
    assert clip_samples.strength(sound, 3000, 0.2, 0.6) > -15 > clip_samples.strength(sound, 440, 0.2, 0.6)
