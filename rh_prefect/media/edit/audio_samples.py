"""Audio as streams of samples, and its loudness (peak, mean, LUFS by ITU-R BS.1770)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from numpy.typing import NDArray

from rh_prefect.errors import MediaError
from rh_prefect.media.edit.time_checks import check_time
from rh_prefect.media.edit.video_reader import opened, picture_of, reading

RATE = 48_000
"""Samples a second of everything that is edited."""

PIECE = 4096
"""Samples that are handled at a time."""

Samples = NDArray[np.float32]
"""Shape (2, n): left and right, full scale at 1."""

Pieces = Generator[Samples, None, None]

_LEAST_GAP = 0.1
"""Seconds between two frames that are a gap; times of less are inexact, and encoders put padding at the start."""

_OVERLAP = RATE // 4
"""How much of a loop's end is weighted together with its next beginning."""


class Sound:
    """A stream of audio pieces of any size, read in the requested sizes; it can be read only once."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._held = silence(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, samples: int) -> Samples:
        """Returns the next samples: fewer than requested at the end, then none."""
        parts, held = [self._held], self._held.shape[1]
        while held < samples and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            held += piece.shape[1]
        joined = np.concatenate(parts, axis=1) if len(parts) > 1 else self._held
        self._held = joined[:, samples:]
        return joined[:, :samples]

    def close(self) -> None:
        """Closes the files that it reads."""
        self._pieces.close()


def silence(samples: int) -> Samples:
    """Returns the given number of silent samples."""
    return np.zeros((2, samples), np.float32)


def endless_silence() -> Pieces:
    """Returns silence without an end."""
    while True:
        yield silence(PIECE)


def recording(path: Path, start: float = 0.0) -> Pieces:
    """Yields the sound of a file from `start` seconds on, in stereo at `RATE`; opens the file at the first read."""
    with opened(path) as file:
        yield from _without_first(round(start * RATE), _decoded(file, _sound_of(file, path), path))


def sound_with_picture(path: Path, start: float = 0.0) -> Pieces:
    """Yields a video's sound from `start` seconds after its first frame on; the sound may start earlier or later."""
    with opened(path) as file:
        stream, picture = _sound_of(file, path), picture_of(file, path)
        late = round((_begin(stream) - _begin(picture)) * RATE)
        pieces = chain(_silent(max(0, late)), _decoded(file, stream, path))
        yield from _without_first(round(start * RATE) + max(0, -late), pieces)


def looped(path: Path) -> Pieces:
    """Returns the sound of a file in a loop, with each end cross-faded into the next start."""
    tail = silence(0)
    while True:
        with Sound(recording(path)) as once:
            head = once.read(2 * _OVERLAP)
            if head.shape[1] < 2 * _OVERLAP:
                raise MediaError(f"The music {path} is shorter than half a second. What to do: give a longer one.")
            held = _crossfade(tail, head)
            while (piece := once.read(_OVERLAP)).shape[1]:
                held = np.concatenate([held, piece], axis=1)
                yield held[:, :-_OVERLAP]
                held = held[:, -_OVERLAP:]
            yield held[:, :-_OVERLAP]
            tail = held[:, -_OVERLAP:]


def exactly(samples: int, sound: Sound) -> Pieces:
    """Yields a sound that is cut, or filled up with silence, to a length."""
    remaining = samples
    while remaining:
        length = min(PIECE, remaining)
        piece = sound.read(length)
        remaining -= length
        yield piece if piece.shape[1] == length else np.pad(piece, ((0, 0), (0, length - piece.shape[1])))


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of speech with its first and last sample, and the gain of its samples."""

    path: Path
    start: int
    end: int
    gain: float


def spoken(lines: Iterable[Line]) -> Pieces:
    """Returns the speech lines on one time axis, with silence between them and endless silence after them."""
    waiting = sorted(lines, key=lambda line: line.start)
    speaking: list[tuple[Line, Sound]] = []
    at = 0
    while True:
        while waiting and waiting[0].start < at + PIECE:
            line = waiting.pop(0)
            speaking.append((line, Sound(recording(line.path))))
        yield _together(speaking, at)
        at += PIECE
        speaking = [(line, sound) for line, sound in speaking if line.end > at]


def _together(speaking: Sequence[tuple[Line, Sound]], at: int) -> Samples:
    piece = silence(PIECE)
    for line, sound in speaking:
        begin = max(0, line.start - at)
        speech = sound.read(PIECE - begin)
        piece[:, begin : begin + speech.shape[1]] += speech * np.float32(line.gain)
    return piece


def frame_of(piece: Samples, at: int) -> av.AudioFrame:
    """Returns samples as an FFmpeg frame whose time is `at` samples after the start."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    return frame


