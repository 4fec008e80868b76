"""Joins clips, and fades the end of each clip into the next one (`crossfaded`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.argument_checks import check_size, check_time, check_word
from rh_prefect.media.edit.assembly import Joined
from rh_prefect.media.edit.audio_samples import PIECE, RATE, Pieces, Sound, endless_silence, sound_with_picture
from rh_prefect.media.edit.output import create_film
from rh_prefect.media.edit.video_reader import Fit, Shape, fitted, shape_of

Look = Literal["fade", "black"]
"""How one clip becomes the next: `fade` fades the next picture in over the old one, `black` passes through black."""

LONGEST = 5.0
"""Maximum seconds of a transition, because all frames of a transition are in memory."""

_BLACK = (16, 128)
"""The values of luma and chroma of a black pixel in yuv420p."""


def crossfaded(
    clips: Sequence[Path],
    to: Path,
    *,
    seconds: float = 0.5,
    look: Look = "fade",
    fit: Fit = "contain",
    width: int | None = None,
    height: int | None = None,
) -> Joined:
    """Joins clips like `concat`, and fades the picture and the sound of each clip into the next one for `seconds`.

    Each transition makes the film shorter by `seconds`.
    """
    check_time("seconds", seconds)
    check_word("look", look, Look)
    check_word("fit", fit, Fit)
    check_size(width, height)
    if not clips or not 0 < seconds <= LONGEST:
        raise InputError(
            f"A film of {len(clips)} clips with transitions of {seconds:g} s cannot be made. What to do: pass at least "
            f"one clip, and transitions of at most {LONGEST:g} s."
        )
    shapes = [shape_of(clip) for clip in clips]
    canvas = replace(Shape.around(shapes, width, height), has_audio=any(shape.has_audio for shape in shapes))
    count = max(1, round(seconds * canvas.rate))
    starts: list[float] = []
    with ExitStack() as stack, create_film(to, canvas) as film:
        tail: list[av.VideoFrame] = []
        before = stack.enter_context(Sound(endless_silence()))
        for clip, shape in zip(clips, shapes, strict=True):
            starts.append(film.picture.seconds)
            frames = fitted(clip, canvas, fit)
            sound = stack.enter_context(Sound(sound_with_picture(clip) if shape.has_audio else endless_silence()))
            head = [one for _, one in zip(range(len(tail)), frames)]
            if len(head) < len(tail):
                raise _too_short(clip, seconds)
            mixed = Sound(_crossed(before, sound, round(len(tail) / canvas.rate * RATE)))
            pairs = enumerate(zip(tail, head), 1)
            film.write((_blend(old, new, n / (len(tail) + 1), look) for n, (old, new) in pairs), mixed)
            tail = []
            for one in frames:
                tail.append(one)
                if len(tail) > count:
                    film.write([tail.pop(0)], sound)
            if len(tail) < count:
                raise _too_short(clip, seconds)
            before = sound
        film.write(tail, before)
    return Joined(film.picture.seconds, tuple(starts), canvas.width, canvas.height, float(canvas.rate))


def _too_short(clip: Path, seconds: float) -> MediaError:
    return MediaError(
        f"The clip {clip} is too short for transitions of {seconds:g} s at its ends. What to do: use shorter "
        "transitions."
    )


def _crossed(old: Sound, new: Sound, samples: int) -> Pieces:
    """Yields samples that cross-fade from one sound to another."""
    for start in range(0, samples, PIECE):
        length = min(PIECE, samples - start)
        up = np.linspace(start / samples, (start + length) / samples, length, endpoint=False, dtype=np.float32)
        pieces = [old.read(length), new.read(length)]
        one, two = (np.pad(piece, ((0, 0), (0, length - piece.shape[1]))) for piece in pieces)
        yield one * np.sqrt(1 - up) + two * np.sqrt(up)


def _blend(old: av.VideoFrame, new: av.VideoFrame, share: float, look: Look) -> av.VideoFrame:
    """Returns the frame that is shown after a share (0 to 1) of the transition between two frames."""
    first, second = (_planes(frame) for frame in (old, new))
    if look == "black":
        shown, visible = (first, 1 - 2 * share) if share < 0.5 else (second, 2 * share - 1)
        mixed = _black(shown, old.height) * (1 - visible) + shown * visible
    else:
        mixed = first * (1 - share) + second * share
    return av.VideoFrame.from_ndarray(np.rint(mixed).astype(np.uint8), format="yuv420p")


def _planes(frame: av.VideoFrame) -> NDArray[np.float32]:
    return frame.to_ndarray(format="yuv420p").astype(np.float32)


def _black(like: NDArray[np.float32], height: int) -> NDArray[np.float32]:
    found = np.full_like(like, _BLACK[1])
    found[:height] = _BLACK[0]
    return found
