"""The inputs that each shipped pipeline is priced with, and its prices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.samples.pipeline_assets import photo, photos, sound, video

Given = Callable[[Path], dict[str, Any]]


def products(folder: Path) -> dict[str, Any]:
    file = photo(folder / "mug.jpg")
    rows = [
        {"sku": f"A-{n}", "title": f"Mug {n}", "mood": f"mood {n}", **({"photo": file} if n > 120 else {})}
        for n in range(1, 301)
    ]
    return {"products": rows, "size": "1080p"}


def news(folder: Path) -> dict[str, Any]:
    file = photo(folder / "news.jpg")
    rows = [
        {"title": f"T{n}", "summary": f"S{n}", "date": f"2026-11-{n:02}", **({} if n > 18 else {"image": file})}
        for n in range(1, 21)
    ]
    return {"news": rows}


def shots(folder: Path) -> dict[str, Any]:
    return {"table": [{"line": f"line {n}", "photo": photo(folder / f"{n}.png", n)} for n in range(6)]}


GIVEN: dict[str, tuple[Given, str, str]] = {
    "product-video": (products, "845.52 / 848.15 / 1433.52", "300 products, 120 without a photo, 1080p"),
    "film": (lambda _: {"prompt": "a lighthouse"}, "3.58 / 18.39 / 20.18", "6 shots"),
    "dub": (lambda f: {"video": video(f / "v.mp4", 30)}, "0.41 / 2.44 / 5.44", "30 s"),
    "six-languages": (lambda f: {"video": video(f / "v.mp4", 30)}, "2.28 / 14.45 / 16.13", "30 s, 6 languages"),
    "storyboard": (
        lambda f: {"hero": photo(f / "h.png"), "opening": "x", "scenes": [{"move": f"m{n}"} for n in range(8)]},
        "28.60 / 28.60 / 28.60",
        "8 scenes",
    ),
    "podcast-video": (
        lambda f: {
            "recording": sound(f / "r.wav", 1800),
            "chapters": [{"title": f"c{n}", "seconds": 150} for n in range(12)],
        },
        "1.20 / 1.20 / 1.20",
        "30 min, 12 chapters",
    ),
    "model-shootout": (
        lambda f: {"photo": photo(f / "p.png"), "prompt": "x"},
        "19.72 / 19.72 / 19.72",
        "5 models, 2 takes",
    ),
    "two-models": (shots, "31.20 / 31.20 / 31.20", "6 shots"),
    "house-style": (lambda f: {"photos": photos(f / "photos", 40)}, "366.40 / >= 390.40 / >= 406.40", "40 photos"),
    "formats": (
        lambda f: {"master": video(f / "v.mp4", 30), "logo": photo(f / "l.png")},
        "0.00 / 0.00 / 0.00",
        "30 s",
    ),
    "weekly-news": (news, "0.18 / 0.52 / 0.96", "20 rows, 5 used"),
    "3d-catalogue": (lambda f: {"photos": photos(f / "photos", 40)}, "314.00 / 314.00 / 314.00", "40 photos"),
}
"""The inputs, the prices, and what the documentation calls the inputs."""
