"""Draws the results of image models: a generated scene with the prompt, or the input picture with a caption."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from rh_prefect.emulator.render.caption import label, write
from rh_prefect.emulator.render.request import Request, Size
from rh_prefect.emulator.render.scene import paint
from rh_prefect.media.edit.frames_and_thumbnails import flat, open_image

_SQUARE, _WIDE = (1, 1), (16, 9)
_SAME_SHAPE = 0.12


def draw(request: Request, *, index: int = 0) -> Image.Image:
    """Draws one of the pictures of a request to an image model, or to a video model that starts from words."""
    if request.images and request.model.output == "image":
        return _edited(request)
    natural = _WIDE if request.model.output == "video" else _SQUARE
    text = request.drawn_from if index == 0 else f"{request.drawn_from} #{index + 1}"
    return write(paint(text, request.size(natural)), request.subject)


def load(path: Path) -> Image.Image:
    """Opens a picture, upright and without transparency; raises `MediaError` if the file is not a picture."""
    return flat(open_image(path))


def fill(picture: Image.Image, size: Size) -> Image.Image:
    """Scales a picture to a size: cropped if the shapes are similar, otherwise whole, on a blurred copy of itself."""
    shape, wanted = picture.width / picture.height, size[0] / size[1]
    covered = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if abs(shape / wanted - 1) < _SAME_SHAPE:
        return covered
    ground = covered.resize((max(1, size[0] // 8), max(1, size[1] // 8))).filter(ImageFilter.GaussianBlur(3))
    ground = ground.resize(size, Image.Resampling.BICUBIC).point(lambda value: value * 0.75)
    whole = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
    ground.paste(whole, ((size[0] - whole.width) // 2, (size[1] - whole.height) // 2))
    return ground


def inset(picture: Image.Image, small: Sequence[Image.Image]) -> Image.Image:
    """Places small pictures, framed in white, in the upper right corner."""
    out = picture.copy()
    side = round(min(picture.size) * 0.2)
    gap = max(2, side // 8)
    for index, other in enumerate(small[:4]):
        framed = ImageOps.expand(
            ImageOps.fit(other, (side, side), Image.Resampling.LANCZOS), max(1, side // 28), "white"
        )
        out.paste(framed, (picture.width - (index + 1) * (framed.width + gap), gap))
    return out


def grain(picture: Image.Image, variant: str) -> Image.Image:
    """Adds a fine grain to a picture, different for each variant; without a variant, adds nothing."""
    if not variant:
        return picture
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(variant.encode()).digest()[:8], "big"))
    pixels = np.asarray(picture.convert("RGB"), np.int16)
    noise = random.integers(-2, 3, (*pixels.shape[:2], 1), np.int16)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8), "RGB")


def save(picture: Image.Image, to: Path) -> None:
    """Writes a picture in the format given by the file name."""
    if to.suffix == ".jpg":
        picture.save(to, "JPEG", quality=92, subsampling=0)
    elif to.suffix == ".webp":
        picture.save(to, "WEBP", quality=92, method=2)
    else:
        picture.save(to, "PNG", compress_level=4)


def _edited(request: Request) -> Image.Image:
    first, *others = [load(path) for path in request.images]
    picture = fill(first, request.size(first.size))
    marked = inset(picture, others)
    words = label(marked.size, request.words)
    marked.paste(words, (0, 0), words)
    return marked


def sample(to: Path) -> Path:
    """Paints the placeholder for the example input of a graph, once."""
    if not to.exists():
        part = to.with_name(f"{threading.get_ident()}-{to.name}")
        paint("a quiet harbour in the morning", (256, 192)).save(part, "PNG")
        part.replace(to)
    return to
