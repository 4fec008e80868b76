"""Small files and values for parameters of pipelines, and shipped pipelines with small frames."""

from __future__ import annotations

import csv
import re
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rh_prefect.pipelines.file_model import Param
from tests.support.samples import media as samples


def photo(to: Path, shade: int = 0) -> str:
    Image.new("RGB", (16, 16), (shade % 256, shade // 256 % 256, 90)).save(to)
    return str(to)


def video(to: Path, seconds: int) -> str:
    """A video without sound, of one frame a second."""
    return str(samples.mp4(to, seconds=seconds, size=(32, 32), fps=1, audio=False))


def sound(to: Path, seconds: int) -> str:
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


def some(name: str, param: Param, folder: Path, number: int = 1) -> Any:
    if param.default is not None:
        return param.default
    match param.kind:
        case "enum":
            return param.options[0]
        case "image":
            return photo(folder / f"{name}{number}.png", number)
        case "video":
            return video(folder / f"{name}{number}.mp4", 4)
        case "audio":
            return sound(folder / f"{name}{number}.wav", 4)
        case "file":
            (made := folder / f"{name}{number}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
            return str(made)
        case "files":
            return [some(name, Param(type=param.of), folder, number) for number in range(3)]
        case "table":
            columns = (param.columns or {}).items()
            return [{key: some(key, one, folder, number) for key, one in columns} for number in range(1, 4)]
        case "string":
            return f"{name} {number}"
        case _:
            return number + 1


_FRAME = re.compile(r"width: (\d+), height: (\d+)")
_PART = 6


def smaller(text: str) -> str:
    """Returns a pipeline's text with each frame a sixth as wide and as high; the aspect ratio stays."""
    return _FRAME.sub(
        lambda found: "width: {}, height: {}".format(*(int(one) // _PART for one in found.groups())), text
    )
