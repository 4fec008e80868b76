"""The two streams of a film that is being written: picture and sound track."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
from av.container import OutputContainer

from rh_prefect.media.edit.sound import RATE, Samples, Sound, exactly, frame_of
from rh_prefect.media.edit.video_reader import Canvas

_QUALITY = {"preset": "veryfast", "crf": "18"}
_BT709 = 1
_VIDEO_RANGE = 1
_BIT_RATE = 192_000

# At this rate FFmpeg's fast coder is as true as its default one, truer for tones, and takes half the time.
_CODERS: dict[str, dict[str, str]] = {"aac": {"aac_coder": "fast"}, "pcm_s16le": {}}


class Picture:
    """An H.264 stream; add it to a file before anything is written there."""

    def __init__(self, file: OutputContainer, canvas: Canvas) -> None:
        self._file, self._rate = file, canvas.rate
        self._stream = file.add_stream("libx264", rate=canvas.rate, options=dict(_QUALITY))
        self._stream.width, self._stream.height, self._stream.pix_fmt = canvas.width, canvas.height, "yuv420p"
        if canvas.tagged:
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _VIDEO_RANGE
        self._frames = 0

    @property
    def seconds(self) -> float:
        """How long it is so far."""
        return float(self._frames / self._rate)

    def write(self, frame: av.VideoFrame) -> None:
        """Adds a frame at the end."""
        frame.pts, frame.time_base = self._frames, 1 / Fraction(self._rate)
        self._file.mux(self._stream.encode(frame))
        self._frames += 1

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        self._file.mux(self._stream.encode(None))


class Track:
    """A stereo stream; add it to a file before anything is written there, and after the picture."""

    def __init__(self, file: OutputContainer, codec: Literal["aac", "pcm_s16le"] = "aac") -> None:
        self._file = file
        self._stream = file.add_stream(codec, rate=RATE, options=dict(_CODERS[codec]), layout="stereo")
        self._stream.bit_rate = _BIT_RATE
        self._samples = 0

    def write(self, piece: Samples) -> None:
        """Adds samples at the end."""
        self._file.mux(self._stream.encode(frame_of(piece, self._samples)))
        self._samples += piece.shape[1]

    def reach(self, seconds: float, sound: Sound) -> None:
        """Goes on with a sound, or silence where that has ended, to so many seconds after the start."""
        for piece in exactly(max(0, round(seconds * RATE) - self._samples), sound):
            self.write(piece)

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        self._file.mux(self._stream.encode(None))
