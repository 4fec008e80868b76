"""Sound as a stream that is read piece by piece: a file, a loop, an exact length, lines on a time axis."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
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
from rh_prefect.media.edit.video_reader import opened, picture_of, reading

RATE = 48_000
"""Samples a second of everything that is edited."""

PIECE = 4096
"""Samples that are handled at a time."""

Samples = NDArray[np.float32]
"""Shape (2, n): left and right, full scale at 1."""

Pieces = Generator[Samples, None, None]

_OVERLAP = RATE // 4
"""How much of a loop's end is heard together with its next beginning."""


class Sound:
    """Pieces of any size, read in the sizes that are wanted; can be listened to once."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._held = silence(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, samples: int) -> Samples:
        """The next samples: fewer than asked for at the end, then none.

        Raises:
            MediaError: A file behind it is missing or broken, or has no sound.
        """
        parts, held = [self._held], self._held.shape[1]
        while held < samples and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            held += piece.shape[1]
        joined = np.concatenate(parts, axis=1) if len(parts) > 1 else self._held
        self._held = joined[:, samples:]
        return joined[:, :samples]

    def in_pieces(self) -> Iterator[Samples]:
        """All that is left, in pieces of `PIECE` samples; the last may be shorter."""
        while (piece := self.read(PIECE)).shape[1]:
            yield piece

    def close(self) -> None:
        """Lets go of the files behind it."""
        self._pieces.close()


def silence(samples: int) -> Samples:
    """So many samples of nothing."""
    return np.zeros((2, samples), np.float32)


def endless_silence() -> Pieces:
    """Nothing, without an end."""
    while True:
        yield silence(PIECE)


def recording(path: Path) -> Pieces:
    """The sound of a file, in stereo at `RATE`; opened at the first read.

    Raises:
        MediaError: It is missing, broken or cut short, or has no sound.
    """
    with opened(path) as file:
        yield from _decoded(file, _sound_of(file, path), path)


def sound_with_picture(path: Path) -> Pieces:
    """The sound of a video from the moment of its first picture on: it may begin before or after that.

    Raises:
        MediaError: As `recording`, or it has no picture.
    """
    with opened(path) as file:
        stream, picture = _sound_of(file, path), picture_of(file, path)
        late = round((_begin(stream) - _begin(picture)) * RATE)
        pieces = _decoded(file, stream, path)
        if late > 0:
            yield silence(late)
        elif late < 0:
            pieces = _without_first(-late, pieces)
        yield from pieces


def looped(path: Path) -> Pieces:
    """The sound of a file again and again, each end faded into the next beginning.

    Raises:
        MediaError: As `recording`, or it is too short to be heard as music.
    """
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
    """A sound cut, or filled up with silence, to a length."""
    left = samples
    while left:
        wanted = min(PIECE, left)
        piece = sound.read(wanted)
        left -= wanted
        yield piece if piece.shape[1] == wanted else np.pad(piece, ((0, 0), (0, wanted - piece.shape[1])))


@dataclass(frozen=True, slots=True)
class Line:
    """Something said at a time.

    Attributes:
        path: The file.
        start: The sample at which it begins.
        end: The sample at which it ends.
        gain: What its samples are multiplied with.
    """

    path: Path
    start: int
    end: int
    gain: float


def spoken(lines: Iterable[Line]) -> Pieces:
    """The lines on one time axis, with silence between them and, without an end, after them."""
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
        said = sound.read(PIECE - begin)
        piece[:, begin : begin + said.shape[1]] += said * np.float32(line.gain)
    return piece


def frame_of(piece: Samples, at: int) -> av.AudioFrame:
    """Samples as FFmpeg takes them, `at` samples after the start."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    return frame


def add_entrance(graph: Graph) -> FilterContext:
    """Adds a place where a graph of audio filters takes frames of `frame_of`."""
    return graph.add_abuffer(sample_rate=RATE, format="fltp", layout="stereo", time_base=Fraction(1, RATE))


def pulled(graph: Graph) -> Pieces:
    """What has come out of such a graph so far; it must end in planar float stereo."""
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
    with reading(path):
        resampler: av.AudioResampler | None = None
        for frame in file.decode(stream):
            if resampler is None:
                # FFmpeg makes mono quieter when it makes stereo of it; here it is simply doubled.
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
            yield from map(_stereo, resampler.resample(frame))
        if resampler is not None:
            yield from map(_stereo, resampler.resample(None))


def _stereo(frame: av.AudioFrame) -> Samples:
    samples = _samples_of(frame)
    return np.repeat(samples, 2, axis=0) if samples.shape[0] == 1 else samples


def _samples_of(frame: av.AudioFrame) -> Samples:
    return frame.to_ndarray().astype(np.float32, copy=False)


def _without_first(samples: int, pieces: Pieces) -> Pieces:
    for piece in pieces:
        yield piece[:, samples:]
        samples = max(0, samples - piece.shape[1])


def _crossfade(old: Samples, new: Samples) -> Samples:
    """Lays the end of `old` over the beginning of `new`, as far as both reach."""
    both = min(old.shape[1], new.shape[1])
    if not both:
        return np.concatenate([old, new], axis=1)
    up = np.linspace(0, 1, both, dtype=np.float32)
    middle = old[:, -both:] * (1 - up) + new[:, :both] * up
    return np.concatenate([old[:, :-both], middle, new[:, both:]], axis=1)
