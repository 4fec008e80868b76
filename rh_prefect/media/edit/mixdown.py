"""Mixes speech over music: the music is lowered during speech, and the mix has the loudness of web videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
from av.filter import Graph
from av.filter.context import FilterContext

from rh_prefect.errors import InputError
from rh_prefect.media.edit.audio_samples import (
    PIECE,
    RATE,
    Level,
    Line,
    Pieces,
    Samples,
    Sound,
    add_entrance,
    audio_level,
    endless_silence,
    frame_of,
    looped,
    samples_of,
    spoken,
)
from rh_prefect.media.edit.filter_graphs import linked, pulled
from rh_prefect.media.edit.output import create_track

LOUDNESS = -16.0
"""The loudness of a finished track, in LUFS, that video sites and podcasts require."""

_STEP_BACK = 2.0
"""LU by which the music between lines is quieter than speech; under speech, the music is about 13 dB lower still."""

_MOST_GAIN = 20.0
_TAIL = 1.5
_FADE = 2.0
_FADE_OF_ALL = 0.03

_DUCK = "threshold=0.02:ratio=8:attack=15:release=500:detection=rms"
# The limit leaves 2 dB, since AAC does not keep peaks.
_LIMIT = "limit=0.79:attack=5:release=50:level=0:latency=1"


def mix(
    speech: Path | Sequence[tuple[float, Path]] | None,
    music: Path | None,
    to: Path,
    *,
    seconds: float | None = None,
    music_level: float | None = None,
    loudness: float = LOUDNESS,
) -> float:
    """Mixes speech and music into one sound track, and returns the track's length in seconds.

    `speech` is a file that begins at 0, or lines with the second at which each begins; all lines get the `loudness` in
    LUFS. The music is at `music_level`, by default somewhat below the speech, is lowered under each line, is repeated
    if it is too short, and fades out at the end. A limiter keeps the peaks below full scale. Without `seconds`, the
    music continues for a moment after the last word. For `mux`, write a WAV; the sound is then compressed only once.
    """
    starts = [(0.0, speech)] if isinstance(speech, Path) else speech or ()
    with create_track(to) as track:
        lines = [_line(start, path, loudness) for start, path in starts]
        level = audio_level(music) if music is not None else None
        samples = _samples(_length(lines, level) if seconds is None else seconds)
        if music_level is None:
            music_level = loudness - _STEP_BACK if lines else loudness
        bed = looped(music) if music is not None else endless_silence()
        gain = _gain(level.lufs, music_level) if level else 1.0
        for piece in _mixed(lines, bed, gain, samples):
            track.write(piece)
    return track.samples / RATE


def _length(lines: Sequence[Line], music: Level | None) -> float:
    if not lines:
        return music.seconds if music else 0.0
    return max(line.end for line in lines) / RATE + (_TAIL if music else 0.0)


def _samples(seconds: float) -> int:
    if not seconds:
        raise InputError("There is nothing to mix in 0 seconds. What to do: give speech, music, or a length above 0.")
    return max(1, round(seconds * RATE))


def _line(start: float, path: Path, loudness: float) -> Line:
    level = audio_level(path)
    begin = round(start * RATE)
    return Line(path, begin, begin + round(level.seconds * RATE), _gain(level.lufs, loudness))


def _gain(lufs: float, target: float) -> float:
    """Returns the factor that changes a loudness to a target; the factor is limited, so that noise is not amplified."""
    return float(10 ** (min(_MOST_GAIN, target - lufs) / 20))


def _mixed(lines: Sequence[Line], bed: Pieces, gain: float, samples: int) -> Iterator[Samples]:
    """Yields the samples of a mix; some samples come only at the end, because the filters delay them."""
    graph = Graph()
    entrances = add_entrance(graph), add_entrance(graph)
    _connect(graph, *entrances, gain, samples)
    with Sound(spoken(lines)) as speech, Sound(bed) as music:
        for at in range(0, samples, PIECE):
            for entrance, sound in zip(entrances, (speech, music)):
                entrance.push(frame_of(sound.read(min(PIECE, samples - at)), at))
            yield from map(samples_of, pulled(graph, av.AudioFrame))
    for entrance in entrances:
        entrance.push(None)
    yield from map(samples_of, pulled(graph, av.AudioFrame))


def _connect(graph: Graph, speech: FilterContext, music: FilterContext, gain: float, samples: int) -> None:
    """Adds the filters of a mix; the speech also controls the compressor that lowers the music."""
    split, duck = graph.add("asplit"), graph.add("sidechaincompress", _DUCK)
    total = graph.add("amix", "inputs=2:normalize=0")
    linked(graph, music, f"volume={gain:.6f}", f"afade={_fade_out(samples, _FADE)}").link_to(duck)
    speech.link_to(split)
    split.link_to(total, 0, 0)
    split.link_to(duck, 1, 1)
    duck.link_to(total, 0, 1)
    form = f"aformat=sample_fmts=fltp:sample_rates={RATE}:channel_layouts=stereo"
    linked(graph, total, f"alimiter={_LIMIT}", f"afade={_fade_out(samples, _FADE_OF_ALL)}", form, "abuffersink")
    graph.configure()


def _fade_out(samples: int, seconds: float) -> str:
    length = max(1, min(round(seconds * RATE), samples // 3))
    return f"type=out:start_sample={samples - length}:nb_samples={length}"
