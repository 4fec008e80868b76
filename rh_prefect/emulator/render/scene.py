"""Generates a landscape from a text: the words choose light and land, and the text's hash chooses the rest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rh_prefect.emulator.render.request import Size, has_any
from rh_prefect.emulator.render.terrain import LANDS, Array, Land, ridge


@dataclass(frozen=True, slots=True)
class Light:
    """The colours of a time of day, each as #rrggbb.

    Attributes:
        sky: The sky, from the zenith to the horizon.
        sun: The sun or the moon, and its glow.
        far: The farthest land, which haze brings near the colour of the horizon.
        near: The nearest land.
        cloud: The clouds.
        stars: The fraction of the sky's pixels that are stars.
        words: Words of a text that call for this light.
    """

    sky: tuple[str, str, str]
    sun: str
    far: str
    near: str
    cloud: str
    stars: float = 0.0
    words: tuple[str, ...] = ()


LIGHTS: dict[str, Light] = {
    "dawn": Light(
        ("#5b7fb8", "#f0b6a8", "#ffe3b8"),
        "#fff3d0",
        "#c98f9d",
        "#3a2f4f",
        "#ffd9cf",
        0.0,
        ("dawn", "sunrise", "morning", "日出"),
    ),
    "day": Light(
        ("#2f7fc9", "#86c5ea", "#e3f4f6"),
        "#fffbe8",
        "#8fb9b8",
        "#1f5449",
        "#ffffff",
        0.0,
        ("noon", "day", "sunny", "blue sky", "白天"),
    ),
    "gold": Light(
        ("#3d4f86", "#e48f62", "#ffd27a"),
        "#fff0b8",
        "#b5654f",
        "#33203a",
        "#ffc08f",
        0.0,
        ("sunset", "gold", "evening", "autumn", "日落"),
    ),
    "dusk": Light(
        ("#1e2350", "#7a4a8c", "#f3907f"),
        "#ffd9a8",
        "#6b4583",
        "#170f2c",
        "#d98aa5",
        0.0008,
        ("dusk", "twilight", "neon", "黄昏"),
    ),
    "night": Light(
        ("#060b20", "#13264f", "#3a5a86"),
        "#f1f4ff",
        "#243c66",
        "#060a18",
        "#34507a",
        0.0024,
        ("night", "moon", "star", "space", "夜"),
    ),
    "aurora": Light(
        ("#07152e", "#0f5a5f", "#7fd6a4"),
        "#eafff2",
        "#1d5f66",
        "#05121c",
        "#4fb79a",
        0.0016,
        ("aurora", "north", "magic", "dream"),
    ),
    "mint": Light(
        ("#3b9c9c", "#a5dcc4", "#f6f3d2"),
        "#ffffff",
        "#7db5a0",
        "#1d4a45",
        "#ffffff",
        0.0,
        ("spring", "garden", "fresh", "green"),
    ),
    "rose": Light(
        ("#8d6bb8", "#eaa7c3", "#fff0dc"),
        "#fff8ec",
        "#b985ab",
        "#40264f",
        "#ffe6ee",
        0.0,
        ("rose", "pink", "cherry", "love", "樱"),
    ),
    "storm": Light(
        ("#36414f", "#73838f", "#c9cfc8"),
        "#eef0e6",
        "#6f7f86",
        "#1a2429",
        "#56636e",
        0.0,
        ("storm", "rain", "fog", "mist", "winter", "雨"),
    ),
}

_CHEERFUL = tuple(name for name in LIGHTS if name != "storm")
"""Lights that may be chosen at random."""

_LAND_WORDS: dict[Land, tuple[str, ...]] = {
    "sea": (
        "sea",
        "ocean",
        "beach",
        "lake",
        "river",
        "boat",
        "ship",
        "sail",
        "lighthouse",
        "harbo",
        "island",
        "wave",
        "海",
        "湖",
    ),
    "city": ("city", "street", "town", "skyline", "robot", "neon", "building", "office", "car", "城市", "街"),
    "forest": ("forest", "tree", "wood", "fox", "deer", "bear", "jungle", "garden", "森林", "树"),
    "mountains": ("mountain", "alp", "snow", "peak", "cliff", "dragon", "valley", "山"),
    "dunes": ("desert", "dune", "sand", "camel", "mars", "沙漠"),
    "hills": ("hill", "meadow", "field", "farm", "horse", "grass", "village", "草原"),
}


def paint(text: str, size: Size) -> Image.Image:
    """Paints the scene of a text."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
    light = _choose_light(text, random)
    land = _choose_land(text, random)
    width, height = size
    horizon = float(random.uniform(0.56, 0.66))
    sun = float(random.uniform(0.22, 0.78)), horizon - float(random.uniform(0.1, 0.34))
    canvas = _sky(light, size, horizon)
    _add_stars(canvas, light, horizon, random)
    _add_clouds(canvas, light, horizon, random)
    _add_sun(canvas, light, sun)
    if land == "sea":
        _add_layers(canvas, light, land, horizon, (0.0, 0.35), random)
        _add_water(canvas, light, horizon, sun, random)
    else:
        _add_layers(canvas, light, land, horizon, (0.0, 0.25, 0.5, 0.75, 1.0), random)
    _finish(canvas, random)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8).reshape(height, width, 3), "RGB")


