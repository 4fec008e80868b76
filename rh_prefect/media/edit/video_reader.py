"""Reads videos: opens a file, gets its size and rotation, and fits its frames to one canvas."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, compress
from pathlib import Path
from typing import Literal, TypeAlias

import av
from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.stream import VideoStream
from PIL import Image

from rh_prefect.errors import MediaError
from rh_prefect.media.edit.filter_graphs import filtered, linked
from rh_prefect.media.file_types_and_completeness import missing_bytes
from rh_prefect.media.probe import file_type, pictures_of

FASTEST = Fraction(60)
"""Maximum frames per second of a joined film."""

Fit: TypeAlias = Literal["contain", "cover", "stretch"]
"""How a picture is fitted to another size: with bars, cropped, or distorted."""

USUAL_RATE = Fraction(25)
"""The frame rate of films from pictures, and of videos that declare none."""

_PAD = "pad={canvas.width}:{canvas.height}:-1:-1:color=black"
_UNTAGGED = 2
"""FFmpeg's value for an unspecified colour matrix."""

_HDR = (16, 18)
"""FFmpeg's values for the brightness curves PQ and HLG."""

# The filters that put a frame upright, in the order of `turns_of`; the first swaps the axes, without a mirroring.
_TURNS = ("transpose=cclock_flip", "hflip", "vflip")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Converts errors from the operating system, FFmpeg or Pillow to a `MediaError` that names the input."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"The picture {path} has more than 178 megapixels, which is too many for edits and previews. What to do: "
            "use a smaller version of it."
        ) from error
    except (OSError, av.FFmpegError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(
            f"The file {path} cannot be used: {cause}. What to do: check that it exists, is complete and can be played."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Opens a media file for a `with` block; raises `MediaError` if it cannot be read or its end is missing."""
    with reading(path):
        if missing_bytes(path, file_type(path)):
            raise ValueError("its end is missing")
        # An absolute name cannot be taken for a protocol, as `a:b.mp4` could.
        file = av.open(str(path.absolute()))
    with file:
        yield file


def picture_of(file: InputContainer, path: Path) -> VideoStream:
    """Returns the first video stream of a file; raises `MediaError` if there is none, or only a still picture."""
    if file.format.name == "image2" or file.format.name.endswith("_pipe"):
        raise MediaError(f"The file {path} is a still picture. What to do: give a video.")
    for stream in pictures_of(file):
        stream.thread_type = "AUTO"
        return stream
    raise MediaError(f"The file {path} has no video track. What to do: give a video.")


def frames_of(file: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """Yields the frames of a stream from the file's current position on."""
    with reading(path):
        yield from file.decode(stream)


def picture_begin(path: Path) -> Fraction | None:
    """Returns the time of a file's first frame in seconds, None if it has no picture.

    A recording that was cut between two key frames begins with packets that show nothing.
    """
    with opened(path) as file:
        for stream in pictures_of(file):
            clock = Fraction(stream.time_base or 1)
            with suppress(MediaError), reading(path):
                for packet in file.demux(stream):
                    if packet.size and packet.pts is None:
                        break  # a container such as AVI, for which FFmpeg only guesses the times of frames
                    for frame in packet.decode():
                        return (frame.pts or 0) * clock
            return (stream.start_time or 0) * clock
    return None


@dataclass(frozen=True, slots=True)
class Shape:
    """The upright size in square pixels and the frame rate of a video, or of a film to be written.

    A `tagged` film declares its colours as BT.709. An untagged film keeps the colours of its clips, which declare no
    colours.
    """

    width: int
    height: int
    rate: Fraction
    tagged: bool
    has_audio: bool

    @classmethod
    def around(cls, shapes: Sequence[Shape], width: int | None = None, height: int | None = None) -> Shape:
        """Returns the shape of a film made from clips: the highest frame rate, and the given or the largest size."""
        largest = max(shapes, key=lambda shape: shape.width * shape.height)
        rate = min(FASTEST, max(shape.rate for shape in shapes))
        tagged, has_audio = any(shape.tagged for shape in shapes), any(shape.has_audio for shape in shapes)
        return cls(even(width or largest.width), even(height or largest.height), rate, tagged, has_audio)

    def size_for(self, width: int, height: int, fit: Fit) -> tuple[int, int]:
        """Returns the size to which a picture is scaled, before it gets bars or is cropped."""
        if fit == "stretch":
            return self.width, self.height
        limit = min if fit == "contain" else max
        scale = limit(Fraction(self.width, width), Fraction(self.height, height))
        return limit(self.width, even(width * scale)), limit(self.height, even(height * scale))


def shape_of(path: Path) -> Shape:
    """Reads the header and the first frame of a video that is to be encoded again, and returns its `Shape`."""
    with opened(path) as file:
        stream = picture_of(file, path)
        frame = next(frames_of(file, stream, path), None)
        if frame is None:
            raise MediaError(f"The video {path} has no frames. What to do: create or download it again.")
        if frame.color_trc in _HDR:
            raise MediaError(
                f"The video {path} is HDR (PQ or HLG), which edits cannot convert. What to do: convert it to SDR "
                "(BT.709) first."
            )
        width, height = shown_size(frame, stream)
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        return Shape(width, height, rate, frame.colorspace != _UNTAGGED, bool(file.streams.audio))


def shown_size(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Returns the width and height as shown: with square pixels, upright."""
    width, height = max(1, round(frame.width * (stream.sample_aspect_ratio or 1))), frame.height
    return (height, width) if turns_of(frame)[0] else (width, height)


def turns_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Returns what puts a frame upright: whether to swap its axes, and then to mirror it sideways and top to bottom."""
    if "DISPLAYMATRIX" not in frame.side_data or frame.rotation % 90:
        return False, False, False
    matrix = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]
    across, across_to_down, _, down_to_across, down = struct.unpack_from("=5i", matrix)
    if frame.rotation % 180:
        return True, down_to_across < 0, across_to_down < 0
    return False, across < 0, down < 0


def fitted(path: Path, canvas: Shape, fit: Fit = "contain") -> Iterator[av.VideoFrame]:
    """Decodes a video, upright, in the canvas's size and rate; the frames are yuv420p and have no valid times."""
    with opened(path) as file:
        stream = picture_of(file, path)
        frames = frames_of(file, stream, path)
        first = next(frames, None)
        if first is not None:
            graph, source = _fitting(first, stream, canvas, fit)
            yield from filtered(graph, source, chain([first], frames), av.VideoFrame)


def _fitting(frame: av.VideoFrame, stream: VideoStream, canvas: Shape, fit: Fit) -> tuple[Graph, FilterContext]:
    width, height = canvas.size_for(*shown_size(frame, stream), fit)
    matrix = ":out_color_matrix=bt709" if canvas.tagged else ""
    steps = [
        "setpts=PTS-STARTPTS",
        *compress(_TURNS, turns_of(frame)),
        f"scale={width}:{height}:flags=bicubic:out_range=tv{matrix}",
        "format=yuv420p",
        f"crop={canvas.width}:{canvas.height}" if fit == "cover" else _PAD.format(canvas=canvas),
        "setsar=1",
        f"fps={canvas.rate}",
    ]
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    linked(graph, source, *steps, "buffersink")
    graph.configure()
    return graph, source


def even(length: Fraction | int) -> int:
    """Returns the nearest even number of pixels, which H.264 requires."""
    return max(2, round(Fraction(length) / 2) * 2)
