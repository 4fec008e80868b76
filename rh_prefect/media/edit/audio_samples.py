"""Reads audio as streams of samples, and measures its loudness."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
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
from rh_prefect.media.edit.filter_graphs import linked, pulled
from rh_prefect.media.edit.video_reader import opened, picture_begin, reading
from rh_prefect.media.probe import pictures_of

RATE = 48_000
"""Samples per second of all edited sound."""

PIECE = 4096
"""Number of samples that are processed at a time."""

Samples = NDArray[np.float32]
"""Samples as an array of shape (2, n): row 0 is left, row 1 is right; the largest amplitude is 1."""

Pieces = Generator[Samples, None, None]

_LEAST_GAP = 0.1
"""Minimum seconds between two frames that count as a gap: shorter times are inexact, and encoders add padding at the
start.
"""

_OVERLAP = RATE // 4
"""Length in samples of the cross-fade at the end of a loop."""


class Sound:
    """A stream of audio, readable once, that takes pieces of any size and returns pieces of the requested size."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._held = silence(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, samples: int) -> Samples:
        """Returns the next samples: fewer than requested at the end of the stream, and none after the end."""
        parts, held = [self._held], self._held.shape[1]
        while held < samples and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            held += piece.shape[1]
        joined = np.concatenate(parts, axis=1) if len(parts) > 1 else self._held
        self._held = joined[:, samples:]
        return joined[:, :samples]

    def fill(self, samples: int) -> Samples:
        """Returns the next samples, with silence after the end of the stream."""
        return padded(self.read(samples), samples)

    def close(self) -> None:
        """Closes the files from which the stream is read."""
        self._pieces.close()


def silence(samples: int) -> Samples:
    """Returns the given number of silent samples."""
    return np.zeros((2, samples), np.float32)


def padded(piece: Samples, samples: int) -> Samples:
    """Returns a piece, extended with silence to the given number of samples."""
    return np.pad(piece, ((0, 0), (0, samples - piece.shape[1])))


def endless_silence() -> Pieces:
    """Yields silent pieces without an end."""
    while True:
        yield silence(PIECE)


def recording(path: Path, start: float = 0.0) -> Pieces:
    """Yields the sound of a file, from `start` seconds on, in stereo at `RATE`; opens the file at the first read.

    A video begins with its first frame: sound before it is left out, and a sound that begins later gets silence.
    """
    begin = picture_begin(path)
    with opened(path) as file:
        stream = _sound_of(file, path)
        if begin is not None and file.format.name == "avi":  # whose frames have no times: FFmpeg's guesses are late
            begin = _begin(pictures_of(file)[0])
        late = round((_begin(stream) - begin) * RATE) if begin is not None else 0
        late -= round(start * RATE)
        yield from _silent(max(0, late))
        yield from _without_first(max(0, -late), _decoded(file, stream, path))


def looped(path: Path) -> Pieces:
    """Returns the sound of a file in a loop, with each end cross-faded into the next start."""
    tail = silence(0)
    while True:
        with Sound(recording(path)) as once:
            head = once.read(2 * _OVERLAP)
            if head.shape[1] < 2 * _OVERLAP:
                raise MediaError(
                    f"The music {path} is shorter than half a second. What to do: pass a longer music file."
                )
            held = _crossfade(tail, head)
            while (piece := once.read(_OVERLAP)).shape[1]:
                held = np.concatenate([held, piece], axis=1)
                yield held[:, :-_OVERLAP]
                held = held[:, -_OVERLAP:]
            yield held[:, :-_OVERLAP]
            tail = held[:, -_OVERLAP:]


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of speech, with its start and its end on the time axis in samples, and its gain as a factor."""

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
    """Returns samples as an FFmpeg frame; its time is `at` samples after the start."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    return frame


def add_entrance(graph: Graph) -> FilterContext:
    """Adds an input for frames of `frame_of` to a graph of audio filters."""
    return graph.add_abuffer(sample_rate=RATE, format="fltp", layout="stereo", time_base=Fraction(1, RATE))


def _sound_of(file: InputContainer, path: Path) -> AudioStream:
    if not file.streams.audio:
        raise MediaError(f"The file {path} has no sound. What to do: give an audio file, or a video with sound.")
    return file.streams.audio[0]


