"""The parameters of a request: text, pictures, size, length, count and sound."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from rh_prefect.catalog.model import Model

T = TypeVar("T")
Kind = Literal["image", "video", "audio"]
Size = tuple[int, int]

_WORD_KEYS = ("prompt", "text", "textPrompt", "previewText", "description", "lyrics", "title", "texturePrompt", "name")
_SOUND_KEYS = ("sound", "generateAudio", "generateAudioSwitch", "enableAudio", "audio", "bgm")
_COUNT_KEYS = ("n", "imageNum", "maxImages")
_PAIR = re.compile(r"^\s*(\d+)\s*([*x×:])\s*(\d+)\s*$", re.IGNORECASE)
_MOST_PICTURES = 15
_THINNEST = 32


class Stopped(Exception):
    """The emulator has stopped during a rendering."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a rendering."""

    long_side: int = 256
    fps: int = 12
    max_seconds: float | None = None
    stopping: threading.Event = field(default_factory=threading.Event, compare=False)

    def until_stop(self, parts: Iterable[T]) -> Iterator[T]:
        """Yields the parts of a rendering.

        Raises:
            Stopped: The emulator has stopped.
        """
        for part in parts:
            if self.stopping.is_set():
                raise Stopped
            yield part

    def cut(self, seconds: float) -> float:
        """Returns a length in seconds, which is at most `max_seconds`."""
        return seconds if self.max_seconds is None else min(seconds, self.max_seconds)


