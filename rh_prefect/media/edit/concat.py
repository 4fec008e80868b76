"""Clips one after the other: whatever their size, frame rate and pixel format, one H.264 video comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from av.container import OutputContainer

from rh_prefect.errors import InputError
from rh_prefect.media.edit.atomic_output import create_mp4, product
from rh_prefect.media.edit.audio_stream import Picture, Track
from rh_prefect.media.edit.sound import Sound, endless_silence, sound_with_picture
from rh_prefect.media.edit.video_reader import Canvas, Shape, fitted, shape_of


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of joining clips.

    Attributes:
        seconds: Length of the whole.
        starts: The second at which each clip begins.
        width: Pixels.
        height: Pixels.
        fps: Frames a second.
    """

    seconds: float
    starts: tuple[float, ...]
    width: int
    height: int
    fps: float


def concat(clips: Sequence[Path], to: Path, *, audio: Literal["drop", "keep"] = "drop") -> Joined:
    """Joins clips to one H.264 video (yuv420p, MP4).

    It has the size of the largest clip and the highest frame rate; other clips are letterboxed.

    Args:
        clips: Videos, in their order.
        to: The video, `.mp4`.
        audio: `drop` makes a silent picture, for `mux`; `keep` gives it the clips' own sound, and silence under
            those that have none.

    Returns:
        Length, size, and where each clip begins: that is where its line of speech goes in `mix`.

    Raises:
        MediaError: A clip is missing, broken or cut short, or has no picture.
        InputError: There are no clips.
        StoreError: The video cannot be written.
    """
    if not clips:
        raise InputError("There are no clips to join. What to do: give one at least.")
    shapes = [shape_of(clip) for clip in clips]
    canvas = Canvas.around(shapes)
    with product(to) as part, create_mp4(part) as file:
        reel = _Reel(file, canvas, sound=audio == "keep")
        starts = [reel.append(clip, shape) for clip, shape in zip(clips, shapes)]
        reel.finish()
    return Joined(reel.seconds, tuple(starts), canvas.width, canvas.height, float(canvas.rate))


class _Reel:
    """The video that is being written, frame by frame, the sound never far behind."""

    def __init__(self, file: OutputContainer, canvas: Canvas, *, sound: bool) -> None:
        self._canvas = canvas
        self._picture = Picture(file, canvas)
        self._track = Track(file) if sound else None

    @property
    def seconds(self) -> float:
        return self._picture.seconds

    def append(self, clip: Path, shape: Shape) -> float:
        """Adds a clip at the end and says at which second that was."""
        start = self.seconds
        with Sound(sound_with_picture(clip) if shape.has_audio else endless_silence()) as sound:
            for frame in fitted(clip, self._canvas):
                self._picture.write(frame)
                if self._track is not None:
                    self._track.reach(self.seconds, sound)
        return start

    def finish(self) -> None:
        self._picture.finish()
        if self._track is not None:
            self._track.finish()
