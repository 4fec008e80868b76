"""Draws the outlines of a scene's layers: hills, mountains, dunes, trees, houses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Land = Literal["hills", "mountains", "dunes", "forest", "city", "sea"]
LANDS: tuple[Land, ...] = ("hills", "mountains", "dunes", "forest", "city", "sea")


def ridge(land: Land, *, width: int, depth: float, random: np.random.Generator) -> Array:
    """Draws one layer's outline: heights of its columns above its foot; `depth` is 1 for the nearest layer."""
    return _OUTLINES[land](width, depth, random)


def smooth_noise(width: int, waves: float, random: np.random.Generator) -> Array:
    """Draws a smooth random line from 0 to 1 with about the given number of waves over the width."""
    knots = random.random(int(waves) + 4)
    places = np.linspace(0.5, waves + 1.5, width)
    left = places.astype(int)
    part = places - left
    part = part * part * (3 - 2 * part)
    line: Array = (knots[left] * (1 - part) + knots[left + 1] * part).astype(np.float32)
    return line


def _octaves(width: int, waves: float, random: np.random.Generator, *, fall: float = 0.5) -> Array:
    total = np.zeros(width, np.float32)
    weights = [fall**octave for octave in range(5)]
    for octave, weight in enumerate(weights):
        total += weight * smooth_noise(width, waves * 2**octave, random)
    line: Array = total / np.float32(sum(weights))
    return line


def _hills(width: int, depth: float, random: np.random.Generator) -> Array:
    return _octaves(width, 2.2 + 1.5 * depth, random, fall=0.33)


def _mountains(width: int, depth: float, random: np.random.Generator) -> Array:
    folded = 1 - np.abs(2 * _octaves(width, 2.4 + depth, random, fall=0.48) - 1)
    rough = _octaves(width, 9, random, fall=0.6)
    high: Array = (folded - folded.min()) / max(float(np.ptp(folded)), 1e-3)
    return ((0.85 * high**1.3 + 0.15 * rough) * (1.15 - 0.45 * depth)).astype(np.float32)


def _dunes(width: int, depth: float, random: np.random.Generator) -> Array:
    """Draws dunes, each of which rises slowly and falls steeply."""
    phase = smooth_noise(width, 2, random) * 0.8 + np.linspace(0, 1.7 + depth, width) + random.random()
    saw = phase % 1
    peak = 0.66
    shape = np.where(saw < peak, saw / peak, (1 - saw) / (1 - peak))
    return (0.2 + 0.6 * np.sin(shape * np.pi / 2) ** 2).astype(np.float32)


def _forest(width: int, depth: float, random: np.random.Generator) -> Array:
    """Draws a hill with firs, each of which is a triangle of a different height."""
    ground = 0.6 * _hills(width, depth, random)
    columns = np.arange(width) / width
    trees = np.zeros(width, np.float32)
    for _ in range(int(90 - 45 * depth)):
        height = (0.10 + 0.22 * random.random()) * (0.55 + 0.75 * depth)
        half = height * (0.13 + 0.05 * random.random())
        slope = 1 - np.abs(columns - random.random()) / half
        trees = np.maximum(trees, height * np.clip(slope, 0, 1) ** 0.85)
    return (ground + trees).astype(np.float32)


def _city(width: int, depth: float, random: np.random.Generator) -> Array:
    houses = int(26 - 10 * depth)
    edges = np.sort(random.random(houses))
    tall = 0.25 + 0.75 * random.random(houses + 1) ** 1.6
    return (tall[np.searchsorted(edges, np.linspace(0, 1, width))] * (1.15 - 0.55 * depth)).astype(np.float32)


def _sea(width: int, depth: float, random: np.random.Generator) -> Array:
    return _hills(width, depth, random) * np.float32(0.45 * (1 - depth))


_OUTLINES: dict[Land, Callable[[int, float, np.random.Generator], Array]] = {
    "hills": _hills,
    "mountains": _mountains,
    "dunes": _dunes,
    "forest": _forest,
    "city": _city,
    "sea": _sea,
}
