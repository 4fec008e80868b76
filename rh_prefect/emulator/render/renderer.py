"""Renders each request once, even if equal requests arrive concurrently."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rh_prefect.catalog.model import Model
from rh_prefect.emulator.inputs import sha256_of
from rh_prefect.emulator.render import glb_cube, picture, sound, texts, video_files, video_models
from rh_prefect.emulator.render.request import Limits, Request, number
from rh_prefect.emulator.render.sound import write_sound
from rh_prefect.media.edit.audio_samples import RATE


@dataclass(frozen=True, slots=True)
class Rendered:
    """One output: a file, which belongs to the renderer, or text."""

    path: Path | None
    text: str | None
    extension: str


class Renderer:
    """Renders requests; thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        long_side: int = 256,
        fps: int = 12,
        max_seconds: float | None = None,
        id_answers: Literal["json", "lines"] = "json",
        lyrics_as_text: bool = True,
    ) -> None:
        self._id_answers: Literal["json", "lines"] = id_answers
        self._lyrics_as_text = lyrics_as_text
        self._folder = folder
        self._limits = Limits(long_side=long_side, fps=fps, max_seconds=max_seconds)
        self._known: dict[str, Future[list[Rendered]]] = {}
        self._lock = threading.Lock()
        self._at_once = threading.BoundedSemaphore(os.cpu_count() or 1)

    def render(
        self,
        model: Model,
        payload: Mapping[str, object],
        inputs: Mapping[str, list[Path]],
        *,
        seed_text: str,
        variant: str = "",
    ) -> list[Rendered]:
        """Renders a request, or returns the outputs of an equal request.

        Requests are equal if they have the same model, parameters, variant and file contents; the links under which the
        files were uploaded do not count.

        Args:
            model: The catalogue's entry.
            payload: The wire payload.
            inputs: The files that were uploaded, by wire key.
            seed_text: The text that determines the outputs if a request has neither text nor files.
            variant: Digits that make otherwise equal requests different; empty if their results are to be equal.

        Returns:
            The outputs, at least one.

        Raises:
            MediaError: A file of the request cannot be read.
        """
        request = Request(model, dict(payload), dict(inputs), self._limits, seed_text, variant)
        key = self._key(request)
        with self._lock:
            known = self._known.get(key)
            mine = known is None
            future = self._known.setdefault(key, Future())
        if mine:
            self._fulfil(future, key, request)
        return list(future.result())

    def stop(self) -> None:
        """Ends all renderings with `Stopped`."""
        self._limits.stopping.set()

    def _fulfil(self, future: Future[list[Rendered]], key: str, request: Request) -> None:
        try:
            with self._at_once:
                self._folder.mkdir(parents=True, exist_ok=True)
                future.set_result(self._make(request, self._folder / key[:24]))
        except BaseException as error:
            with self._lock:
                del self._known[key]
            future.set_exception(error)

    def _make(self, request: Request, stem: Path) -> list[Rendered]:
        if request.model.output == "text" or (request.names("lyrics") and self._lyrics_as_text):
            return [Rendered(None, texts.answer(request, ids_as=self._id_answers), "txt")]
        return make(request, stem)

    def _key(self, request: Request) -> str:
        parts = [request.fingerprint]
        parts += [f"{key}={sha256_of(path)}" for key in sorted(request.inputs) for path in request.inputs[key]]
        if not request.words and len(parts) == 1:
            parts.append(request.seed_text)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make(request: Request, stem: Path) -> list[Rendered]:
    """Renders the files of a request; `stem` is their path without an extension."""
    if request.model.output == "image":
        return _pictures(request, stem)
    if request.model.output == "video":
        return _video(request, stem)
    if request.model.output == "audio":
        return [_sound(request, stem)]
    to = stem.with_suffix(".glb")
    glb_cube.write_cube(to, hue=number(request.fingerprint, below=36_000) / 36_000)
    return [_file(to)]


def _pictures(request: Request, stem: Path) -> list[Rendered]:
    made = []
    for index in range(request.count):
        to = stem.with_name(f"{stem.name}-{index}.{request.picture_format}")
        enlarges = request.names("upscale", "hypir") and request.images
        drawn = video_models.enlarge_picture(request) if enlarges else picture.draw(request, index=index)
        picture.save(picture.grain(drawn, request.variant), to)
        made.append(_file(to))
    return made


def _video(request: Request, stem: Path) -> list[Rendered]:
    to = stem.with_suffix(".mp4")
    if not request.videos:
        video_models.animate(request, to)
    elif request.names("upscal", "fps-increaser"):
        video_models.enhance_video(request, to)
    else:
        video_models.rework(request, to)
    if not request.is_on("returnLastFrame"):
        return [_file(to)]
    last = stem.with_name(f"{stem.name}-last.png")
    shape = video_files.shape_of(to)
    *_, frame = video_files.pictures_of(to, (shape.width, shape.height), shape.rate)
    picture.save(picture.grain(frame, request.variant), last)
    return [_file(to), _file(last)]


def _sound(request: Request, stem: Path) -> Rendered:
    asked = str(request.value("format", "outputFormat", "audio_format") or "mp3").lower()
    to = stem.with_suffix(f".{asked if asked in {'mp3', 'wav', 'flac'} else 'mp3'}")
    if request.names("music", "suno"):
        write_sound(to, sound.play(request), rate=RATE, bit_rate=192_000, comment=request.variant)
    else:
        write_sound(to, sound.speak(request), rate=sound.SPEECH_RATE, bit_rate=96_000, comment=request.variant)
    return _file(to)


def _file(path: Path) -> Rendered:
    return Rendered(path, None, path.suffix[1:])
