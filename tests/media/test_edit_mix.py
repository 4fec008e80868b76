from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.muxing import mux
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLUE, GREEN, RED, near

VOICE, MUSIC = 440, 3000


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return clip_samples.sound(tmp_path / "voice.wav", clip_samples.tone(VOICE, 1.5, 0.05))


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return clip_samples.sound(tmp_path / "music.wav", clip_samples.tone(MUSIC, 7, 0.5))


def test_music_steps_back_under_speech_and_returns(voice: Path, music: Path, tmp_path: Path) -> None:
    mix([(2, voice)], music, tmp_path / "track.wav", seconds=7)
    track = clip_samples.heard(tmp_path / "track.wav")
    before, under, after = (clip_samples.strength(track, MUSIC, at, 0.5) for at in (1, 2.5, 4.4))
    assert under < before - 11
    assert after == pytest.approx(before, abs=1)
    assert clip_samples.strength(track, VOICE, 2.5, 0.5) > under + 12
    assert clip_samples.strength(track, VOICE, 1, 0.5) < -70
    assert clip_samples.strength(track, VOICE, 4.4, 0.5) < -70


def test_the_end_fades_out(music: Path, tmp_path: Path) -> None:
    mix(None, music, tmp_path / "track.wav", seconds=6)
    track = clip_samples.heard(tmp_path / "track.wav")
    loudness = [clip_samples.strength(track, MUSIC, at, 0.2) for at in (3.7, 4.5, 5.2, 5.8)]
    assert all(later < earlier - 1.5 for earlier, later in itertools.pairwise(loudness))
    assert np.abs(track[:, -48:]).max() < 0.001


def test_short_music_is_repeated_without_a_gap_or_a_click(tmp_path: Path) -> None:
    """The tone's phase is half a turn off from one pass to the next: a hard cut would make the largest step."""
    short = clip_samples.sound(tmp_path / "short.wav", clip_samples.tone(2999.3, 1.03, 0.25))
    mix(None, short, tmp_path / "track.wav", seconds=8)
    track = clip_samples.heard(tmp_path / "track.wav")[0, 4800 : 5 * 48000]
    loudness = [np.sqrt(np.mean(track[at : at + 12000] ** 2)) for at in range(0, len(track), 12000)]
    assert min(loudness) > 0.3 * np.median(loudness)
    assert max(loudness) < 1.2 * np.median(loudness)
    assert np.abs(np.diff(track)).max() < 1.1 * 0.3925 * np.median(loudness) * np.sqrt(2)


def test_lines_begin_at_their_times_and_are_equally_loud(tmp_path: Path) -> None:
    quiet = clip_samples.sound(tmp_path / "quiet.wav", clip_samples.tone(VOICE, 1, 0.03))
    loud = clip_samples.sound(tmp_path / "loud.wav", clip_samples.tone(VOICE, 1, 0.9))
    assert mix([(3.25, quiet), (0.5, loud)], None, tmp_path / "track.wav") == pytest.approx(4.25)
    track = clip_samples.heard(tmp_path / "track.wav")
    first, second = (clip_samples.strength(track, VOICE, at, 0.5) for at in (0.7, 3.5))
    assert first == pytest.approx(second, abs=0.5)
    on = np.flatnonzero(np.abs(track[0]) > 0.01) / 48000
    assert on[0] == pytest.approx(0.5, abs=0.005)
    assert on[np.searchsorted(on, 2)] == pytest.approx(3.25, abs=0.005)
    assert clip_samples.loudness(tmp_path / "track.wav", start=0.5, seconds=1) == pytest.approx(-16, abs=0.1)


def test_overlapping_lines_are_both_heard(tmp_path: Path) -> None:
    low, high = (clip_samples.sound(tmp_path / f"{hz}.wav", clip_samples.tone(hz, 1)) for hz in (440, 1000))
    mix([(0, low), (0.5, high)], None, tmp_path / "track.wav")
    track = clip_samples.heard(tmp_path / "track.wav")
    assert all(clip_samples.strength(track, hz, 0.6, 0.3) > -20 for hz in (440, 1000))


