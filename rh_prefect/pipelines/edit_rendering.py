"""Renders the local edits: takes parameters with local files, and makes a file or a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rh_prefect.errors import InputError
from rh_prefect.media import edit
from rh_prefect.media.probe import file_type, probe
from rh_prefect.pipelines.edits import EDITS

Params: TypeAlias = Mapping[str, Any]
"""The parameters of an edit; each file as a `Path`."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The result of rendering an edit."""

    path: Path | None = None  # The file; None where it is a text
    text: str | None = None  # The text; None where it is a file
    seconds: float | None = None  # The length, of what has one


def render(name: str, params: Params, folder: Path) -> Rendered:
    """Renders an edit."""
    _check_files(name, params)
    return _EDITS[name](params, folder)


def _check_files(name: str, params: Params) -> None:
    """Refuses a text in the place of a file, which would be opened as a path; the plan has refused it already."""
    for param in EDITS[name].params:
        value = params.get(param.name)
        values = value if param.many and isinstance(value, list) else [value]
        wrong = value is not None and any(isinstance(one, Path) is not param.takes_files for one in values)
        if wrong:
            takes = param.takes if param.takes_files else "no file"
            raise InputError(f"{param.name} of {name} takes {takes}. Nothing was read and nothing was paid for it.")


def _concat(params: Params, folder: Path) -> Rendered:
    to, videos = folder / "film.mp4", params["videos"]
    audio: Literal["keep", "drop"] = "keep" if any(map(edit.has_sound, videos)) else "drop"
    joined = edit.concat(videos, to, audio=audio, **_select(params, "fit", "width", "height"))
    return Rendered(to, seconds=joined.seconds)


def _transition(params: Params, folder: Path) -> Rendered:
    to, names = folder / "film.mp4", ("seconds", "look", "fit", "width", "height")
    return Rendered(to, seconds=edit.crossfaded(params["videos"], to, **_select(params, *names)).seconds)


def _title(params: Params, folder: Path) -> Rendered:
    to = folder / "title.mp4"
    seconds = edit.title_clip(params["text"], to, **_select(params, "seconds", "width", "height", "image", "font"))
    return Rendered(to, seconds=seconds)


def _captions(params: Params, folder: Path) -> Rendered:
    to, video = folder / "captioned.mp4", params["video"]
    if "file" in params:
        cues = edit.read_cues(params["file"])
    else:
        cues = edit.cues_of(params["text"], at=params.get("at"), seconds=probe(video).seconds)
    return Rendered(to, seconds=edit.captions(video, to, cues=cues, **_select(params, "place", "size", "font")))


def _mix(params: Params, folder: Path) -> Rendered:
    to = folder / "sound.m4a"
    speech = params["speech"]
    starts = params["at"] if "at" in params else _one_after_the_other(speech)
    options = _select(params, "seconds", "music_level", "loudness")
    seconds = edit.mix(list(zip(starts, speech, strict=True)), params.get("music"), to, **options)
    return Rendered(to, seconds=seconds)


def _one_after_the_other(speech: list[Path]) -> list[float]:
    starts, end = [], 0.0
    for line in speech:
        starts.append(end)
        end += edit.audio_level(line).seconds
    return starts


def _mux(params: Params, folder: Path) -> Rendered:
    to, video, audio = folder / "film.mp4", params["video"], params["audio"]
    if params.get("keep_sound"):
        both = folder / "both.wav"
        edit.add_sounds(video, audio, both)
        audio = both
    if "loudness" in params:
        loud = folder / "loud.wav"
        edit.mix(audio, None, loud, loudness=params["loudness"])
        audio = loud
    return Rendered(to, seconds=edit.mux(video, audio, to))


def _resize(params: Params, folder: Path) -> Rendered:
    to = folder / f"resized.{_picture_format(params['file'], params.get('format'))}"
    seconds = edit.resize(params["file"], to, **_select(params, "width", "height", "fit"))
    return Rendered(to, seconds=seconds)


def _trim(params: Params, folder: Path) -> Rendered:
    to = folder / f"trimmed.{'mp4' if edit.has_picture(params['file']) else 'm4a'}"
    return Rendered(to, seconds=edit.trim(params["file"], to, **_select(params, "start", "seconds")))


def _still(params: Params, folder: Path) -> Rendered:
    to = folder / "still.mp4"
    seconds = edit.still_clip(params["image"], to, **_select(params, "seconds", "width", "height", "zoom"))
    return Rendered(to, seconds=seconds)


def _frame(params: Params, folder: Path) -> Rendered:
    to = folder / "frame.jpg"
    edit.frame(params["video"], to, **_select(params, "at"))
    return Rendered(to)


def _contact_sheet(params: Params, folder: Path) -> Rendered:
    to = folder / "sheet.jpg"
    edit.contact_sheet(params["of"], to, **_select(params, "captions", "columns"))
    return Rendered(to)


def _extract_audio(params: Params, folder: Path) -> Rendered:
    to = folder / f"sound.{params.get('format', 'm4a')}"
    return Rendered(to, seconds=edit.extract_audio(params["video"], to, **_select(params, "loudness")))


def _watermark(params: Params, folder: Path) -> Rendered:
    to = folder / f"marked.{_picture_format(params['file'])}"
    seconds = edit.watermark(params["file"], params["logo"], to, **_select(params, "corner", "size", "opacity"))
    return Rendered(to, seconds=seconds)


def _subtitles(params: Params, folder: Path) -> Rendered:
    form = params.get("format", "srt")
    to = folder / f"subtitles.{form}"
    to.write_text(edit.subtitles(params["text"], form=form, **_select(params, "at", "seconds")), encoding="utf-8")
    return Rendered(to)


def _join_text(params: Params, _: Path) -> Rendered:
    return Rendered(text=params.get("by", "\n").join(params["texts"]))


def _select(params: Params, *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}


def _picture_format(source: Path, form: str | None = None) -> str:
    """Returns the extension of a picture or video that is made from another one."""
    kind = file_type(source)
    if kind.kind == "video":
        return "mp4"
    return form or ("png" if kind.extension == "png" else "jpg")


_EDITS: Mapping[str, Callable[[Params, Path], Rendered]] = {
    "concat": _concat,
    "transition": _transition,
    "title": _title,
    "captions": _captions,
    "mix": _mix,
    "mux": _mux,
    "resize": _resize,
    "trim": _trim,
    "still": _still,
    "frame": _frame,
    "contact_sheet": _contact_sheet,
    "extract_audio": _extract_audio,
    "watermark": _watermark,
    "subtitles": _subtitles,
    "join_text": _join_text,
}
