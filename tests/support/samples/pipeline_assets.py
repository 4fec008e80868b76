"""Small files that pipelines are planned with."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def photo(to: Path, shade: int = 0) -> str:
    Image.new("RGB", (16, 16), (shade % 256, shade // 256 % 256, 90)).save(to)
    return str(to)


def video(to: Path, seconds: int) -> str:
    """A video without sound, of one frame a second."""
    with av.open(str(to), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1)
        for number in range(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number * 7 % 256, np.uint8), format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return str(to)


def sound(to: Path, seconds: int) -> str:
    """A silent WAV file."""
    import wave

    with wave.open(str(to), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"\x80" * 8000 * seconds)
    return str(to)


def csv_file(to: Path, rows: Sequence[Mapping[str, object]]) -> str:
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)
    return str(to)


def photos(folder: Path, count: int) -> str:
    folder.mkdir()
    for number in range(count):
        photo(folder / f"p{number:03}.png", number)
    return str(folder)