@dataclass(frozen=True)
class Request:
    """A request to a model, with the local files of its media parameters.

    Attributes:
        model: The catalogue's entry.
        payload: The wire payload.
        inputs: Local files by wire key.
        limits: The limits of the rendering.
        seed_text: The text that determines the outputs if the request has neither text nor files.
        variant: Makes otherwise equal requests different; empty if their results are to be equal.
    """

    model: Model
    payload: Mapping[str, object]
    inputs: Mapping[str, list[Path]]
    limits: Limits
    seed_text: str = ""
    variant: str = ""

    @cached_property
    def given(self) -> dict[str, object]:
        """The payload with stripped keys, because one model's wire key begins with a space."""
        return {key.strip(): value for key, value in self.payload.items()}

    def value(self, *keys: str) -> object | None:
        """Returns the value of the first of the named parameters that is set or has a default."""
        given = next((self.given[key] for key in keys if self.given.get(key) not in (None, "", [])), None)
        if given is not None:
            return given
        defaults = {param.key.strip(): param.default for param in self.model.params}
        return next((defaults[key] for key in keys if defaults.get(key) not in (None, "")), None)

    def is_on(self, *keys: str) -> bool:
        """Returns whether any of the named parameters is on: true, "true" or "yes"."""
        return any(str(self.value(key)).lower() in {"true", "yes", "on", "1"} for key in keys)

    def names(self, *words: str) -> bool:
        """Returns whether the model's name contains one of the given words."""
        return any(word in self.model.name.lower() for word in words)

    @cached_property
    def words(self) -> str:
        """The prompt of the request; empty if the request has no prompt."""
        found = (self.payload.get(key) for key in _WORD_KEYS)
        return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")

    @cached_property
    def subject(self) -> str:
        """The text that determines the outputs: the prompt, otherwise the seed text, otherwise the model's name."""
        return self.words or self.seed_text or self.model.name

    @cached_property
    def drawn_from(self) -> str:
        """The subject together with the variant."""
        return f"{self.subject} #{self.variant}" if self.variant else self.subject

    @cached_property
    def fingerprint(self) -> str:
        """A hash of model, payload and variant, without the links of uploads, which differ from upload to upload."""
        plain = {key: value for key, value in self.payload.items() if key not in self.inputs}
        text = json.dumps(
            [self.model.endpoint, plain, *filter(None, [self.variant])], sort_keys=True, ensure_ascii=False, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def files(self, kind: Kind) -> list[tuple[str, Path]]:
        """Returns the pairs (wire key, file) for one kind of media, in the order of the model's parameters."""
        types = {param.key: param.type for param in self.model.params}
        order = sorted(self.inputs, key=lambda key: list(types).index(key) if key in types else len(types))
        return [(key, path) for key in order if _kind(key, types.get(key)) == kind for path in self.inputs[key]]

    @property
    def images(self) -> list[Path]:
        """The pictures of the request; the last frame is last."""
        found = self.files("image")
        return [path for _, path in sorted(found, key=lambda item: _is_last(item[0]))]

    @property
    def videos(self) -> list[Path]:
        """The videos of the request."""
        return [path for _, path in self.files("video")]

    @property
    def audios(self) -> list[Path]:
        """The sounds of the request."""
        return [path for _, path in self.files("audio")]

    @cached_property
    def count(self) -> int:
        """The requested number of pictures."""
        if self.value("sequentialImageGeneration") == "disabled":
            return 1
        return max(1, min(int(_number(self.value(*_COUNT_KEYS)) or 1), _MOST_PICTURES))

    @cached_property
    def seconds(self) -> float | None:
        """The requested length in seconds; None if the request does not state a length."""
        asked = _number(self.value("duration", "duration_seconds", "length"))
        return self.limits.cut(asked) if asked and asked > 0 else None

    @cached_property
    def wants_sound(self) -> bool:
        """Whether the video has sound."""
        return self.is_on(*(key for key in _SOUND_KEYS if key not in self.inputs))

    @cached_property
    def picture_format(self) -> str:
        """The file format of pictures: `png`, `jpg` or `webp`."""
        asked = str(self.value("outputFormat", "output_format") or "png").lower()
        return "jpg" if asked.startswith("jp") else "webp" if asked.startswith("webp") else "png"

    def size(self, natural: Size) -> Size:
        """Returns the size of the output: the requested shape, scaled down to the long side."""
        asked = self._asked_size()
        if asked is None:
            return fit(natural, self.limits.long_side)
        return fit(asked, min(self.limits.long_side, max(asked)) if min(asked) > _THINNEST else self.limits.long_side)

    def _asked_size(self) -> Size | None:
        # The result has the shape of a picture that was sent, unless the request itself says otherwise.
        read = self.given.get if self.images or self.videos else self.value
        shape = str(read("aspectRatio") or read("ratio") or "")
        if shape.lower() in {"", "custom"}:
            width = _number(read("customWidth") or read("width"))
            height = _number(read("customHight") or read("customHeight") or read("height"))
            if width and height:
                return round(width), round(height)
        for text in (read("size"), shape, read("resolution")):
            if (pair := _pair(text)) is not None:
                return pair
        return None


def fit(size: Size, long_side: int) -> Size:
    """Scales a size to a long side; no side gets thinner than a caption needs."""
    scale = long_side / max(size)
    width, height = (max(min(_THINNEST, long_side), round(side * scale)) for side in size)
    return width, height


def even(size: Size) -> Size:
    """Rounds a size to even sides, which 4:2:0 video requires."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def number(text: str, *, below: int) -> int:
    """Hashes a string to a number."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % below


def has_any(text: str, words: Iterable[str]) -> bool:
    """Returns whether any word of a text begins with one of the stems."""
    return any(re.search(rf"\b{word}" if word.isascii() else word, text, re.IGNORECASE) for word in words)


def _kind(key: str, declared: str | None) -> str:
    if declared in {"image", "video", "audio"}:
        return declared
    return next((kind for kind in ("video", "audio") if kind in key.lower()), "image")


def _is_last(key: str) -> bool:
    return "last" in key.lower() or key.lower().startswith("end")


def _pair(value: object) -> Size | None:
    """Reads "1280*720", "1024×1920", "720x1280" and "16:9"; a ratio becomes a size with the same numbers."""
    match = _PAIR.match(str(value))
    if match is None or "0" in {match[1], match[3]}:
        return None
    return int(match[1]), int(match[3])


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
