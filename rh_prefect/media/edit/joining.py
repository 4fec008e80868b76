"""Joins clips into one video, one after the other (`concat`) or with transitions (`crossfaded`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.argument_checks import check_size, check_time, check_word
from rh_prefect.media.edit.audio_samples import PIECE, RATE, Pieces, Sound, endless_silence, recording
from rh_prefect.media.edit.output import create_film
from rh_prefect.media.edit.video_reader import Fit, Shape, fitted, shape_of

ClipAudio: TypeAlias = Literal["drop", "keep"]

Look: TypeAlias = Literal["fade", "black"]
"""How one clip becomes the next: `fade` fades the next picture in over the old one, `black` passes through black."""

LONGEST = 5.0
"""Maximum seconds of a transition, because all frames of a transition are in memory."""

_BLACK = (16, 128)
"""The values of luma and chroma of a black pixel in yuv420p."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of joining clips: lengths and starts in seconds, the size in pixels, and frames per second."""

    seconds: float
    starts: tuple[float, ...]
    width: int
    height: int
    fps: float


def concat(
    clips: Sequence[Path],
    to: Path,
    *,
    audio: ClipAudio = "drop",
    fit: Fit = "contain",
    width: int | None = None,
    height: int | None = None,
) -> Joined:
    """Joins clips into one H.264 video (yuv420p, MP4) with the largest clip's size and the highest frame rate.

    `audio` says whether the sound is dropped, for `mux`, or kept, with silence for clips without sound. A clip with
    another aspect ratio gets bars (`contain`), is cropped (`cover`) or is distorted (`stretch`). The result contains
    the start of each clip, which is the time that `mix` needs for the clip's line of speech.
    """
    if not clips:
        raise InputError("There are no clips to join. What to do: give at least one clip.")
    check_word("audio", audio, ClipAudio)
    check_word("fit", fit, Fit)
    check_size(width, height)
    shapes = [shape_of(clip) for clip in clips]
    canvas = replace(Shape.around(shapes, width, height), has_audio=audio == "keep")
    return _joined(clips, shapes, to, canvas, fit)


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
    return _joined(clips, shapes, to, Shape.around(shapes, width, height), fit, seconds, look)


def _joined(
    clips: Sequence[Path],
    shapes: Sequence[Shape],
    to: Path,
    canvas: Shape,
    fit: Fit,
    seconds: float = 0.0,
    look: Look = "fade",
) -> Joined:
    """Writes clips with transitions of the given length in seconds, or without transitions (0 seconds)."""
    count = max(1, round(seconds * canvas.rate)) if seconds else 0
    starts: list[float] = []
    with ExitStack() as stack, create_film(to, canvas) as film:
        tail: deque[av.VideoFrame] = deque()
        before = Sound(endless_silence())
        for number, (clip, shape) in enumerate(zip(clips, shapes, strict=True), 1):
            starts.append(film.seconds)
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
    return Joined(film.seconds, tuple(starts), canvas.width, canvas.height, float(canvas.rate))


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
