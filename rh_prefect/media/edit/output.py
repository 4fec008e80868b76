"""Writes the files of edits: atomic output, video and audio streams, images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from PIL import Image

from rh_prefect.errors import InputError, MediaError, StoreError
from rh_prefect.local_files import atomic_path
from rh_prefect.media.edit.audio_samples import PIECE, RATE, Samples, Sound, frame_of
from rh_prefect.media.edit.video_reader import USUAL_RATE, Shape

_FORMATS = {
    "picture": {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"},
    "video": {".mp4": "mp4"},
    "sound track": {".wav": "wav", ".m4a": "mp4"},
}
"""The format for each file extension, as named by Pillow or FFmpeg, for each kind of result."""

_LONGEST_JPEG = 65_500
"""Maximum pixels of a JPEG's side in libjpeg, with which Pillow writes."""


_LARGEST = 16384
"""Maximum width and height, in pixels, that H.264 allows."""


def check_size(width: int, height: int) -> None:
    """Raises an `InputError` if a video cannot have this width and height in pixels."""
    for name, length in (("width", width), ("height", height)):
        if not 1 <= length <= _LARGEST:
            raise InputError(
                f"The video's {name} would be {length} pixels, but must be from 1 to {_LARGEST}. What to do: choose "
                "another size."
            )


def format_for(to: Path, kind: Literal["picture", "video", "sound track"]) -> str:
    """Returns the format of a file name's extension; raises an `InputError` for an extension of another type."""
    form = _FORMATS[kind].get(to.suffix.lower())
    if form is None:
        ends = " or ".join(_FORMATS[kind])
        raise InputError(f"{to.name} is not a valid name for a {kind}. What to do: use a name that ends in {ends}.")
    return form


@contextmanager
def product(to: Path) -> Iterator[Path]:
    """Yields a temporary name; the file gets its final name on success and is removed after a failure."""
    try:
        with atomic_path(to, durable=False) as part:
            yield part
    except OSError as error:
        raise StoreError(
            f"The file {to} could not be written: {getattr(error, 'strerror', None) or error}. What to "
            "do: check that its folder exists, is writable and has free space, then run again."
        ) from error
    except av.FFmpegError as error:
        raise MediaError(
            f"The file {to} could not be encoded: {error.strerror}. What to do: check the sizes and lengths of its "
            "sources."
        ) from error


@contextmanager
def create_file(to: Path, kind: Literal["video", "sound track"] = "video") -> Iterator[OutputContainer]:
    """Opens a file for writing; the file appears under its name only when it is complete.

    The index of an MP4 is written at the front, so that players can begin before the whole file is loaded.
    """
    form = format_for(to, kind)
    options = {"movflags": "+faststart"} if form == "mp4" else {}
    with product(to) as part, av.open(str(part.absolute()), "w", format=form, options=options) as file:
        yield file
        streams: list[VideoStream | AudioStream] = [*file.streams.video, *file.streams.audio]
        for stream in streams:
            if stream.codec_context.is_open:  # a copied stream has no encoder
                file.mux(stream.encode(None))


def write_image(image: Image.Image, to: Path, *, quality: int = 92) -> None:
    """Saves a picture as JPEG or PNG, as the file name's extension says."""
    form, out = format_for(to, "picture"), io.BytesIO()
    if form == "JPEG" and max(image.size) > _LONGEST_JPEG:
        raise InputError(
            f"The picture {to.name} would be {image.width} x {image.height} pixels, but a side of a JPEG has at most "
            f"{_LONGEST_JPEG}. What to do: use a name that ends in .png, or make a smaller picture."
        )
    image.save(out, form, quality=quality, optimize=True)
    with product(to) as part:
        # Pillow does not notice when only some of the bytes fit on a full disk.
        part.write_bytes(out.getvalue())


_QUALITY = {"preset": "veryfast", "crf": "18"}
BT709 = 1
VIDEO_RANGE = 1
_BIT_RATE = 192_000

# At this rate FFmpeg's fast coder is as accurate as its default one, better for tones, and takes half the time.
_CODERS: dict[str, dict[str, str]] = {"aac": {"aac_coder": "fast"}, "pcm_s16le": {}}


class Track:
    """The stereo sound of a file; create it after the file's picture, and before the first write to the file."""

    def __init__(self, file: OutputContainer, codec: Literal["aac", "pcm_s16le"] = "aac") -> None:
        self._file = file
        self._stream = file.add_stream(codec, rate=RATE, options=dict(_CODERS[codec]), layout="stereo")
        self._stream.bit_rate = _BIT_RATE
        self.samples = 0

    def write(self, piece: Samples) -> None:
        """Adds samples at the end."""
        self._file.mux(self._stream.encode(frame_of(piece, self.samples)))
        self.samples += piece.shape[1]

    def reach(self, seconds: float, sound: Sound) -> None:
        """Appends sound up to a time in seconds, and silence if the sound ends earlier."""
        end = round(seconds * RATE)
        while self.samples < end:
            self.write(sound.fill(min(PIECE, end - self.samples)))


@contextmanager
def create_track(to: Path) -> Iterator[Track]:
    """Opens a `.wav` (16 bit PCM) or `.m4a` (AAC) for writing; see `create_file`."""
    with create_file(to, "sound track") as file:
        yield Track(file, "pcm_s16le" if file.format.name == "wav" else "aac")


class Film:
    """The H.264 picture of a file, and its sound track if the canvas has one; create it before the first write."""

    def __init__(self, file: OutputContainer, canvas: Shape) -> None:
        check_size(canvas.width, canvas.height)
        self._file, self._rate = file, canvas.rate
        self._stream = file.add_stream("libx264", rate=canvas.rate, options=dict(_QUALITY))
        self._stream.width, self._stream.height, self._stream.pix_fmt = canvas.width, canvas.height, "yuv420p"
        if canvas.tagged:
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = VIDEO_RANGE
        self._track = Track(file) if canvas.has_audio else None
        self._frames = 0

    @property
    def seconds(self) -> float:
        """The length, in seconds, of the frames that have been written so far."""
        return float(self._frames / self._rate)

    def write(self, frames: Iterable[av.VideoFrame], sound: Sound | None = None) -> None:
        """Appends frames, each with its sound, so that little is held in memory."""
        for frame in frames:
            frame.pts, frame.time_base = self._frames, 1 / Fraction(self._rate)
            # Otherwise the encoder repeats the source's key frames; in an MJPEG, each frame is one.
            frame.pict_type = PictureType.NONE
            self._file.mux(self._stream.encode(frame))
            self._frames += 1
            if self._track is not None and sound is not None:
                self._track.reach(self.seconds, sound)


def write_pictures(to: Path, size: tuple[int, int], pictures: Iterable[Image.Image]) -> float:
    """Writes a silent video from pictures of one size, and returns its length in seconds."""
    canvas = Shape(*size, USUAL_RATE, tagged=True, has_audio=False)
    with create_film(to, canvas) as film:
        film.write(map(_frame_of, pictures))
    return film.seconds


def _frame_of(picture: Image.Image) -> av.VideoFrame:
    frame: av.VideoFrame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
    return frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=VIDEO_RANGE)


@contextmanager
def create_film(to: Path, canvas: Shape) -> Iterator[Film]:
    """Opens an MP4 for writing, with a sound track if the canvas has one; see `create_file`.

    Raises a `MediaError` if no frame was written.
    """
    with create_file(to) as file:
        film = Film(file, canvas)
        yield film
        if not film.seconds:
            raise MediaError(
                f"The video {to.name} would have no frames, because its source is shorter than one frame. What to do: "
                "use a longer video."
            )