def empty_sound(path: Path) -> MediaError:
    """Returns the error for a file whose sound has no samples."""
    return MediaError(f"The sound track of {path} is empty. What to do: create or download the file again.")


def _begin(stream: av.stream.Stream) -> Fraction:
    return Fraction((stream.start_time or 0) * (stream.time_base or 0))


def _decoded(file: InputContainer, stream: AudioStream, path: Path) -> Pieces:
    """Decodes a sound in stereo at `RATE`; gaps in its times become silence, so that the sound stays in sync."""
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
                # FFmpeg makes mono quieter when it converts it to stereo; here the channel is simply doubled.
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
            yield from map(_stereo, resampler.resample(frame))
        if resampler is not None:
            yield from map(_stereo, resampler.resample(None))


@dataclass(slots=True)
class _Clock:
    """Finds gaps between a sound's frames by the frames' times; ignores gaps longer than the file, which are errors."""

    longest: float
    _due: float | None = None

    def gap_before(self, frame: av.AudioFrame) -> float:
        """Returns the missing seconds before the next frame; 0 if there is no gap."""
        time = frame.time if frame.time is not None else self._due or 0.0
        gap = time - self._due if self._due is not None else 0.0
        is_jump = abs(gap) > _LEAST_GAP
        # Small differences are added up, since a container may round each time.
        since = time if is_jump or self._due is None else self._due
        self._due = since + frame.samples / frame.sample_rate
        return gap if is_jump and 0 < gap <= self.longest else 0.0


def _silent(samples: int) -> Pieces:
    for start in range(0, samples, PIECE):
        yield silence(min(PIECE, samples - start))


def _stereo(frame: av.AudioFrame) -> Samples:
    samples = samples_of(frame)
    return np.repeat(samples, 2, axis=0) if samples.shape[0] == 1 else samples


def samples_of(frame: av.AudioFrame) -> Samples:
    """Returns the samples of a frame in planar float."""
    return frame.to_ndarray().astype(np.float32, copy=False)


def _without_first(samples: int, pieces: Iterable[Samples]) -> Pieces:
    for piece in pieces:
        if samples < piece.shape[1]:
            yield piece[:, samples:]
        samples = max(0, samples - piece.shape[1])


def _crossfade(old: Samples, new: Samples) -> Samples:
    """Cross-fades the end of `old` into the beginning of `new`, over the length of the shorter one."""
    both = min(old.shape[1], new.shape[1])
    if not both:
        return np.concatenate([old, new], axis=1)
    up = np.linspace(0, 1, both, dtype=np.float32)
    middle = old[:, -both:] * (1 - up) + new[:, :both] * up
    return np.concatenate([old[:, :-both], middle, new[:, both:]], axis=1)


_BLOCK = 0.4
"""Seconds over which loudness is measured."""

_SILENT = -70.0
"""LUFS below which a sound is regarded as silent."""


@dataclass(frozen=True, slots=True)
class Level:
    """The length of a sound in seconds, and its loudness in LUFS by ITU-R BS.1770, at least -70."""

    seconds: float
    lufs: float


def audio_level(path: Path) -> Level:
    """Measures the sound of an audio file, or of a video from its first frame on, in stereo."""
    graph, samples, lufs = Graph(), 0, _SILENT
    entrance = add_entrance(graph)
    linked(graph, entrance, f"apad=whole_dur={_BLOCK}", "ebur128=metadata=1", "abuffersink")
    graph.configure()
    with Sound(recording(path)) as sound:
        while (piece := sound.read(PIECE)).shape[1]:
            entrance.push(frame_of(piece, samples))
            samples += piece.shape[1]
            lufs = _measured(graph, lufs)
    if not samples:
        raise empty_sound(path)
    entrance.push(None)
    # The silence after a shorter sound lowers its mean.
    missing = 10 * math.log10(max(1, _BLOCK * RATE / samples))
    return Level(samples / RATE, _measured(graph, lufs) + missing)


def _measured(graph: Graph, lufs: float) -> float:
    """Returns the loudness from the last frame of a measuring graph; `lufs` if there is no new frame."""
    for frame in pulled(graph, av.AudioFrame):
        lufs = max(_SILENT, float(frame.metadata.get("lavfi.r128.I", lufs)))
    return lufs
