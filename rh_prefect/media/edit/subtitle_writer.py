"""Creates subtitles in SRT or WebVTT from texts and their times."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile, zip_longest
from pathlib import Path
from typing import Literal

from rh_prefect.display_texts import counted
from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.video_reader import reading

_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)]*(?=\s|$)|[。！？]+[」』”’）]*|$)", re.DOTALL)
_READ = 15.0
"""Reading speed in characters per second."""
_SHORTEST = 1.0
_GAP = 0.04
_CLOCK = r"(?:\d+:)?\d+:\d+[,.]\d+"
_TIMES = re.compile(rf"(?P<start>{_CLOCK})\s*-->\s*(?P<end>{_CLOCK})")
_STYLE = re.compile(
    rf"</?(?:b|i|u|s|font|c|v|lang|ruby|rt)(?:[.\s][^<>]*)?>|<{_CLOCK}>|\{{\\[^{{}}]*\}}", re.IGNORECASE
)
"""The tags of SRT and WebVTT; other text between angle brackets is shown."""

_ARROW = re.compile(r"-{2,}>")
"""The arrow that separates the times of a cue; in SRT, a text cannot contain an arrow."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A text, with the start and the end of its display in seconds."""

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
    """Writes texts as subtitles, in the format SRT or WebVTT.

    `at` has the second at which each text begins. Texts with the same start share the time until the next start, in
    proportion to their lengths. Without `at`, all sentences share `seconds`, the length of the film, in this way.
    Without `seconds`, the last text is shown for as long as it takes to read it.
    """
    cues = cues_of(texts, at=at, seconds=seconds)
    if form == "vtt":
        return "WEBVTT\n\n" + "".join(
            f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(cue.text, quote=False)}\n\n"
            for cue in cues
        )
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_ARROW.sub('->', cue.text)}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def cues_of(texts: Sequence[str], *, at: Sequence[float] | None, seconds: float | None) -> list[Cue]:
    """Returns the subtitles of texts: each text with its start and its end; see `subtitles`."""
    return _cues_at(texts, at, seconds) if at is not None else _cues_over(texts, seconds)


def read_cues(path: Path) -> list[Cue]:
    """Reads SRT or WebVTT; styles are ignored."""
    with reading(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    found: list[Cue] = []
    for number, line in enumerate(lines):
        if times := _TIMES.search(line):
            text = [_STYLE.sub("", one) for one in takewhile(str.strip, lines[number + 1 :])]
            start, end = (_seconds(times[name]) for name in ("start", "end"))
            found.append(Cue(start, end, html.unescape("\n".join(text))))
    if not found:
        raise MediaError(f"The file {path} has no subtitles. What to do: give an SRT or WebVTT file.")
    return [cue for cue in found if cue.text.strip() and cue.end > cue.start]


def _seconds(clock: str) -> float:
    whole = 0.0
    for part in clock.replace(",", ".").split(":"):
        whole = whole * 60 + float(part)
    return whole


def _cues_at(texts: Sequence[str], at: Sequence[float], seconds: float | None) -> list[Cue]:
    if len(texts) != len(at):
        raise InputError(
            f"There are {counted(len(texts), 'text')} but {counted(len(at), 'start time')}. What to do: pass one time "
            "for each text; in a pipeline, take both lists from the same group of steps."
        )
    together: dict[float, list[str]] = {}
    for start, text in sorted(zip(at, map(_one_cue, texts)), key=lambda one: one[0]):
        if text:
            together.setdefault(round(start, 3), []).append(text)  # in milliseconds, as it is written
    if seconds is not None:
        _check_length(together, round(seconds, 3))
    starts = list(together)
    return [
        cue
        for start, following in zip_longest(starts, starts[1:])
        for cue in _shared(together[start], start, _end(start, together[start], following, seconds))
    ]


def _end(start: float, texts: Sequence[str], following: float | None, seconds: float | None) -> float:
    """Returns the end of the texts that begin together."""
    if following is not None:
        return following - _GAP if following - start > 2 * _GAP else following
    return seconds if seconds is not None else start + sum(max(_SHORTEST, len(text) / _READ) for text in texts)


def _check_length(together: Mapping[float, Sequence[str]], seconds: float) -> None:
    for start, texts in together.items():
        if start >= seconds:
            raise InputError(
                f"The text {texts[0][:40]!r} begins at {start:g} s, but the film ends at {seconds:g} s (`seconds`). "
                "What to do: pass the times and the length of the same film."
            )


def _cues_over(texts: Sequence[str], seconds: float | None) -> list[Cue]:
    if seconds is None:
        raise InputError(
            "Subtitles need times. What to do: set `at` (a start time in seconds for each text), or "
            "`seconds` (the total length)."
        )
    return _shared([part for text in texts for part in sentences(text)], 0.0, seconds)


def _shared(parts: Sequence[str], start: float, end: float) -> list[Cue]:
    """Divides a period among texts, in the order of the texts and in proportion to their lengths."""
    read = list(accumulate(map(len, parts), initial=0))
    bounds = [start + (end - start) * one / (read[-1] or 1) for one in read]
    return [Cue(since, until, part) for part, (since, until) in zip(parts, pairwise(bounds), strict=True)]


def sentences(text: str) -> list[str]:
    """Splits a text into its sentences, each with its punctuation."""
    found = (_one_cue(part) for part in _SENTENCE.findall(text))
    return [part for part in found if part]


def _one_cue(text: str) -> str:
    """Removes the empty lines from a text, because an empty line ends a cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _clock(seconds: float, point: str) -> str:
    whole, milli = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milli:03}"
