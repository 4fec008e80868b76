"""Creates subtitles in SRT or WebVTT from texts and their times."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rh_prefect.errors import InputError

_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)]*(?=\s|$)|[。！？]+[」』”’）]*|$)", re.DOTALL)
_READ = 15.0
"""Characters that are read in a second."""
_SHORTEST = 1.0
_GAP = 0.04
_ARROW = re.compile(r"-{2,}>")
"""Separates the times of a cue; SRT has no way to escape it in a text."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A text and when it is shown, in seconds."""

    start: float
    end: float
    text: str


def subtitles(
    texts: Sequence[str],
    *,
    at: Sequence[float] | None = None,
    seconds: float | None = None,
    form: Literal["srt", "vtt"] = "srt",
) -> str:
    """Writes subtitles.

    Args:
        texts: What is said.
        at: The second at which each text begins; without it `seconds` is shared by all sentences, by their characters.
        seconds: The length of the film: no text is shown after it, and the last one until then. With `at` it may be
            left out; the last text is then shown as long as it takes to read it.
        form: `srt` or `vtt`.
    """
    cues = _cues_at(texts, at, seconds) if at is not None else _cues_over(texts, seconds)
    if form == "vtt":
        return "WEBVTT\n\n" + "".join(
            f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(cue.text, quote=False)}\n\n"
            for cue in cues
        )
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_ARROW.sub('->', cue.text)}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def _cues_at(texts: Sequence[str], at: Sequence[float], seconds: float | None) -> list[Cue]:
    if len(texts) != len(at):
        raise InputError(
            f"There are {len(texts)} texts and {len(at)} times. What to do: pass one time for each text; "
            "both lists must come from the same group."
        )
    spoken = [(start, text) for start, text in sorted(zip(at, map(_one_cue, texts)), key=lambda one: one[0]) if text]
    starts = [start for start, _ in spoken]
    cues: list[Cue] = []
    for number, (start, text) in enumerate(spoken):
        until = start + max(_SHORTEST, len(text) / _READ)
        if number + 1 < len(starts):
            until = starts[number + 1] - _GAP
        elif seconds is not None:
            until = seconds
        cues.append(Cue(start, max(until, start + _GAP), text))
    return cues if seconds is None else [_within(cue, seconds) for cue in cues]


def _within(cue: Cue, seconds: float) -> Cue:
    if round(cue.start, 3) >= round(seconds, 3):  # in milliseconds, as it is written
        raise InputError(
            f"The text {cue.text[:40]!r} begins at {cue.start:g} s, and `seconds` is {seconds:g}. What to do: pass the "
            "times and the length of the same film."
        )
    return replace(cue, end=min(cue.end, seconds))


def _cues_over(texts: Sequence[str], seconds: float | None) -> list[Cue]:
    if seconds is None:
        raise InputError(
            "Subtitles need times. What to do: set `at` (a start time in seconds for each text), or "
            "`seconds` (the total length)."
        )
    parts = [part for text in texts for part in sentences(text)]
    letters = sum(map(len, parts))
    cues, read = [], 0
    for part in parts:
        start = seconds * read / letters
        read += len(part)
        cues.append(Cue(start, seconds * read / letters, part))
    return cues


def sentences(text: str) -> list[str]:
    """Splits a text into sentences."""
    found = (_one_cue(part) for part in _SENTENCE.findall(text))
    return [part for part in found if part]


def _one_cue(text: str) -> str:
    """A text without empty lines, which would end its cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _clock(seconds: float, point: str) -> str:
    whole, milli = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milli:03}"
