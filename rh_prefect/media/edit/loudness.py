"""How loud a file is: peak and mean in dBFS, and loudness in LUFS as broadcasters measure it (ITU-R BS.1770)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from rh_prefect.errors import MediaError
from rh_prefect.media.edit.sound import (
    PIECE,
    RATE,
    Samples,
    Sound,
    add_entrance,
    exactly,
    frame_of,
    pulled,
    recording,
    silence,
)

FLOOR = -120.0
"""dB that stand for silence, whose logarithm is no number."""

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
    """How loud something is; `FLOOR` stands for silence.

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
    """Measures the sound of an audio file or a video, or a stretch of it.

    Args:
        path: The file.
        start: Seconds to skip.
        seconds: How long to listen; None: to the end.

    Returns:
        Its levels, as heard in stereo at 48 kHz.

    Raises:
        MediaError: The file is missing or broken, or has no sound (there).
    """
    with Sound(recording(path)) as sound:
        for _ in exactly(round(start * RATE), sound):
            pass
        meter = _Meter()
        left = math.inf if seconds is None else round(seconds * RATE)
        while left > 0 and (piece := sound.read(int(min(left, PIECE)))).shape[1]:
            meter.hear(piece)
            left -= piece.shape[1]
    if not meter.samples:
        raise MediaError(f"The file {path} has no sound after {start:g} s. What to do: check its length.")
    return meter.level()


def decibels(power: float) -> float:
    """A mean square, full scale at 1, in dB."""
    return max(FLOOR, 10 * math.log10(power)) if power > 0 else FLOOR


@dataclass(slots=True)
class _Meter:
    samples: int = 0
    square: float = 0.0
    peak: float = 0.0
    _ear: _Ear = field(default_factory=lambda: _Ear())

    def hear(self, piece: Samples) -> None:
        self.samples += piece.shape[1]
        self.square += float(np.sum(np.square(piece, dtype=np.float64)))
        self.peak = max(self.peak, float(np.max(np.abs(piece))))
        self._ear.hear(piece)

    def level(self) -> Level:
        mean = decibels(self.square / (2 * self.samples))
        return Level(self.samples / RATE, mean, decibels(self.peak**2), self._ear.lufs())


class _Ear:
    """K-weighted power per tenth of a second: an hour is 36 000 numbers."""

    def __init__(self) -> None:
        self._graph = _weighting()
        self._at = 0
        self._held = silence(0)
        self._hops: list[float] = []

    def hear(self, piece: Samples) -> None:
        self._graph.push(frame_of(piece, self._at))
        self._at += piece.shape[1]
        for heard in pulled(self._graph):
            self._held = np.concatenate([self._held, heard], axis=1)
        while self._held.shape[1] >= _HOP:
            self._hops.append(_power(self._held[:, :_HOP]))
            self._held = self._held[:, _HOP:]

    def lufs(self) -> float:
        hops = np.array(self._hops)
        if len(hops) < _BLOCK_HOPS:
            rest = [_power(self._held)] if self._held.shape[1] else []
            return _loudness(np.array([*self._hops, *rest]))
        blocks = np.convolve(hops, np.full(_BLOCK_HOPS, 1 / _BLOCK_HOPS), mode="valid")
        heard = _above(blocks, _ABSOLUTE_GATE)
        return _loudness(_above(heard, _loudness(heard) + _RELATIVE_GATE))


def _weighting() -> Graph:
    graph = Graph()
    source = add_entrance(graph)
    filters = [graph.add("biquad", args) for args in _K_WEIGHTING]
    graph.link_nodes(source, *filters, graph.add("abuffersink")).configure()
    return graph


def _power(samples: Samples) -> float:
    """The channels' mean squares, added up as BS.1770 has it."""
    return float(np.sum(np.mean(np.square(samples, dtype=np.float64), axis=1)))


def _loudness(blocks: NDArray[np.float64]) -> float:
    return max(FLOOR, _OFFSET + decibels(float(np.mean(blocks)))) if len(blocks) else FLOOR


def _above(blocks: NDArray[np.float64], gate: float) -> NDArray[np.float64]:
    return blocks[blocks > 10 ** ((gate - _OFFSET) / 10)]
