"""Joins clips into one video, one after the other or with transitions (`concat`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.audio_samples import PIECE, RATE, Pieces, Sound, endless_silence, recording
from rh_prefect.media.edit.output import create_film
from rh_prefect.media.edit.video_reader import Fit, Shape, fitted, shape_of

Look: TypeAlias = Literal["fade", "black"]
"""How one clip becomes the next: `fade` fades the next picture in over the old one, `black` passes through black."""

_BLACK = (16, 128)
"""The values of luma and chroma of a black pixel in yuv420p."""


def concat(
    clips: Sequence[Path],
    to: Path,
    *,
    fit: Fit = "contain",
    width: int | None = None,
    height: int | None = None,
    seconds: float = 0.0,
    look: Look = "fade",
) -> float:
    """Joins clips into one H.264 video (yuv420p, MP4), and returns its length in seconds.

    The video has the largest clip's size and the highest frame rate; a clip with another aspect ratio gets bars
    (`contain`), is cropped (`cover`) or is distorted (`stretch`). If a clip has sound, those without are silent.

    With `seconds`, the picture and the sound of each clip are faded into the next one for this time, which makes the
    film shorter. All frames of a transition are in memory.
    """
    if not clips:
        raise InputError("There are no clips to join. What to do: give at least one clip.")
    shapes = [shape_of(clip) for clip in clips]
    canvas = Shape.around(shapes, width, height)
    count = max(1, round(seconds * canvas.rate)) if seconds else 0
    with ExitStack() as stack, create_film(to, canvas) as film:
        tail: deque[av.VideoFrame] = deque()
        before = Sound(endless_silence())
        for number, (clip, shape) in enumerate(zip(clips, shapes, strict=True), 1):
            frames = fitted(clip, canvas, fit)
            sound = stack.enter_context(Sound(recording(clip) if shape.has_audio else endless_silence()))
            crossed = Sound(_crossed(before, sound, round(len(tail) / canvas.rate * RATE)))
            film.write(_blended(tail, frames, look), crossed)
            before.close()
            next_tail = deque(islice(frames, count if number < len(clips) else 0))
            if tail or (number < len(clips) and len(next_tail) < count):
                raise MediaError(
                    f"The clip {clip} is too short for transitions of {seconds:g} s at its ends. What to do: use "
                    "shorter transitions."
                )
            before, tail = sound, next_tail
            for one in frames:
                tail.append(one)
                film.write([tail.popleft()], sound)
    return film.seconds


def _crossed(old: Sound, new: Sound, samples: int) -> Pieces:
    """Yields samples that cross-fade from one sound to another."""
    for start in range(0, samples, PIECE):
        length = min(PIECE, samples - start)
        up = np.linspace(start / samples, (start + length) / samples, length, endpoint=False, dtype=np.float32)
        yield old.fill(length) * np.sqrt(1 - up) + new.fill(length) * np.sqrt(up)


def _blended(tail: deque[av.VideoFrame], head: Iterator[av.VideoFrame], look: Look) -> Iterator[av.VideoFrame]:
    """Yields the frames of a transition from the end of one clip to the beginning of the next; consumes the `tail`.

    Frames remain in the `tail` if the next clip is too short.
    """
    steps = len(tail) + 1
    for number, new in enumerate(islice(head, len(tail)), 1):
        yield _blend(tail.popleft(), new, number / steps, look)


def _blend(old: av.VideoFrame, new: av.VideoFrame, share: float, look: Look) -> av.VideoFrame:
    """Returns the frame that is shown after a share (0 to 1) of the transition between two frames."""
    first, second = (frame.to_ndarray(format="yuv420p").astype(np.float32) for frame in (old, new))
    if look == "black":
        black = np.full_like(first, _BLACK[1])
        black[: old.height] = _BLACK[0]
        first, second, share = (first, black, 2 * share) if share < 0.5 else (black, second, 2 * share - 1)
    mixed = first * (1 - share) + second * share
    return av.VideoFrame.from_ndarray(np.rint(mixed).astype(np.uint8), format="yuv420p")
