"""Image models: the picture shows its prompt, has the shape and format asked for, and keeps what was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from rh_prefect import catalog
from rh_prefect.emulator.render import Renderer
from rh_prefect.emulator.render.caption import strip
from rh_prefect.emulator.render.scene import paint
from tests.support.samples import media as samples

FLUX = catalog.get("f-dev")
WIDE = {"aspectRatio": "16:9"}

Render = Callable[..., list[Image.Image]]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    renderer = Renderer(tmp_path / "renders", long_side=128)

    def make(
        name: str, payload: Mapping[str, object], inputs: Mapping[str, list[Path]] | None = None
    ) -> list[Image.Image]:
        outputs = renderer.render(catalog.get(name), payload, inputs or {}, seed_text="seed")
        return [Image.open(output.path) for output in outputs if output.path is not None]

    return make


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255, at the size of the first."""
    same = other.convert("RGB").resize(one.size)
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), same)).mean) / 3


@pytest.mark.parametrize(
    ("name", "asked", "size"),
    [
        ("f-dev", {"aspectRatio": "16:9"}, (128, 72)),
        ("f-dev", {"aspectRatio": "9:16"}, (72, 128)),
        ("f-dev", {"aspectRatio": "custom", "customWidth": 1024, "customHight": 512}, (128, 64)),
        ("wan-2.5-preview/text-to-image", {"size": "1280*720"}, (128, 72)),
        ("seedream-v4/text-to-image", {"width": 2048, "height": 1024}, (128, 64)),
        ("wan-2.7/text-to-image", {}, (128, 128)),
        ("wan-2.7/text-to-image", {"width": 100, "height": 50}, (100, 50)),
    ],
)
def test_shape(render: Render, name: str, asked: dict[str, object], size: tuple[int, int]) -> None:
    assert render(name, {"prompt": "a hill", **asked})[0].size == size


@pytest.mark.parametrize(
    ("name", "asked", "count"),
    [
        ("grok-3-image-text-to-image", {"imageNum": "3"}, 3),
        ("wan-2.7/text-to-image", {"n": 2}, 2),
        ("seedream-v4/text-to-image", {"maxImages": 4, "sequentialImageGeneration": "auto"}, 4),
        ("seedream-v4/text-to-image", {"maxImages": 4, "sequentialImageGeneration": "disabled"}, 1),
    ],
)
def test_count(render: Render, name: str, asked: dict[str, object], count: int) -> None:
    pictures = render(name, {"prompt": "a hill", **asked})
    assert len(pictures) == count
    assert len({picture.tobytes() for picture in pictures}) == count


def test_the_prompt_is_written_into_the_picture(tmp_path: Path) -> None:
    (output,) = Renderer(tmp_path).render(FLUX, {"prompt": "a red fox", **WIDE}, {}, seed_text="x")
    assert output.path is not None
    picture = Image.open(output.path)
    scene = paint("a red fox", picture.size)
    words = np.asarray(strip(picture.size, "a red fox"), np.int16)
    where = words[..., :3].min(axis=2) > 240
    assert where.sum() > 60
    assert np.asarray(picture)[where].mean() > 240
    assert difference(scene.crop((0, 0, 256, 60)), picture.crop((0, 0, 256, 60))) < 1


def test_an_edit_shows_the_picture_that_was_sent(render: Render, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(96, 72))
    edited = render("qwen-image/edit-2511", {"prompt": "make it snow"}, {"imageUrl": [photo]})[0]
    assert edited.size == (128, 96)
    assert difference(edited.crop((0, 48, 128, 96)), Image.open(photo).crop((0, 36, 96, 72))) < 4
    assert difference(edited, Image.open(photo)) > 1, "the prompt must be seen"


@pytest.mark.parametrize(("scale", "size"), [("2x", (128, 96)), ("4x", (256, 192)), ("6x", (384, 288))])
def test_upscalers_enlarge_that_very_picture(render: Render, tmp_path: Path, scale: str, size: tuple[int, int]) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(64, 48))
    large = render("topazlabs-image-upscale-cgi", {"scale": scale}, {"imageUrl": [photo]})[0]
    assert large.size == size
    assert difference(Image.open(photo), large) < 4
