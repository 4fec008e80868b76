"""Speech models: a voice of hummed syllables, as long as the text takes to be said."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from rh_prefect.emulator.render.request import Request, number
from rh_prefect.emulator.render.terrain import Array

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
    """Says the text of a request.

    About 2.6 words a second (4.2 characters of Chinese), divided by `speed`, and a rest at each punctuation mark.
    `voice_id` chooses the pitch of the voice, `pitch` moves it by semitones, `volume` makes it louder.

    Returns:
        Samples, shape (1, samples), at `SPEECH_RATE`.
    """
    speed = _setting(request, "speed", "voiceSpeed", least=0.5, most=2.0)
    volume = _setting(request, "volume", least=0.1, most=1.4)
    text = str(request.value("text", "previewText") or request.subject)
    parts = [np.zeros(round(0.06 * SPEECH_RATE), np.float32)]
    left = request.limits.max_seconds or float("inf")
    pitch = _pitch(request)
    for heard in _HEARD.findall(text):
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
    """Up to a third of a semitone: nobody says a thing twice in quite the same way."""
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
    """One hummed vowel: harmonics under two formants, a falling or rising tone, a soft beginning and end."""
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
