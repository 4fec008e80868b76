"""Speech and music: real sound of the length asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
import pytest

from rh_prefect import catalog
from rh_prefect.emulator.render import Renderer
from rh_prefect.emulator.render.sound import write_sound
from rh_prefect.emulator.render.video_files import seconds_of, sound_of
from tests.support.samples import media as samples

SENTENCE = "The little train crossed the mountains and nobody knew where it was going"

Render = Callable[..., Path]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    renderer = Renderer(tmp_path / "renders")

    def make(name: str, payload: Mapping[str, object], **inputs: Path) -> Path:
        files = {key: [path] for key, path in inputs.items()}
        (output,) = renderer.render(catalog.get(name), payload, files, seed_text="seed")
        assert output.path is not None
        return output.path

    return make


def speech(render: Render, text: str = SENTENCE, **settings: object) -> Path:
    return render("minimax/speech-2.6-hd", {"text": text, "voice_id": "Wise_Woman", **settings})


def heard(path: Path) -> np.ndarray:
    return np.concatenate(list(sound_of(path)), axis=1)


def pitch(path: Path) -> float:
    """The pitch of a voice: the delay at which the sound is most like itself, between 60 and 400 Hz."""
    sound = heard(path)[0]
    spectrum = np.abs(np.fft.rfft(sound, 2 * sound.size)) ** 2
    likeness = np.fft.irfft(spectrum)
    return 44100 / (110 + int(likeness[110:735].argmax()))


def test_speech_is_as_long_as_its_text(render: Render) -> None:
    path = speech(render)
    assert path.suffix == ".mp3"
    assert seconds_of(path) == pytest.approx(13 / 2.6, rel=0.2)
    assert seconds_of(speech(render, f"{SENTENCE} {SENTENCE}")) == pytest.approx(26 / 2.6, rel=0.2)


def test_the_voice_can_be_heard_and_does_not_clip(render: Render) -> None:
    loud = np.abs(heard(speech(render, volume=10.0)))
    assert 0.3 < loud.max() < 1.0
    assert np.abs(heard(speech(render, volume=0.1))).max() < 0.4 * loud.max()


def test_a_cloned_voice_speaks_the_text(render: Render, tmp_path: Path) -> None:
    voice = samples.mp3(tmp_path / "voice.mp3")
    path = render("minimax/voice-clone", {"text": SENTENCE, "custom_voice_id": "abcdefgh1"}, audio=voice)
    assert seconds_of(path) == pytest.approx(13 / 2.6, rel=0.2)


@pytest.mark.parametrize(
    ("description", "seconds"), [("calm piano, 4 seconds", 4), ("a 3s jingle", 3), ("半拍, 3秒", 3)]
)
def test_music_has_the_length_that_is_asked_for(render: Render, description: str, seconds: float) -> None:
    path = render("suno-single-v5", {"description": description})
    assert seconds_of(path) == pytest.approx(seconds, abs=0.1)
    sound = heard(path)
    assert 0.4 < np.abs(sound).max() < 0.95
    thirds = [np.sqrt((part**2).mean()) for part in np.array_split(sound[0], 6)]
    assert min(thirds) > 0.03, "it plays to the end"


@pytest.mark.parametrize(("suffix", "codec"), [(".mp3", "mp3float"), (".wav", "pcm_s16le"), (".flac", "flac")])
@pytest.mark.parametrize("channels", [1, 2])
def test_formats(tmp_path: Path, suffix: str, codec: str, channels: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 44100)[None].repeat(channels, axis=0).astype(np.float32) * 3
    write_sound(tmp_path / f"tone{suffix}", tone, rate=44100)
    with av.open(str(tmp_path / f"tone{suffix}")) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.codec_context.channels) == (codec, channels)
    sound = heard(tmp_path / f"tone{suffix}")
    crest = np.abs(sound).max() / np.sqrt((sound**2).mean())
    assert crest == pytest.approx(2**0.5, abs=0.04), "turned down instead of clipped"
    assert np.abs(np.fft.rfft(sound[0])).argmax() * 44100 / sound.shape[1] == pytest.approx(440, abs=3)