def _choose_light(text: str, random: np.random.Generator) -> Light:
    drawn = LIGHTS[_CHEERFUL[int(random.integers(len(_CHEERFUL)))]]
    return next((light for light in LIGHTS.values() if has_any(text, light.words)), drawn)


def _choose_land(text: str, random: np.random.Generator) -> Land:
    drawn = LANDS[int(random.integers(len(LANDS)))]
    return next((land for land, words in _LAND_WORDS.items() if has_any(text, words)), drawn)


def _rgb(colour: str) -> Array:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float32)


def _sky(light: Light, size: Size, horizon: float) -> Array:
    width, height = size
    rows = np.linspace(0, 1 / horizon, height, dtype=np.float32)
    stops = np.stack([_rgb(colour) for colour in light.sky])
    column = np.stack([np.interp(rows, [0, 0.55, 1], stops[:, channel]) for channel in range(3)], axis=1)
    return np.repeat(column[:, None, :], width, axis=1).astype(np.float32)


def _grid(canvas: Array) -> tuple[Array, Array]:
    """Returns the positions of the columns and the rows, both in units of the picture's height."""
    height, width = canvas.shape[:2]
    across = (np.arange(width, dtype=np.float32) + 0.5) / height
    return across[None, :], ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]


def _blend(canvas: Array, colour: Array, cover: Array) -> None:
    canvas += (colour - canvas) * cover[..., None]


