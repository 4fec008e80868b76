"""Samples for tests of editing: plain-coloured clips, tones, silence; and the frames and sound of a finished video."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import av
import numpy as np
from av.stream import Stream
from PIL import Image

from rh_prefect.media.edit.audio_samples import RATE, Sound, audio_level, recording

Colour = tuple[int, int, int]
T = TypeVar("T")

RED, GREEN, BLUE, BLACK = (200, 30, 30), (30, 170, 40), (40, 40, 200), (0, 0, 0)


def solid(
    path: Path,
    colours: Sequence[Colour],
    *,
    size: tuple[int, int] = (64, 48),
    fps: int | Fraction = 12,
    container: str = "mp4",
    pixels: str = "yuv420p",
    tagged: bool = False,
    faststart: bool = False,
    pixel_aspect: Fraction | None = None,
    curve: int | None = None,
) -> Path:
    """A silent H.264 video with one frame of each colour; `tagged` says that it is, and makes it, BT.709.

    `curve` is FFmpeg's value for the curve of its brightness.
    """
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.sample_aspect_ratio = pixel_aspect or Fraction(1)
        if tagged:
            stream.codec_context.colorspace = stream.codec_context.color_range = 1
        if curve is not None:
            stream.codec_context.color_trc = curve
        for colour in colours:
            picture = np.full((size[1], size[0], 3), colour, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if tagged:
                frame = frame.reformat(format=pixels, dst_colorspace=1, dst_color_range=1)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def plain(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (40, 20)) -> Path:
    """A picture of one colour, with transparency if the colour has it."""
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)
    return path


def turned(path: Path, matrix: tuple[int, int, int, int] = (0, 1, -1, 0)) -> Path:
    """Writes "turn this clockwise by a quarter" into the head of an MP4's first track, as telephones do.

    Another `matrix` (a, b, c, d) shows the pixel at (x, y) at (ax + cy, bx + dy).
    """
    a, b, c, d = (number << 16 for number in matrix)
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def sound(path: Path, samples: np.ndarray) -> Path:
    """A mono WAV of samples between -1 and 1."""
    with av.open(str(path), "w", format="wav") as file:
        track = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for at in range(0, len(samples), RATE):
            piece = np.rint(samples[None, at : at + RATE] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def tone(hz: float, seconds: float, amplitude: float = 0.25) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def heard(path: Path) -> np.ndarray:
    """All of a file's sound, shape (2, samples)."""
    with Sound(recording(path)) as sound:
        return sound.read(sys.maxsize)


def peak(path: Path) -> float:
    """The largest sample of a file's sound, in dB below full scale."""
    return float(20 * np.log10(np.abs(heard(path)).max() + 1e-9))


def loudness(path: Path, *, start: float, seconds: float) -> float:
    """How loud a stretch of a file is, in LUFS."""
    with TemporaryDirectory() as folder:
        stretch = heard(path)[0, round(start * RATE) : round((start + seconds) * RATE)]
        return audio_level(sound(Path(folder) / "stretch.wav", stretch)).lufs


def strength(samples: np.ndarray, hz: float, start: float, seconds: float) -> float:
    """How loud one frequency is in a stretch: dB, 0 for a sine at full scale."""
    piece = samples[0, round(start * RATE) : round((start + seconds) * RATE)]
    window = np.hanning(len(piece))
    turns = np.exp(-2j * np.pi * hz * np.arange(len(piece)) / RATE)
    return float(20 * np.log10(2 * abs(np.sum(piece * window * turns)) / np.sum(window) + 1e-9))


@dataclass(frozen=True)
class Played:
    codecs: tuple[str, ...]
    pixels: str
    size: tuple[int, int]
    fps: Fraction
    frames: tuple[Image.Image, ...]
    times: tuple[float, ...]
    seconds: float
    starts: tuple[float, ...]
    lengths: tuple[float, ...]
    audio: tuple[int, int] | None


def _known(value: T | None) -> T:
    assert value is not None
    return value


def _seconds(stream: Stream, time: int | None) -> float:
    return float(_known(time) * _known(stream.time_base))


def play(path: Path) -> Played:
    with av.open(str(path)) as file:
        picture = file.streams.video[0]
        track = file.streams.audio[0] if file.streams.audio else None
        frames = list(file.decode(picture))
        return Played(
            tuple(stream.codec_context.name for stream in file.streams),
            _known(picture.codec_context.pix_fmt),
            (picture.codec_context.width, picture.codec_context.height),
            _known(picture.average_rate),
            tuple(Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in frames),
            tuple(_known(frame.time) for frame in frames),
            _known(file.duration) / av.time_base,
            tuple(_seconds(stream, stream.start_time) for stream in file.streams),
            tuple(_seconds(stream, stream.duration) for stream in file.streams if stream.duration),
            (track.rate, track.layout.nb_channels) if track else None,
        )


def index_first(path: Path) -> bool:
    """Whether an MP4 plays while it is still loading."""
    data = path.read_bytes()
    return data.find(b"moov") < data.find(b"mdat")


def near(pixel: object, colour: Sequence[int], *, by: int = 12) -> bool:
    """Whether a pixel, as `Image.getpixel` returns it, has about this colour."""
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= by for a, b in zip(pixel, colour))
