"""Reads and writes video files (H.264 with AAC sound) frame by frame, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream
from PIL import Image

from rh_prefect.emulator.render.request import Size, even, number
from rh_prefect.emulator.render.terrain import Array
from rh_prefect.errors import MediaError

Picture = Image.Image | av.VideoFrame
SOUND_RATE = 44100
_HIGHEST_RATE = 60
_BT709 = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """The properties of a video.

    Attributes:
        size: Width and height in pixels.
        fps: Frames per second.
        seconds: The length in seconds.
        has_sound: Whether the video has an audio stream.
    """

    size: Size
    fps: Fraction
    seconds: float
    has_sound: bool


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Opens a file of the request.

    Raises:
        MediaError: The file cannot be opened, or reading it fails.
    """
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError, IndexError) as error:
        raise MediaError(
            f"The uploaded file {path.name} cannot be read: {error}. What to do: send a complete file."
        ) from error


def facts(path: Path) -> Facts:
    """Reads size, frame rate, length and sound of a video."""
    with opened(path) as container:
        video = container.streams.video[0]
        fps = min(Fraction(video.average_rate or 25), Fraction(_HIGHEST_RATE))
        return Facts((video.width, video.height), fps, _length(container), bool(container.streams.audio))


def seconds_of(path: Path) -> float:
    """Reads the length of a sound or a video."""
    with opened(path) as container:
        return _length(container)


def _length(container: InputContainer) -> float:
    if container.duration:
        return container.duration / av.time_base
    stream = container.streams[0]
    return float((stream.duration or 0) * (stream.time_base or 0))


def frames_of(path: Path, fps: Fraction, *, most: float | None = None) -> Iterator[Image.Image]:
    """Reads a video at a constant rate, as RGB pictures; see `steady`."""
    return map(_picture, steady(path, fps, most=most))


def steady(path: Path, fps: Fraction, *, blend: bool = False, most: float | None = None) -> Iterator[av.VideoFrame]:
    """Reads a video at a constant rate.

    Args:
        path: A video.
        fps: Frames per second of the output; frames are repeated or dropped.
        blend: Whether a moment between two frames gets a mix of both, instead of the earlier frame.
        most: The number of seconds after which reading stops.

    Yields:
        Frames in the pixel format of the video; mixed frames are 4:2:0.
    """
    moment = 0
    before: av.VideoFrame | None = None
    since = 0.0
    for time, frame in _timed(path):
        while before is not None and (now := float(moment / fps)) < time - 1e-6:
            if most is not None and now >= most - 1e-6:
                return
            part = (now - since) / (time - since) if blend else 0.0
            yield _mixed(before, frame, part) if part > 0.01 else before
            moment += 1
        before, since = frame, time


def _timed(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Reads all frames with their times, from 0; yields the last frame a second time, with the time of its end."""
    with opened(path) as container:
        rate = container.streams.video[0].average_rate or 25
        start = time = 0.0
        last: av.VideoFrame | None = None
        for frame in container.decode(video=0):
            start = (frame.time or 0.0) if last is None else start
            time, last = (frame.time or 0.0) - start, frame
            yield time, frame
        if last is not None:
            yield time + float(1 / rate), last


def _mixed(one: av.VideoFrame, other: av.VideoFrame, part: float) -> av.VideoFrame:
    ours, theirs = (frame.to_ndarray(format="yuv420p").astype(np.int16) for frame in (one, other))
    weight = np.int16(round(part * 64))
    mixed = (ours + ((theirs - ours) * weight >> 6)).astype(np.uint8)
    return av.VideoFrame.from_ndarray(mixed, format="yuv420p")


def sound_of(path: Path) -> Iterator[Array]:
    """Reads the sound of a file as blocks of 44.1 kHz stereo, shape (2, samples)."""
    with opened(path) as container:
        if not container.streams.audio:
            return
        resampler = av.AudioResampler("fltp", "stereo", SOUND_RATE)
        for frame in container.decode(audio=0):
            yield from map(_samples, resampler.resample(frame))
        yield from map(_samples, resampler.resample(None))


def _picture(frame: av.VideoFrame) -> Image.Image:
    return cast(Image.Image, frame.to_image())  # type: ignore[no-untyped-call]  # PyAV leaves it untyped


def _samples(frame: av.AudioFrame) -> Array:
    return frame.to_ndarray().astype(np.float32, copy=False)


def write_film(
    to: Path,
    frames: Iterable[Picture],
    *,
    size: Size,
    fps: Fraction,
    sound: Iterable[Array] | None = None,
    variant: str = "",
) -> None:
    """Writes an MP4 that any player opens.

    Args:
        to: The file.
        frames: Pictures or decoded frames; frames of another size are resized.
        size: The size in pixels, which is rounded to even numbers.
        fps: Frames per second.
        sound: 44.1 kHz stereo blocks; cut at the end of the frames, or continued with silence. None for no audio.
        variant: Digits in the metadata, so that files with the same frames differ.
    """
    size = even(size)
    with av.open(str(to), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata.update({"comment": variant} if variant else {})
        video = _video_stream(container, size, fps, variant)
        track = None if sound is None else _SoundTrack(container, sound)
        count = 0
        for count, picture in enumerate(frames, 1):
            frame = video_frame(picture, size)
            frame.pts, frame.time_base = count - 1, 1 / fps
            container.mux(video.encode(frame))
            if track is not None:
                track.write_until(float(count / fps))
        if not count:
            raise MediaError(f"{to.name} has no frames: the uploaded video is empty.")
        container.mux(video.encode(None))
        if track is not None:
            track.close()


def _video_stream(container: OutputContainer, size: Size, fps: Fraction, variant: str) -> VideoStream:
    quality = 20 + (number(variant, below=1000) / 1000 if variant else 0)
    stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": f"{quality:g}"})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 2
    context.gop_size = max(12, round(fps * 2))
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    return stream


def video_frame(picture: Picture, size: Size) -> av.VideoFrame:
    """Returns a picture as a frame of `write_film`, which converts every other picture each time that it is shown."""
    frame = picture
    if isinstance(frame, Image.Image):
        frame = av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")
    return frame.reformat(
        *size,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.LANCZOS,
    )


class _SoundTrack:
    """Writes sound up to a time, so that the file interleaves pictures and sound."""

    def __init__(self, container: OutputContainer, blocks: Iterable[Array]) -> None:
        self._container = container
        self._stream: AudioStream = container.add_stream("aac", rate=SOUND_RATE, layout="stereo", bit_rate=128_000)
        self._blocks = iter(blocks)
        self._rest = np.zeros((2, 0), np.float32)
        self._written = 0

    def write_until(self, seconds: float) -> None:
        wanted = round(seconds * SOUND_RATE) - self._written
        while self._rest.shape[1] < wanted:
            block = next(self._blocks, None)
            if block is None:
                block = np.zeros((2, wanted - self._rest.shape[1]), np.float32)
            self._rest = np.concatenate([self._rest, block], axis=1)
        self._encode(np.ascontiguousarray(self._rest[:, :wanted]))
        self._rest = self._rest[:, wanted:]

    def _encode(self, samples: Array) -> None:
        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_RATE, self._written
        frame.time_base = Fraction(1, SOUND_RATE)
        self._written += samples.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