def add_entrance(graph: Graph) -> FilterContext:
    """Adds an input for frames of `frame_of` to a graph of audio filters."""
    return graph.add_abuffer(sample_rate=RATE, format="fltp", layout="stereo", time_base=Fraction(1, RATE))


def pulled(graph: Graph) -> Pieces:
    """Returns the output of an audio filter graph so far; the graph must end in planar float stereo."""
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if isinstance(frame, av.AudioFrame):
            yield _samples_of(frame)


def _sound_of(file: InputContainer, path: Path) -> AudioStream:
    if not file.streams.audio:
        raise MediaError(f"The file {path} has no sound. What to do: give an audio file, or a video with sound.")
    return file.streams.audio[0]


def _begin(stream: av.stream.Stream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _decoded(file: InputContainer, stream: AudioStream, path: Path) -> Pieces:
    """Decodes a sound in stereo at `RATE`; what its times leave out is silent, so that it stays with its picture."""
    with reading(path):
        resampler: av.AudioResampler | None = None
        clock = _Clock(longest=file.duration / av.time_base if file.duration else math.inf)
        for frame in file.decode(stream):
            gap = clock.gap_before(frame)
            if gap and resampler is not None:
                yield from map(_stereo, resampler.resample(None))
                yield from _silent(round(gap * RATE))
                resampler = None
            if resampler is None:
                # FFmpeg makes mono quieter when it makes stereo of it; here it is simply doubled.
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
            yield from map(_stereo, resampler.resample(frame))
        if resampler is not None:
            yield from map(_stereo, resampler.resample(None))


@dataclass(slots=True)
class _Clock:
    """Finds gaps between the frames of a sound by their times.

    Attributes:
        longest: Seconds of a file, which no gap exceeds: a greater one is an error in its times.
    """

    longest: float
    _due: float | None = None

    def gap_before(self, frame: av.AudioFrame) -> float:
        """Returns how many seconds are missing before the next frame; 0 if there is no gap."""
        time = frame.time if frame.time is not None else self._due or 0.0
        gap = time - self._due if self._due is not None else 0.0
        is_jump = abs(gap) > _LEAST_GAP
        # Small differences are summed up, since a container may round each time.
        since = time if is_jump or self._due is None else self._due
        self._due = since + frame.samples / frame.sample_rate
        return gap if is_jump and 0 < gap <= self.longest else 0.0


def _silent(samples: int) -> Pieces:
    for start in range(0, samples, PIECE):
        yield silence(min(PIECE, samples - start))


def _stereo(frame: av.AudioFrame) -> Samples:
    samples = _samples_of(frame)
    return np.repeat(samples, 2, axis=0) if samples.shape[0] == 1 else samples


def _samples_of(frame: av.AudioFrame) -> Samples:
    return frame.to_ndarray().astype(np.float32, copy=False)


def _without_first(samples: int, pieces: Iterable[Samples]) -> Pieces:
    for piece in pieces:
        if samples < piece.shape[1]:
            yield piece[:, samples:]
        samples = max(0, samples - piece.shape[1])


def _crossfade(old: Samples, new: Samples) -> Samples:
    """Cross-fades the end of `old` into the beginning of `new`, as far as both reach."""
    both = min(old.shape[1], new.shape[1])
    if not both:
        return np.concatenate([old, new], axis=1)
    up = np.linspace(0, 1, both, dtype=np.float32)
    middle = old[:, -both:] * (1 - up) + new[:, :both] * up
    return np.concatenate([old[:, :-both], middle, new[:, both:]], axis=1)


FLOOR = -120.0
"""dB that stand for silence, whose logarithm is undefined."""

_HOP = RATE // 10
_BLOCK_HOPS = 4
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_OFFSET = -0.691
_K_WEIGHTING = (
    "b0=1.53512485958697:b1=-2.69169618940638:b2=1.19839281085285:a0=1:a1=-1.69065929318241:a2=0.73248077421585",
    "b0=1:b1=-2:b2=1:a0=1:a1=-1.99004745483398:a2=0.99007225036621",
)
"""BS.1770's two filters at 48 kHz: the head as a sphere, and a high-pass."""


@dataclass(frozen=True, slots=True)
class Level:
    """The loudness of a sound; `FLOOR` stands for silence.

    Attributes:
        seconds: Its length.
        mean: Root of the mean square over both channels, in dBFS.
        peak: The largest sample, in dBFS.
        lufs: Integrated loudness; of less than 0.4 seconds the ungated one.
    """

    seconds: float
    mean: float
    peak: float
    lufs: float


def audio_level(path: Path, *, start: float = 0.0, seconds: float | None = None) -> Level:
    """Measures the sound of an audio file or a video, or `seconds` of it from `start` on, in stereo at 48 kHz."""
    check_time("start", start)
    check_time("seconds", seconds)
    with Sound(recording(path, start)) as sound:
        meter = _Meter()
        remaining = math.inf if seconds is None else round(seconds * RATE)
        while remaining > 0 and (piece := sound.read(int(min(remaining, PIECE)))).shape[1]:
            meter.add(piece)
            remaining -= piece.shape[1]
    if not meter.samples:
        raise MediaError(f"The file {path} has no sound after {start:g} s. What to do: check its length.")
    return meter.level()


def decibels(power: float) -> float:
    """Converts a mean square, with full scale at 1, to dB."""
    return max(FLOOR, 10 * math.log10(power)) if power > 0 else FLOOR


@dataclass(slots=True)
class _Meter:
    samples: int = 0
    square: float = 0.0
    peak: float = 0.0
    _loudness: _LoudnessMeter = field(default_factory=lambda: _LoudnessMeter())

    def add(self, piece: Samples) -> None:
        self.samples += piece.shape[1]
        self.square += float(np.sum(np.square(piece, dtype=np.float64)))
        self.peak = max(self.peak, float(np.max(np.abs(piece))))
        self._loudness.add(piece)

    def level(self) -> Level:
        mean = decibels(self.square / (2 * self.samples))
        return Level(self.samples / RATE, mean, decibels(self.peak**2), self._loudness.lufs())


class _LoudnessMeter:
    """A meter of the K-weighted power per tenth of a second; an hour has 36 000 numbers."""

    def __init__(self) -> None:
        self._graph = _weighting()
        self._at = 0
        self._held = silence(0)
        self._hops: list[float] = []

    def add(self, piece: Samples) -> None:
        self._graph.push(frame_of(piece, self._at))
        self._at += piece.shape[1]
        for weighted in pulled(self._graph):
            self._held = np.concatenate([self._held, weighted], axis=1)
        while self._held.shape[1] >= _HOP:
            self._hops.append(_power(self._held[:, :_HOP]))
            self._held = self._held[:, _HOP:]

    def lufs(self) -> float:
        hops = np.array(self._hops)
        if len(hops) < _BLOCK_HOPS:
            rest = [_power(self._held)] if self._held.shape[1] else []
            return _loudness(np.array([*self._hops, *rest]))
        blocks = np.convolve(hops, np.full(_BLOCK_HOPS, 1 / _BLOCK_HOPS), mode="valid")
        weighted = _above(blocks, _ABSOLUTE_GATE)
        return _loudness(_above(weighted, _loudness(weighted) + _RELATIVE_GATE))


def _weighting() -> Graph:
    graph = Graph()
    source = add_entrance(graph)
    filters = [graph.add("biquad", args) for args in _K_WEIGHTING]
    graph.link_nodes(source, *filters, graph.add("abuffersink")).configure()
    return graph


def _power(samples: Samples) -> float:
    """Returns the sum of the channels' mean squares, as BS.1770 defines it."""
    return float(np.sum(np.mean(np.square(samples, dtype=np.float64), axis=1)))


def _loudness(blocks: NDArray[np.float64]) -> float:
    return max(FLOOR, _OFFSET + decibels(float(np.mean(blocks)))) if len(blocks) else FLOOR


def _above(blocks: NDArray[np.float64], gate: float) -> NDArray[np.float64]:
    return blocks[blocks > 10 ** ((gate - _OFFSET) / 10)]