@pytest.mark.parametrize("name", ["track.wav", "track.m4a"])
def test_nothing_clips_however_loud_it_comes_in(tmp_path: Path, name: str) -> None:
    hiss = np.random.default_rng(7).uniform(-1, 1, 3 * 48000)
    # Rare peaks above a low mean: bringing it to its loudness asks for far more than full scale.
    peaky = clip_samples.tone(VOICE, 3, 0.01) + np.where(np.arange(3 * 48000) % 9600 < 40, 0.9, 0)
    inputs = [clip_samples.sound(tmp_path / f"{number}.wav", wave) for number, wave in enumerate((peaky, hiss))]
    mix(inputs[0], inputs[1], tmp_path / name)
    assert -8 < clip_samples.peak(tmp_path / name) < (-1.9 if name.endswith("wav") else -0.1)


def test_a_track_is_about_as_loud_as_the_web_wants_it(voice: Path, music: Path, tmp_path: Path) -> None:
    mix([(at, voice) for at in (0.5, 2.5, 4.5)], music, tmp_path / "both.wav", seconds=7)
    mix(None, music, tmp_path / "music.wav.wav")
    assert audio_level(tmp_path / "both.wav").lufs == pytest.approx(-16, abs=1.5)
    assert clip_samples.loudness(tmp_path / "music.wav.wav", start=0, seconds=4) == pytest.approx(-16, abs=0.5)


@pytest.mark.parametrize(("name", "slack"), [("track.wav", 0), ("track.m4a", 0.03)])
def test_a_track_is_as_long_as_asked_for(voice: Path, music: Path, tmp_path: Path, name: str, slack: float) -> None:
    assert mix(voice, music, tmp_path / name, seconds=1.2345) == pytest.approx(1.2345, abs=0.0001)
    assert audio_level(tmp_path / name).seconds == pytest.approx(1.2345, abs=0.0001 + slack)
    # Without a length, music outlasts the last word by a moment.
    to = tmp_path / f"other-{name}"
    lengths = [mix([(1, voice)], music, to), mix([(1, voice)], None, to), mix(None, music, to)]
    assert lengths == pytest.approx([4, 2.5, 7])


def test_silence_is_not_made_into_noise(tmp_path: Path) -> None:
    silent = clip_samples.sound(tmp_path / "silent.wav", np.zeros(48000))
    mix(silent, silent, tmp_path / "track.wav")
    assert mix(None, None, tmp_path / "asked for.wav", seconds=0.5) == 0.5
    assert max(clip_samples.peak(tmp_path / f"{name}.wav") for name in ("track", "asked for")) < -90


def test_levels_are_what_the_standard_says(tmp_path: Path) -> None:
    """BS.1770: a sine of 997 Hz at -20 dBFS in both channels has -20 LUFS; pauses do not count."""
    wave = np.concatenate([clip_samples.tone(997, 4, 0.1), np.zeros(2 * 48000)])
    level = audio_level(clip_samples.sound(tmp_path / "sine.wav", wave))
    assert level.seconds == 6
    assert level.lufs == pytest.approx(-20, abs=0.2)
    assert audio_level(clip_samples.sound(tmp_path / "none.wav", wave[-48000:])).lufs == -70


@pytest.mark.parametrize("seconds", [0.02, 0.3, 0.399, 0.4, 0.45])
def test_a_word_of_less_than_a_block_is_as_loud_as_a_longer_one(tmp_path: Path, seconds: float) -> None:
    level = audio_level(clip_samples.sound(tmp_path / "word.wav", clip_samples.tone(997, seconds, 0.1)))
    assert level.seconds == pytest.approx(seconds)
    assert level.lufs == pytest.approx(-20, abs=0.1)


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
    assert np.allclose(film.lengths, 2, atol=0.03)
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
