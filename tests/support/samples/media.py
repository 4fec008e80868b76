"""Small real media for tests: each is rendered once per session and copied.

photo = samples.png(tmp_path / "photo.png", size=(64, 48), text="hello")
clip = samples.mp4(tmp_path / "clip.mp4", seconds=1, audio=True)
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

RATE = 44100
"""Samples a second of every sound made here."""


def _saved(make: Callable[..., bytes], *given: str) -> Callable[..., Path]:
    """Puts media into a file; its options are those of the function that makes them."""
    return lambda path, **options: _put(path, make(*given, **options))


def mp4(
    path: Path,
    *,
    seconds: float = 1,
    size: tuple[int, int] = (64, 48),
    fps: int = 12,
    audio: bool = True,
    hz: int = 440,
) -> Path:
    """A video whose picture moves, H.264 with AAC."""
    return _put(path, film("mp4", seconds, size, fps, "aac" if audio else "", hz))


def video(
    path: Path, *, container: str, seconds: float = 1, size: tuple[int, int] = (64, 48), audio: bool = True
) -> Path:
    """A video in another container: mov, webm, matroska, avi."""
    sound = {"webm": "libopus", "avi": "mp3"}.get(container, "aac")
    return _put(path, film(container, seconds, size, 12, sound if audio else ""))


def glb(path: Path) -> Path:
    """A valid binary glTF: one triangle."""
    return _put(path, triangle())


@cache
def picture(form: str, size: tuple[int, int] = (64, 48), text: str = "", orientation: int = 1) -> bytes:
    """A gradient, with a text if one is given; `orientation` is the EXIF tag (6: to be shown turned by a quarter)."""
    image = Image.fromarray(_frame(size, 0.0))
    if text:
        ImageDraw.Draw(image).text((2, 2), text, fill="white")
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, form, **({"exif": exif} if orientation != 1 else {}))
    return out.getvalue()


@cache
def film(
    container: str,
    seconds: float = 1,
    size: tuple[int, int] = (64, 48),
    fps: int = 12,
    audio: str = "aac",
    hz: int = 440,
) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(
            {"webm": "libvpx", "ogg": "libvpx", "avi": "mpeg4"}.get(container, "libx264"), rate=fps
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        track = _add_track(file, audio) if audio else None
        count = max(1, round(seconds * fps))
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(_frame(size, number / count), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track is not None:
            _encode_tone(file, track, seconds, hz)
    return out.getvalue()


@cache
def sound(
    container: str, codec: str, seconds: float = 1, hz: int = 440, rate: int = RATE, layout: str = "mono"
) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        _encode_tone(file, _add_track(file, codec, rate, layout), seconds, hz)
    return out.getvalue()


@cache
def triangle() -> bytes:
    points = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
    scene = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}
        ],
        "bufferViews": [{"buffer": 0, "byteLength": len(points)}],
        "buffers": [{"byteLength": len(points)}],
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(points), b"BIN\0") + points
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


png, jpg, webp, gif = (_saved(picture, form) for form in ("PNG", "JPEG", "WEBP", "GIF"))
wav, mp3, flac = (_saved(sound, *names) for names in (("wav", "pcm_s16le"), ("mp3", "mp3"), ("flac", "flac")))
ogg, m4a = _saved(sound, "ogg", "libopus"), _saved(sound, "ipod", "aac")


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _frame(size: tuple[int, int], phase: float) -> np.ndarray:
    width, height = size
    across = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 255, height, dtype=np.uint8)[:, None].repeat(width, axis=1)
    return np.stack([np.roll(across, round(phase * width), axis=1), down, np.full_like(down, 96)], axis=2)


def _add_track(
    file: av.container.OutputContainer, codec: str, rate: int = RATE, layout: str = "mono"
) -> av.AudioStream:
    track = file.add_stream(codec, rate=48000 if codec == "libopus" else rate, layout=layout)
    assert isinstance(track, av.AudioStream)
    return track


def _encode_tone(file: av.container.OutputContainer, track: av.AudioStream, seconds: float, hz: int) -> None:
    resampler = av.AudioResampler(format=track.format, layout=track.layout, rate=track.rate)
    for frame in _tone(track.rate, seconds, hz):
        for fitted in resampler.resample(frame):
            file.mux(track.encode(fitted))
    for fitted in resampler.resample(None):
        file.mux(track.encode(fitted))
    file.mux(track.encode(None))


def _tone(rate: int, seconds: float, hz: int) -> Iterator[av.AudioFrame]:
    total = round(rate * seconds)
    for start in range(0, total, 1024):
        times = np.arange(start, min(start + 1024, total)) / rate
        samples = (np.sin(2 * np.pi * hz * times) * 12000).astype(np.int16)[None, :]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame
