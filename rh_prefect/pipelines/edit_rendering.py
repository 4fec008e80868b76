"""Renders local edits; each makes a file or a string from parameters that refer to local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

from rh_prefect.errors import InputError
from rh_prefect.media import edit
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
        cues = edit.read_cues(params["file"])
    else:
        cues = edit.cues_of(params["text"], at=params.get("at"), seconds=probe(params["video"]).seconds)
    options = _select(params, "video", "place", "size", "font")
    return _made(edit.captions, folder / "captioned.mp4", {**options, "cues": cues}, "video")


def _mix(params: Params, folder: Path) -> Path:
    to, speech = folder / "sound.m4a", params["speech"]
    if "at" in params:
        starts = params["at"]
    else:  # each line after the one before
        starts = list(accumulate((edit.audio_level(line).seconds for line in speech), initial=0.0))[:-1]
    options = _select(params, "seconds", "music_level", "loudness")
    edit.mix(list(zip(starts, speech, strict=True)), params.get("music"), to, **options)
    return to


def _mux(params: Params, folder: Path) -> Path:
    to, video, audio = folder / "film.mp4", params["video"], params["audio"]
    if params.get("keep_sound"):
        both = folder / "both.wav"
        edit.add_sounds(video, audio, both)
        audio = both
    if "loudness" in params:
        loud = folder / "loud.wav"
        edit.mix(audio, None, loud, loudness=params["loudness"])
        audio = loud
    edit.mux(video, audio, to)
    return to


def _subtitles(params: Params, folder: Path) -> Path:
    form = params.get("format", "srt")
    to = folder / f"subtitles.{form}"
    to.write_text(edit.subtitles(params["text"], form=form, **_select(params, "at", "seconds")), encoding="utf-8")
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
    "transition": _file(partial(edit.concat, seconds=DEFAULT_OVERLAP), "film.mp4", "videos"),
    "title": _file(edit.title_clip, "title.mp4", "text"),
    "still": _file(edit.still_clip, "still.mp4", "image"),
    "frame": _file(edit.frame, "frame.jpg", "video"),
    "contact_sheet": _file(edit.contact_sheet, "sheet.jpg", "of"),
    "concat": _file(edit.concat, "film.mp4", "videos"),
    "captions": _captions,
    "mix": _mix,
    "mux": _mux,
    "resize": _file(edit.resize, lambda params: f"resized.{_picture_format(params)}", "file"),
    "trim": _file(edit.trim, lambda params: f"trimmed.{'mp4' if edit.has_picture(params['file']) else 'm4a'}", "file"),
    "extract_audio": _file(edit.extract_audio, lambda params: f"sound.{params.get('format', 'm4a')}", "video"),
    "watermark": _file(edit.watermark, lambda params: f"marked.{_picture_format(params)}", "file", "logo"),
    "subtitles": _subtitles,
    "join_text": _join_text,
}
