"""Writes the answers of text models: a text about the prompt, a description of a file, lyrics, or an id."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from rh_prefect.emulator.render import video_files
from rh_prefect.emulator.render.picture import load
from rh_prefect.emulator.render.request import Request, number

_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_LISTED = re.compile(
    rf"\b(\d{{1,2}}|{'|'.join(_NUMBERS)})\s+(?:\w+\s+){{0,3}}?"
    r"(shots?|scenes?|prompts?|ideas?|lines?|items?|titles?|sentences?|steps?|names?|versions?|captions?|bullets?)\b",
    re.IGNORECASE,
)
_FIELDS = re.compile(
    r"\b(?:each \w+ has|objects?,? (?:with|of|that has|that have)(?: (?:the )?(?:keys?|fields?))?:?) "
    r"((?:\w+,\s*)*\w+(?:,?\s+and\s+\w+)?)",
    re.IGNORECASE,
)
"""Matches the part of a prompt that names the fields of an object, or of the items of a list."""

_ONE_OBJECT = re.compile(r"\bjson object\b", re.IGNORECASE)

_ONLY = re.compile(r"\b(?:words|text|translation) only\b", re.IGNORECASE)
_ABOUT = re.compile(r"\b(?:about|of|for|showing|describing)\s+(.+)", re.IGNORECASE | re.DOTALL)
_VIEWS = (
    "Wide shot, {subject}, the camera glides in slowly.",
    "Close-up, {subject}, soft light from the left.",
    "Low angle, {subject}, clouds drift behind.",
    "View from above, {subject}, long shadows.",
    "Medium shot, {subject}, the colours turn warm.",
    "Long shot against the light, {subject}, a breath of mist.",
    "Slow pan to the right, {subject}, dust in the air.",
    "Still frame, {subject}, the last light fades.",
)
_COLOURS = {
    "black": (20, 20, 24), "white": (240, 240, 240), "grey": (128, 132, 136), "red": (200, 50, 50),
    "orange": (225, 140, 70), "gold": (235, 200, 120), "green": (70, 150, 90), "teal": (60, 140, 140),
    "blue": (60, 100, 180), "night blue": (20, 30, 70), "violet": (120, 80, 150), "pink": (235, 170, 180),
}  # fmt: skip
_IDS = (
    ("identify-face", ("sessionId", "faceId")),
    ("lip-sync/tts", ("audioId",)),
    ("kling-elements", ("elementId",)),
    ("upload-character", ("characterId",)),
    ("upload-media-asset", ("mediaAssetId",)),
    ("to-world", ("worldId",)),
)
"""Models that answer with ids that other models accept."""


def answer(request: Request, *, ids_as: Literal["json", "lines"] = "json") -> str:
    """Answers a request to a text model; requests with equal parameters and variants get equal answers."""
    for part, ids in _IDS:
        if request.names(part):
            found = _with_ids(request, ids)
            return json.dumps(found) if ids_as == "json" else "\n".join(f"{name}: {id_}" for name, id_ in found.items())
    if request.names("lyrics"):
        return lyrics(request.subject, variant=request.variant)
    seen = [*map(describe_video, request.videos), *map(describe_picture, request.images)]
    if seen:
        asked = f' You asked: "{_short(request.words)}"' if request.words else ""
        return " ".join(seen) + asked + (f" (Answer {request.variant}.)" if request.variant else "")
    return write(request.subject, variant=request.variant)


def write(prompt: str, *, variant: str = "") -> str:
    """Writes text: a list or JSON if the prompt asks for it, otherwise a paragraph."""
    if "json" in prompt.lower():
        prompt = re.sub(r"([\"'`])(\w+)\1", r"\2", prompt)  # the names of fields may be quoted
    subject = subject_of(prompt)
    found = _LISTED.search(prompt)
    if found is None and "json" not in prompt.lower():
        if _ONLY.search(prompt) is not None:
            return f"{subject}." + (f" ({variant})" if variant else "")
        return _paragraph(prompt, subject, variant)
    count = 3 if found is None else min(50, _NUMBERS.get(found[1].lower()) or int(found[1]))
    first = number(prompt + variant, below=len(_VIEWS))
    named_in = re.sub(r"^(An?|The) ", lambda article: article[0].lower(), subject)
    items = [_VIEWS[(first + index) % len(_VIEWS)].format(subject=named_in) for index in range(max(1, count))]
    spoken = [item.rpartition(", ")[2].capitalize() for item in items]
    items[0] += f" Take {number(variant, below=10**6)}." if variant else ""
    if "json" in prompt.lower():
        named = _FIELDS.search(prompt)
        fields = re.split(r",\s*(?:and\s+)?|\s+and\s+", named[1]) if named is not None else []
        rows = [{field: line if field == "line" else item for field in fields} for item, line in zip(items, spoken)]
        found_items = rows if fields else items
        asked = found_items[0] if _ONE_OBJECT.search(prompt) and found is None else found_items
        return json.dumps(asked, ensure_ascii=False, indent=2)
    return "\n".join(f"{index}. {item}" for index, item in enumerate(items, 1))


def subject_of(prompt: str) -> str:
    """Finds the subject of a prompt: quoted text, or the text after the last colon or after the word "about"."""
    if (quoted := re.search(r"[\"“「](.{3,}?)[\"”」]", prompt)) is not None:
        return _short(quoted[1])
    after = re.split(r"[:：]\s", prompt)[-1]
    if after == prompt and (about := _ABOUT.search(prompt)) is not None:
        after = about[1]
    return _short(re.split(r"\n|(?<=\w)[.!?。]\s", after.strip())[0].strip(" .!?\n"))


def lyrics(subject: str, *, variant: str = "") -> str:
    """Writes lyrics, with the section tags of the music models."""
    theme = subject_of(subject)
    return (
        f"[Verse]\nMorning opens slowly over {theme},\nevery window holds a little light.\n"
        "I have walked the long road round to meet you,\nand the day is leaning into night.\n\n"
        f"[Chorus]\nOh, {theme}, carry me along,\nturn the quiet into song.\n"
        f"Oh, {theme}, stay a while with me,\nas the river finds the sea.\n\n"
        "[Outro]\nLet it fade, let it fade, let it be." + (f"\n{variant}, let it be." if variant else "")
    )


def describe_picture(path: Path) -> str:
    """Describes a picture: size, shape and colours."""
    picture = load(path)
    return f"A {_shape(picture.size)} picture of {picture.width} x {picture.height} pixels, mostly {_colours(picture)}."


def describe_video(path: Path) -> str:
    """Describes a video: length, size, frame rate and colours."""
    shape = video_files.shape_of(path)
    size = shape.width, shape.height
    first = next(video_files.pictures_of(path, size, shape.rate))
    sound = "with sound" if shape.has_audio else "without sound"
    pixels = f"{size[0]} x {size[1]} pixels at {float(shape.rate):g} frames per second"
    opens = f"it opens mostly {_colours(first)}"
    return f"A {_shape(size)} video of {video_files.seconds_of(path):.1f} seconds, {pixels}, {sound}; {opens}."


def _shape(size: tuple[int, int]) -> str:
    width, height = size
    return "wide" if width > 1.1 * height else "tall" if height > 1.1 * width else "square"


def _colours(picture: Image.Image) -> str:
    """Names the colours of the upper and the lower half."""
    halves = np.asarray(picture.resize((1, 2), Image.Resampling.BOX), np.float32)[:, 0]
    named = [min(_COLOURS, key=lambda name: float(np.abs(half - np.array(_COLOURS[name])).sum())) for half in halves]
    return " and ".join(dict.fromkeys(named))


def _paragraph(prompt: str, subject: str, variant: str) -> str:
    return (
        f"{subject[:1].upper()}{subject[1:]}: that is the heart of it. It begins in a quiet, wide view, comes close "
        "enough for one telling detail, and ends on a light that is a little warmer than the one it began with. "
        f'(This is the emulator\'s answer {variant + " " if variant else ""}to "{_short(prompt)}".)'
    )


def _short(text: str, most: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + "..."


def _with_ids(request: Request, names: tuple[str, ...]) -> dict[str, object]:
    known = request.fingerprint + "".join(path.name for path in request.videos + request.images)
    ids: dict[str, object] = {name: str(10**17 + number(known + name, below=9 * 10**17)) for name in names}
    if request.videos and "sessionId" in ids:
        milliseconds = round(video_files.seconds_of(request.videos[0]) * 1000)
        ids |= {"startTime": 0, "endTime": milliseconds}
    return ids
