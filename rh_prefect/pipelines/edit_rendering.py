"""Renders local edits; each makes a file or a string from parameters that refer to local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

from rh_prefect.errors import InputError
from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, frame
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.lettering import captions, title_clip
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.muxing import mux
from rh_prefect.media.edit.single_file_edits import (
    add_sounds,
    extract_audio,
    has_picture,
    resize,
    still_clip,
    trim,
    watermark,
)
from rh_prefect.media.edit.subtitle_writer import cues_of, read_cues, subtitles
from rh_prefect.media.probe import file_type, probe
from rh_prefect.pipelines.edits import DEFAULT_OVERLAP, EDITS

Params: TypeAlias = Mapping[str, Any]
"""The parameters of an edit, with files as `Path`."""


Rendering: TypeAlias = Callable[[str, Params, Path], Path | str]
"""Renders an edit; see `render`."""


def render(name: str, params: Params, folder: Path) -> Path | str:
    """Renders an edit; returns the new file, which is written into `folder`, or the text."""
    _check_files(name, params)
    return _EDITS[name](params, folder)


def _file(
    make: Callable[..., Any], name: str | Callable[[Params], str], *sources: str
) -> Callable[[Params, Path], Path]:
    """Returns a function that renders an edit: it makes a file `name` from the parameters `sources` and options."""
    return lambda params, folder: _made(
        make, folder / (name if isinstance(name, str) else name(params)), params, *sources
    )


def _made(make: Callable[..., Any], to: Path, params: Params, *sources: str) -> Path:
    """Calls `make` with the parameters `sources` by position, and with the other parameters except `format` by name."""
    options = {name: value for name, value in params.items() if name not in (*sources, "format")}
    make(*(params[name] for name in sources), to, **options)
    return to


def _check_files(name: str, params: Params) -> None:
    """Raises an error if a string is given for a file, because it would be opened as a path, or a file for a string."""
    for param in EDITS[name].params:
        value = params.get(param.name)
        values = value if param.many and isinstance(value, list) else [value]
        wrong = value is not None and any(isinstance(one, Path) is not param.takes_files for one in values)
        if wrong:
            takes = f"{param.takes}, but this is not a file" if param.takes_files else "no file, but this is a file"
            raise InputError(
                f"{param.name} of {name} takes {takes}. Nothing was read, and nothing was paid. What to do: "
                f"give {param.name} {param.takes if param.takes_files else 'a value that is not a file'}."
            )


def _captions(params: Params, folder: Path) -> Path:
    if "file" in params:
        cues = read_cues(params["file"])
    else:
        cues = cues_of(params["text"], at=params.get("at"), seconds=probe(params["video"]).seconds)
    options = _select(params, "video", "place", "size", "font")
    return _made(captions, folder / "captioned.mp4", {**options, "cues": cues}, "video")


def _mix(params: Params, folder: Path) -> Path:
    to, speech = folder / "sound.m4a", params["speech"]
    if "at" in params:
        starts = params["at"]
    else:  # each line after the one before
        starts = list(accumulate((audio_level(line).seconds for line in speech), initial=0.0))[:-1]
    options = _select(params, "seconds", "music_level", "loudness")
    mix(list(zip(starts, speech, strict=True)), params.get("music"), to, **options)
    return to


def _mux(params: Params, folder: Path) -> Path:
    to, video, audio = folder / "film.mp4", params["video"], params["audio"]
    if params.get("keep_sound"):
        both = folder / "both.wav"
        add_sounds(video, audio, both)
        audio = both
    if "loudness" in params:
        loud = folder / "loud.wav"
        mix(audio, None, loud, loudness=params["loudness"])
        audio = loud
    mux(video, audio, to)
    return to


def _subtitles(params: Params, folder: Path) -> Path:
    form = params.get("format", "srt")
    to = folder / f"subtitles.{form}"
    to.write_text(subtitles(params["text"], form=form, **_select(params, "at", "seconds")), encoding="utf-8")
    return to


def _join_text(params: Params, _: Path) -> str:
    return str(params.get("by", "\n").join(params["texts"]))


def _select(params: Params, *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}


def _picture_format(params: Params) -> str:
    """Returns the extension for a picture or video that is made from another file."""
    kind = file_type(params["file"])
    if kind.kind == "video":
        return "mp4"
    return params.get("format") or ("png" if kind.extension == "png" else "jpg")


_EDITS: Mapping[str, Callable[[Params, Path], Path | str]] = {
    "transition": _file(partial(concat, seconds=DEFAULT_OVERLAP), "film.mp4", "videos"),
    "title": _file(title_clip, "title.mp4", "text"),
    "still": _file(still_clip, "still.mp4", "image"),
    "frame": _file(frame, "frame.jpg", "video"),
    "contact_sheet": _file(contact_sheet, "sheet.jpg", "of"),
    "concat": _file(concat, "film.mp4", "videos"),
    "captions": _captions,
    "mix": _mix,
    "mux": _mux,
    "resize": _file(resize, lambda params: f"resized.{_picture_format(params)}", "file"),
    "trim": _file(trim, lambda params: f"trimmed.{'mp4' if has_picture(params['file']) else 'm4a'}", "file"),
    "extract_audio": _file(extract_audio, lambda params: f"sound.{params.get('format', 'm4a')}", "video"),
    "watermark": _file(watermark, lambda params: f"marked.{_picture_format(params)}", "file", "logo"),
    "subtitles": _subtitles,
    "join_text": _join_text,
}
