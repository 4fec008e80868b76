"""Makes sound: WAV, MP3 and FLAC files, speech of hummed syllables, and music."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from rh_prefect.emulator.render.request import Limits, Request, has_any, number
from rh_prefect.emulator.render.terrain import Array
from rh_prefect.media.edit.audio_samples import RATE

_CODECS = {".mp3": ("mp3", "libmp3lame", "s16p"), ".wav": ("wav", "pcm_s16le", "s16"), ".flac": ("flac", "flac", "s16")}
_LOUDEST = 0.89


def write_sound(to: Path, samples: Array, *, rate: int, bit_rate: int = 128_000, comment: str = "") -> None:
    """Writes samples in the format given by the file's extension: .mp3, .wav or .flac.

    Args:
        to: The file.
        samples: Shape (channels, samples), -1 to 1; one or two channels. All are scaled down if one is too loud.
        rate: Samples per second.
        bit_rate: Bits per second of an MP3 file.
        comment: Text for the file's metadata.
    """
    container_format, codec, sample_format = _CODECS[to.suffix]
    layout = "mono" if samples.shape[0] == 1 else "stereo"
    with av.open(str(to), "w", format=container_format) as container:
        container.metadata.update({"comment": comment} if comment else {})
        stream = cast(AudioStream, container.add_stream(codec, rate=rate, layout=layout))
        stream.codec_context.format = av.AudioFormat(sample_format)
        if codec == "libmp3lame":
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(
            _as_int16(samples, planar=sample_format.endswith("p")), sample_format, layout
        )
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _as_int16(samples: Array, *, planar: bool) -> NDArray[np.int16]:
    peak = max(1.0, float(np.abs(samples).max(initial=0.0)) / _LOUDEST)
    whole = np.round(samples / peak * 32767).astype(np.int16)
    return np.ascontiguousarray(whole if planar else whole.T.reshape(1, -1))


SPEECH_RATE = 32000
_WORDS_PER_SECOND = 2.6
_CHARACTERS_PER_SECOND = 4.2
_PAUSES = {
    ",": 0.14,
    ";": 0.2,
    ":": 0.2,
    ".": 0.34,
    "!": 0.34,
    "?": 0.34,
    "，": 0.14,
    "、": 0.14,
    "；": 0.2,
    "。": 0.34,
}
_HEARD = re.compile(r"[\u2e80-\u2fff\u3040-\u9fff\uac00-\ud7af]|\w[\w'’-]*|[,;:.!?，、；。！？]")
_VOWELS = re.compile(r"[aeiouyäöüáéíóúàèìòù]+", re.IGNORECASE)
_FORMANTS = ((750, 1200), (500, 1850), (350, 2200), (520, 950), (380, 800))
_DEEP, _HIGH = (96, 138), (172, 236)


def speak(request: Request) -> Array:
    """Synthesizes the text of a request.

    At `speed` 1, the voice speaks about 2.6 words (4.2 Chinese characters) a second; it rests at punctuation marks.
    `voice_id` chooses the pitch of the voice, `pitch` moves this pitch by semitones, and `volume` scales the sound.

    Returns:
        Samples, shape (1, samples), at `SPEECH_RATE`.
    """
    speed = _setting(request, "speed", "voiceSpeed", least=0.5, most=2.0)
    volume = _setting(request, "volume", least=0.1, most=1.4)
    text = str(request.value("text", "previewText") or request.subject)
    parts = [np.zeros(round(0.06 * SPEECH_RATE), np.float32)]
    left = request.limits.max_seconds or float("inf")
    pitch = _pitch(request)
    for heard in request.limits.until_stop(_HEARD.findall(text)):
        parts.append(_say(heard, pitch, speed))
        left -= parts[-1].size / SPEECH_RATE
        if left <= 0:
            break
    return np.concatenate([*parts, parts[0]])[None] * np.float32(0.62 * volume)


def _setting(request: Request, *keys: str, least: float, most: float) -> float:
    return min(most, max(least, float(str(request.value(*keys) or 1.0))))


def _pitch(request: Request) -> float:
    voice = str(request.value("voice_id", "voiceId", "custom_voice_id") or "")
    if request.audios:
        voice = hashlib.sha256(request.audios[0].read_bytes()).hexdigest()
    is_high = any(word in voice.lower() for word in ("woman", "girl", "female", "lady"))
    is_deep = not is_high and any(word in voice.lower() for word in ("man", "boy", "male", "guy"))
    low, high = _DEEP if is_deep or (not is_high and number(voice, below=2)) else _HIGH
    semitones = float(str(request.value("pitch") or 0)) + _mood(request)
    return (low + number(voice, below=high - low)) * 2 ** (semitones / 12)


def _mood(request: Request) -> float:
    """Returns a random detuning of up to a third of a semitone."""
    return number(request.variant, below=2001) / 3000 - 1 / 3 if request.variant else 0.0


def _say(heard: str, pitch: float, speed: float) -> Array:
    if (pause := _PAUSES.get(heard) or (0.34 if heard in "！？" else None)) is not None:
        return np.zeros(round(pause / speed * SPEECH_RATE), np.float32)
    syllables = max(1, len(_VOWELS.findall(heard)))
    is_character = len(heard) == 1 and not heard.isascii()
    # The average English word has 1.5 syllables, so longer words take longer without changing the pace.
    seconds = 1 / _CHARACTERS_PER_SECOND if is_character else (0.55 + 0.3 * syllables) / _WORDS_PER_SECOND
    spoken = [_syllable(f"{heard}{index}", 0.86 * seconds / syllables / speed, pitch) for index in range(syllables)]
    return np.concatenate([*spoken, np.zeros(round(0.14 * seconds / speed * SPEECH_RATE), np.float32)])


def _syllable(text: str, seconds: float, pitch: float) -> Array:
    """Synthesizes one hummed vowel: harmonics under two formants, a falling or rising tone, a soft start and end."""
    count = max(64, round(seconds * SPEECH_RATE))
    at = np.linspace(0, 1, count, dtype=np.float32)
    bend = (number(text + "bend", below=7) - 3) * 0.03
    tone = pitch * 2 ** ((number(text, below=7) - 3) / 12) * (1 + bend * (at - 0.5))
    phase = np.cumsum(2 * np.pi * tone / SPEECH_RATE, dtype=np.float64)
    first, second = _FORMANTS[number(text + "vowel", below=len(_FORMANTS))]
    wave = np.zeros(count, np.float64)
    for harmonic in range(1, 13):
        high = harmonic * pitch
        weight = np.exp(-(((high - first) / 260) ** 2)) + 0.5 * np.exp(-(((high - second) / 340) ** 2)) + 0.1 / harmonic
        wave += weight * np.sin(harmonic * phase)
    rise = np.minimum(1, at * 7) * np.minimum(1, (1 - at) * 4)
    return (wave / 2.2 * rise**1.5).astype(np.float32)


_SAD = ("sad", "dark", "minor", "melanchol", "moody", "tense", "night", "rain", "drama", "悲", "暗")
_FAST = ("fast", "upbeat", "happy", "dance", "energ", "epic", "pop", "rock", "electro", "欢", "快")
_SLOW = ("slow", "calm", "ambient", "gentle", "soft", "quiet", "lullaby", "relax", "慢", "静")
_MAJOR = (("I", "V", "vi", "IV"), ("I", "vi", "IV", "V"), ("IV", "I", "V", "vi"), ("I", "iii", "IV", "V"))
_MINOR = (("vi", "IV", "I", "V"), ("vi", "iii", "IV", "I"), ("ii", "vi", "IV", "iii"))
_CHORDS = {"I": (0, 4, 7), "ii": (2, 5, 9), "iii": (4, 7, 11), "IV": (5, 9, 12), "V": (7, 11, 14), "vi": (9, 12, 16)}
_ASKED = re.compile(r"(\d+(?:\.\d+)?)\s*[- ]?(s\b|sec|seconds?\b|秒|m\b|min|minutes?\b|分)", re.IGNORECASE)
_FIGURES = (
    (0, 1, 2, 3, 2, 1, 2, 1),
    (0, 2, 1, 2, 3, 2, 1, 2),
    (3, 2, 1, 0, 1, 2, 1, 2),
    (0, 1, 2, 1, 3, 1, 2, 1),
    (0, 3, 1, 3, 2, 3, 1, 3),
)
_LONGEST = 120.0


_KEPT_NOTES = 32


@dataclass(frozen=True, slots=True)
class Score:
    """A piece of music to play.

    Attributes:
        seconds: The length in seconds, a whole number of bars.
        bars: The number of bars; each bar has one chord.
        root: The root note of the key, in semitones above A2 (110 Hz).
        chords: The chords, which are played in turn and repeated.
        figure: The arpeggio: for each of the eight quavers of a bar, the index of the chord's note.
    """

    seconds: float
    bars: int
    root: int
    chords: tuple[str, ...]
    figure: tuple[int, ...]


def play(request: Request) -> Array:
    """Plays the music of a request: stereo at `RATE`, shape (2, samples)."""
    mood = " ".join(str(request.payload.get(key, "")) for key in ("tags", "description", "prompt", "title"))
    score = compose(mood.strip() or request.subject, request.limits.cut(length_of(request)), variant=request.variant)
    return perform(score, request.limits)


def length_of(request: Request) -> float:
    """Returns the length in seconds that a request states in a parameter or in its description, otherwise 20 to 30.

    If a request has tags, its prompt contains lyrics, and lengths in the prompt are ignored.
    """
    keys = ("tags", "description") if "tags" in request.payload else ("prompt", "description")
    text = " ".join(str(request.payload.get(key, "")) for key in keys)
    if request.seconds is not None:
        return request.seconds
    if (match := _ASKED.search(text)) is not None and float(match[1]) > 0:
        minutes = match[2].lower().startswith(("m", "分"))
        return min(_LONGEST, float(match[1]) * (60 if minutes else 1))
    return 20.0 + number(request.fingerprint, below=11)


def pad_of(request: Request, seconds: float) -> Array:
    """Plays a quiet pad for a video, shape (2, samples)."""
    score = compose(request.subject, seconds, variant=request.variant)
    quiet: Array = perform(score, request.limits) * np.float32(0.5)
    return quiet


def compose(text: str, seconds: float, *, variant: str = "") -> Score:
    """Chooses key, chords and pace by the words of a text; the bars are fitted to the length.

    Args:
        text: The text that chooses key, chords and pace.
        seconds: The length of the piece in seconds.
        variant: Chooses another key, chords and figure for the same words.
    """
    progressions = _MINOR if has_any(text, _SAD) else _MAJOR
    bar = 1.9 if has_any(text, _FAST) else 3.4 if has_any(text, _SLOW) else 2.6
    chords = progressions[number(text + variant + "chords", below=len(progressions))]
    bars = max(1, round(seconds / bar))
    # Whole rounds of the chords sound finished; a few bars more or less only change the pace a little.
    bars = bars if bars < len(chords) else max(1, round(bars / len(chords))) * len(chords)
    figure = _FIGURES[number(text + variant + "figure", below=len(_FIGURES))]
    return Score(seconds, bars, number(text + variant, below=12) - 2, chords, figure)


def perform(score: Score, limits: Limits) -> Array:
    """Plays a score; notes that ring past the end continue at the beginning, so that the music can be looped."""
    total = max(1, round(score.seconds * RATE))
    out = np.zeros((2, total), np.float32)
    length = total / score.bars
    for bar in limits.until_stop(range(score.bars)):
        notes = [score.root + step for step in _CHORDS[score.chords[bar % len(score.chords)]]]
        start = round(bar * length)
        for index, note in enumerate(notes):
            _add(out, start, _pad(note + 12, length / RATE), pan=0.3 + 0.2 * index)
        _add(out, start, _pluck(notes[0] % 12, min(2.0, length / RATE), soft=2.0) * 1.1, pan=0.5)
        for beat, which in enumerate(score.figure):
            note = [*notes, notes[0] + 12][which] + 24
            _add(out, start + round(beat * length / 8), _pluck(note, 0.9, soft=6.0) * 0.42, pan=0.35 + 0.3 * (beat % 2))
    out = _reverb(out)
    loudest = float(np.abs(out).max(initial=0.0))
    return out * np.float32(0.7 / loudest) if loudest > 0 else out


def _frequency(note: float) -> float:
    return float(110.0 * 2.0 ** (note / 12))


@lru_cache(_KEPT_NOTES)
def _pad(note: int, seconds: float) -> Array:
    """Synthesizes three slightly detuned voices that swell in and overlap with the next chord."""
    count = round((seconds * 1.25) * RATE)
    at = np.arange(count, dtype=np.float32) / RATE
    wave = np.zeros(count, np.float32)
    for detune in (-0.07, 0.0, 0.07):
        phase = 2 * np.pi * _frequency(note + detune) * at
        wave += np.sin(phase) + 0.32 * np.sin(2 * phase) + 0.1 * np.sin(3 * phase)
    swell = np.minimum(1, at / (0.25 * seconds)) * np.minimum(1, (seconds * 1.25 - at) / (0.4 * seconds))
    swelling: Array = (wave * np.sin(swell * np.pi / 2) * 0.09).astype(np.float32)
    return swelling


@lru_cache(_KEPT_NOTES)
def _pluck(note: int, seconds: float, *, soft: float) -> Array:
    at = np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    phase = 2 * np.pi * _frequency(note) * at
    wave = np.sin(phase) + 0.35 * np.sin(2 * phase) * np.exp(-4 * at) + 0.15 * np.sin(4 * phase) * np.exp(-9 * at)
    shape = np.minimum(1, at / 0.006) * np.exp(-soft * at) * np.minimum(1, (seconds - at) / 0.05)
    note_played: Array = (wave * shape * 0.3).astype(np.float32)
    return note_played


def _add(out: Array, start: int, wave: Array, *, pan: float) -> None:
    """Adds a note, which wraps around the end of the loop if necessary."""
    total = out.shape[1]
    gains = np.array([[np.cos(pan * np.pi / 2)], [np.sin(pan * np.pi / 2)]], np.float32)
    while wave.size:
        start %= total
        part = wave[: total - start]
        out[:, start : start + part.size] += gains * part
        wave, start = wave[part.size :], 0


def _reverb(dry: Array) -> Array:
    """Adds the reverb of a room of 1.6 seconds by circular convolution, so that the loop has no seam."""
    total = dry.shape[1]
    count = min(total, round(1.6 * RATE))
    random = np.random.default_rng(7)
    fall = np.exp(-np.arange(count, dtype=np.float32) / (0.32 * RATE))
    room = random.standard_normal((2, count)).astype(np.float32) * fall
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    wet = np.fft.irfft(np.fft.rfft(dry, axis=1) * np.fft.rfft(room, n=total, axis=1), n=total, axis=1)
    return (dry + 0.3 * wet).astype(np.float32)
