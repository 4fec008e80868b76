"""Values for parameters of pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rh_prefect.pipelines.file_model import Param
from tests.support.samples.pipeline_assets import photo, sound, video


def some(name: str, param: Param, folder: Path, number: int = 1) -> Any:
    """A value that a parameter takes."""
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