def _add_stars(canvas: Array, light: Light, horizon: float, random: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    count = int(light.stars * 256 * 144)
    rows = (random.random(count) ** 1.4 * horizon * 0.9 * height).astype(int)
    columns = (random.random(count) * width).astype(int)
    canvas[rows, columns] += (255 - canvas[rows, columns]) * random.uniform(0.3, 1, (count, 1)).astype(np.float32)


def _cloud_cover(size: Size, random: np.random.Generator) -> Array:
    """Draws soft noise, stretched sideways, in three layers, each finer than the one before."""
    total = np.zeros((size[1], size[0]), np.float32)
    for octave in (1, 2, 4):
        knots = random.random((5 * octave + 2, 3 * octave + 2), np.float32)
        total += np.asarray(Image.fromarray(knots).resize(size, Image.Resampling.BICUBIC)) / octave
    return total / 1.75


def _add_clouds(canvas: Array, light: Light, horizon: float, random: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    rows = _grid(canvas)[1] / horizon
    cover = np.clip((_cloud_cover((width, height), random) - 0.52) * 4.2, 0, 1)
    band = np.clip(rows * 2.2, 0.15, 1) * np.clip((1.02 - rows) * 3, 0, 1)
    _blend(canvas, _rgb(light.cloud), cover * band * np.float32(0.6))


def _add_sun(canvas: Array, light: Light, sun: tuple[float, float]) -> None:
    height, width = canvas.shape[:2]
    columns, rows = _grid(canvas)
    unit = min(1.0, width / height)
    distance = np.hypot(columns - sun[0] * width / height, rows - sun[1]) / unit
    glow = np.float32(0.55) * np.exp(-distance * 5.5) + np.float32(0.35) * np.exp(-distance * 14)
    disc = np.clip((np.float32(0.062) - distance) * height * unit + np.float32(0.5), 0, 1)
    _blend(canvas, _rgb(light.sun), np.maximum(glow, disc).astype(np.float32))


def _add_layers(
    canvas: Array, light: Light, land: Land, horizon: float, depths: tuple[float, ...], random: np.random.Generator
) -> None:
    height, width = canvas.shape[:2]
    _, rows = _grid(canvas)
    haze = _rgb(light.sky[2])
    for depth in depths:
        foot = horizon + (0.02 + 0.36 * depth**1.25)
        top = foot - ridge(land, width=width, depth=depth, random=random) * (0.27 - 0.06 * depth)
        below = rows - top[None, :]
        colour = _rgb(light.far) * (1 - depth) + _rgb(light.near) * depth
        shade = np.clip(below * 2.2, 0, 1)[..., None] * (0.42 * (1 - depth))
        _blend(canvas, colour + (haze - colour) * shade, np.clip(below * height + 0.5, 0, 1))
        if land == "city":
            _light_windows(canvas, light, below, depth, random)


def _light_windows(canvas: Array, light: Light, below: Array, depth: float, random: np.random.Generator) -> None:
    """Lights some windows, on a grid that gets coarser toward the front."""
    height, width = canvas.shape[:2]
    step = max(3, round(height * (0.014 + 0.012 * depth)))
    lit = random.random((height // step + 1, width // step + 1)) < 0.16 + 0.1 * depth
    pane = np.zeros((step, step), bool)
    pane[1 : max(2, step * 2 // 3), 1 : max(2, step // 2)] = True
    windows = np.kron(lit, pane)[:height, :width] & (below > 0.02)
    _blend(canvas, _rgb(light.sun), windows * np.float32(0.2 + 0.5 * depth))


def _add_water(
    canvas: Array, light: Light, horizon: float, sun: tuple[float, float], random: np.random.Generator
) -> None:
    """Mirrors the scene above the waterline, with ripples that widen toward the front."""
    height, width = canvas.shape[:2]
    line = min(height - 2, round((horizon + 0.03) * height))
    deep = np.linspace(0, 1, height - line, dtype=np.float32)
    ripple = np.sin(deep**0.6 * 60 + random.uniform(0, 6)) * deep * height * 0.03
    mirrored = np.clip(line - 1 - np.arange(height - line) * 0.9 + ripple, 0, line - 1).astype(int)
    water = canvas[mirrored] * (1 - 0.3 * deep[:, None, None])
    water += (_rgb(light.near) - water) * (0.18 + 0.5 * deep[:, None, None])
    canvas[line:] = water
    columns, _ = _grid(canvas)
    spread = 0.03 + 0.16 * deep[:, None]
    path = np.exp(-(((columns - sun[0] * width / height) / spread) ** 2))
    sparkle = random.random((height - line, max(2, width // 5)), np.float32)
    wide = np.asarray(Image.fromarray(sparkle).resize((width, height - line), Image.Resampling.BICUBIC))
    _blend(canvas[line:], _rgb(light.sun), (path * np.clip(wide * 2.4 - 1.1, 0, 1) * 0.8).astype(np.float32))


def _finish(canvas: Array, random: np.random.Generator) -> None:
    """Darkens the corners a little, and breaks up the bands that a smooth gradient has in 8 bits."""
    height, width = canvas.shape[:2]
    columns, rows = _grid(canvas)
    across = columns * height / width - 0.5
    canvas *= (1 - 0.38 * (across**2 + (rows - 0.5) ** 2))[..., None]
    canvas += random.uniform(-0.6, 0.6, (height, width, 1)).astype(np.float32) + 0.5
