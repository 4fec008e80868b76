"""Generates images, videos and sound for the examples of `rh-prefect init`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rh_prefect.catalog.registry import get
from rh_prefect.emulator.render.request import Limits, Request
from rh_prefect.emulator.render.scene import paint
from rh_prefect.emulator.render.sound import SPEECH_RATE, speak, write_sound
from rh_prefect.emulator.render.video_files import video_frame, write_film
from rh_prefect.emulator.render.video_models import pan
from rh_prefect.media.edit.audio_samples import RATE, Pieces

_SIDE = 1024
_FPS = Fraction(12)
_HAIR_COLOURS = ((58, 44, 40), (112, 60, 34), (196, 150, 90))
"""RGB colours of the hair in the drawn portraits."""

_TALK = (
    "The harbour was built in three summers. First came the wall, then the crane, and last the light. When fog comes "
    "in, a pilot hears the depth. And the last ferry of the day waits for the train, even when the train is late. "
)


def _backdrop() -> Image.Image:
    shade = np.linspace(244, 206, _SIDE)[:, None, None] * np.ones((1, _SIDE, 3))
    return Image.fromarray(shade.astype(np.uint8))


def _shadowed(at: tuple[int, int, int, int]) -> Image.Image:
    """Draws a soft shadow below an object on a light background."""
    picture = _backdrop()
    ImageDraw.Draw(picture).ellipse(at, fill=(150, 148, 146))
    return picture.filter(ImageFilter.GaussianBlur(22))


def _mug() -> Image.Image:
    picture = _shadowed((250, 770, 800, 880))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((610, 390, 850, 690), outline=(44, 84, 120), width=48)
    draw.rounded_rectangle((270, 300, 700, 840), 70, fill=(52, 98, 140))
    draw.rounded_rectangle((300, 330, 370, 800), 34, fill=(84, 132, 174))
    draw.ellipse((270, 250, 700, 380), fill=(70, 118, 160))
    draw.ellipse((306, 274, 664, 364), fill=(58, 38, 28))
    return picture


def _lamp() -> Image.Image:
    picture = _shadowed((280, 830, 760, 910))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((500, 480, 530, 850), fill=(70, 66, 64))
    draw.rounded_rectangle((370, 830, 660, 880), 24, fill=(54, 50, 48))
    draw.polygon([(410, 180), (620, 180), (760, 500), (270, 500)], fill=(222, 150, 62))
    draw.polygon([(410, 180), (470, 180), (390, 500), (270, 500)], fill=(236, 182, 108))
    draw.ellipse((270, 470, 760, 530), fill=(250, 226, 160))
    return picture


def _portrait(number: int, *, mouth: float = 0.2) -> Image.Image:
    hair, coat = _HAIR_COLOURS[number % len(_HAIR_COLOURS)], ((44, 92, 110), (132, 62, 70), (70, 92, 58))[number % 3]
    picture = _backdrop()
    draw = ImageDraw.Draw(picture)
    draw.ellipse((170, 740, 854, 1400), fill=coat)
    draw.rectangle((440, 640, 584, 800), fill=(208, 160, 132))
    draw.ellipse((296, 150, 728, 640), fill=hair)
    draw.ellipse((330, 210, 694, 710), fill=(228, 182, 154))
    draw.pieslice((320, 170, 704, 560), 195, 345, fill=hair)
    for x in (430, 594):
        draw.ellipse((x - 34, 422, x + 34, 464), fill=(250, 250, 248))
        draw.ellipse((x - 16, 426, x + 16, 460), fill=(52, 44, 40))
        draw.arc((x - 48, 376, x + 48, 436), 200, 340, fill=hair, width=12)
    draw.line([(512, 450), (494, 548), (522, 552)], fill=(192, 142, 116), width=9)
    draw.ellipse((442, 610 - 40 * mouth, 582, 610 + 70 * mouth), fill=(150, 62, 62))
    return picture


def _logo() -> Image.Image:
    picture = Image.new("RGBA", (512, 512))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((16, 16, 496, 496), fill=(20, 46, 72, 230))
    draw.polygon([(196, 150), (196, 362), (378, 256)], fill=(255, 255, 255, 255))
    return picture


def _speech(seconds: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Synthesizes a hummed voice, in one channel with `SPEECH_RATE` samples per second."""
    model = get("minimax/speech-2.8-hd")
    payload = {"text": _TALK * (1 + round(seconds / 15)), "voice_id": "Wise_Woman"}
    return speak(Request(model, payload, {}, Limits()))[:, : round(seconds * SPEECH_RATE)]


def _talk(seconds: float, to: Path) -> None:
    write_sound(to, _speech(seconds), rate=SPEECH_RATE)


def _stereo(seconds: float) -> Pieces:
    """Yields the voice as a film's sound: two channels."""
    voice = _speech(seconds)[0]
    at = np.arange(round(seconds * RATE)) * (SPEECH_RATE / RATE)
    one = np.interp(at, np.arange(voice.size), voice).astype(np.float32)
    yield np.stack([one, one])


def _interview(seconds: float, to: Path) -> None:
    size = (720, 720)
    mouths = [video_frame(_portrait(0, mouth=step / 4).resize(size), size) for step in range(5)]
    order = (0, 2, 4, 3, 1, 3, 2, 0, 1, 4)
    frames = (mouths[order[number * 7 // 4 % len(order)]] for number in range(round(seconds * _FPS)))
    write_film(to, frames, size=size, fps=_FPS, sound=_stereo(seconds))


def _pan(seconds: float, to: Path) -> None:
    size = (1280, 720)
    frames = pan([paint("A harbour at dawn", (1600, 900))], size=size, count=round(seconds * _FPS), seed="harbour")
    write_film(to, frames, size=size, fps=_FPS, sound=_stereo(seconds))


Draw = Callable[[Path], None]


def _saved(draw: Callable[[], Image.Image]) -> Draw:
    return lambda to: draw().save(to, quality=88)


_PRODUCTS: Mapping[str, Draw] = {"photos/mug.jpg": _saved(_mug), "photos/lamp.jpg": _saved(_lamp)}
_ANNA, _BEN = (_saved(partial(_portrait, number)) for number in (1, 2))
_HARBOUR: Mapping[str, Draw] = {"video.mp4": partial(_pan, 6)}

MEDIA: Mapping[str, Mapping[str, Draw]] = {
    "product-video": _PRODUCTS,
    "dub": {"interview.mp4": partial(_interview, 20)},
    "six-languages": {"interview.mp4": partial(_interview, 20)},
    "storyboard": {"hero.jpg": _ANNA},
    "podcast-video": {"conversation.mp3": partial(_talk, 15)},
    "model-shootout": {"mug.jpg": _saved(_mug)},
    "two-models": _PRODUCTS,
    "house-style": {"photos/anna.jpg": _ANNA, "photos/ben.jpg": _BEN},
    "formats": {"master.mp4": partial(_pan, 6), "logo.png": _saved(_logo)},
    "weekly-news": {"photos/harbour.jpg": _saved(partial(paint, "A harbour in the morning, a ferry", (1280, 720)))},
    "3d-catalogue": _PRODUCTS,
    "score": _HARBOUR,
    "upscale": _HARBOUR,
    "add-soundtrack": _HARBOUR,
    "captions": _HARBOUR,
    "assemble": {**_HARBOUR, "harbour.mp4": partial(_pan, 5), "speech.mp3": partial(_talk, 8)},
    "image-to-video": {"mug.jpg": _saved(_mug)},
}
"""The generated files of each example, by their names in the example's folder."""
