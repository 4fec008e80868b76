"""The local edits: their parameters, and the kind and length of their results; see also `edit_rendering`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EditKind = Literal["image", "video", "audio", "file", "string", "same"]
"""The kind of an edit's output; `same`: the kind of the edit's first parameter."""

Length = Literal["sum", "overlapped", "input", "seconds", ""]
"""How a result's length is determined. `sum`: the sum of all inputs; `overlapped`: this sum, less `seconds` for each
transition; `input`: the length of the first input; `seconds`: the parameter `seconds`; empty: the result has no length.
"""


@dataclass(frozen=True, slots=True)
class EditParam:
    """A parameter of an edit: the values that it takes, and its default."""

    name: str
    # What it takes: kinds of files, or `string`, `number`, `integer`, `boolean`, `enum`; `any`: all files
    kinds: tuple[str, ...]
    required: bool = False  # Whether it must be given
    many: bool = False  # Whether it takes a list
    options: tuple[str, ...] = ()  # The values of an `enum`; beside other kinds: words that are also allowed
    min: float | None = None  # The least number
    max: float | None = None  # The greatest number
    default: str | float | bool | None = None  # What applies when it is left out

    @property
    def takes_files(self) -> bool:
        """Whether the parameter takes files."""
        return not {"string", "number", "integer", "boolean", "enum"} & {*self.kinds}

    @property
    def takes(self) -> str:
        """Returns a phrase for messages that describes the accepted files, as in `a file of kind image`."""
        return "a file" if self.kinds == ("any",) else f"a file of kind {' or '.join(self.kinds)}"


@dataclass(frozen=True, slots=True)
class Edit:
    """The name, the parameters and the kind of result of a local edit."""

    name: str
    params: tuple[EditParam, ...]  # Its parameters, the one that it is about first
    output: EditKind  # The kind of its result
    length: Length = ""  # How long the result is
    facts: tuple[str, ...] = ()  # Further fields of the result for references, such as `starts`, a list of seconds
    extension: str = ""  # The extension of the result, unless the parameter `format` gives another one

    def param(self, name: str) -> EditParam | None:
        """Returns a parameter by name; None if the edit does not have it."""
        return next((param for param in self.params if param.name == name), None)


def _size(name: str, *, required: bool = False) -> EditParam:
    return EditParam(name, ("integer",), required, min=16, max=8192)


def _seconds(name: str, *, required: bool = False, least: float = 0.04) -> EditParam:
    return EditParam(name, ("number",), required, min=least, max=86400)


def _enum(name: str, *options: str) -> EditParam:
    return EditParam(name, ("enum",), options=options, default=options[0])


_LOUDNESS = EditParam("loudness", ("number",), min=-40, max=-5)
_PICTURE = EditParam("file", ("image", "video"), required=True)
_VIDEO = EditParam("video", ("video",), required=True)

EDITS: Mapping[str, Edit] = {
    edit.name: edit
    for edit in (
        Edit(
            "concat",
            (
                EditParam("videos", ("video",), required=True, many=True),
                _enum("fit", "contain", "cover", "stretch"),
                _size("width"),
                _size("height"),
            ),
            "video",
            "sum",
            facts=("starts",),
            extension="mp4",
        ),
        Edit(
            "transition",
            (
                EditParam("videos", ("video",), required=True, many=True),
                EditParam("seconds", ("number",), min=0.04, max=5, default=0.5),
                _enum("look", "fade", "black"),
                _enum("fit", "contain", "cover", "stretch"),
                _size("width"),
                _size("height"),
            ),
            "video",
            "overlapped",
            facts=("starts",),
            extension="mp4",
        ),
        Edit(
            "title",
            (
                EditParam("text", ("string",), required=True),
                _seconds("seconds", required=True),
                EditParam("image", ("image",)),
                EditParam("font", ("file",)),
                _size("width"),
                _size("height"),
            ),
            "video",
            "seconds",
            extension="mp4",
        ),
        Edit(
            "captions",
            (
                _VIDEO,
                EditParam("text", ("string",), many=True),
                EditParam("at", ("number",), many=True, min=0, max=86400),
                EditParam("file", ("file",)),
                _enum("place", "bottom", "top"),
                EditParam("size", ("number",), min=0.02, max=0.2, default=0.05),
                EditParam("font", ("file",)),
            ),
            "video",
            "input",
            extension="mp4",
        ),
        Edit(
            "mix",
            (
                EditParam("speech", ("audio",), required=True, many=True),
                EditParam("at", ("number",), many=True, min=0, max=86400),
                EditParam("music", ("audio",)),
                _seconds("seconds"),
                EditParam("music_level", ("number",), min=-60, max=0),
                _LOUDNESS,
            ),
            "audio",
            "seconds",
            extension="m4a",
        ),
        Edit(
            "mux",
            (
                _VIDEO,
                EditParam("audio", ("audio",), required=True),
                EditParam("keep_sound", ("boolean",), default=False),
                _LOUDNESS,
            ),
            "video",
            "input",
            extension="mp4",
        ),
        Edit(
            "resize",
            (
                _PICTURE,
                _size("width", required=True),
                _size("height", required=True),
                _enum("fit", "cover", "contain", "stretch"),
                EditParam("format", ("enum",), options=("jpg", "png", "mp4")),
            ),
            "same",
            "input",
        ),
        Edit(
            "trim",
            (
                EditParam("file", ("video", "audio"), required=True),
                EditParam("start", ("number",), min=0, max=86400, default=0),
                _seconds("seconds", required=True),
            ),
            "same",
            "seconds",
        ),
        Edit(
            "still",
            (
                EditParam("image", ("image",), required=True),
                _seconds("seconds", required=True),
                _size("width"),
                _size("height"),
                _enum("zoom", "none", "in", "out"),
            ),
            "video",
            "seconds",
            extension="mp4",
        ),
        Edit(
            "frame",
            (_VIDEO, EditParam("at", ("number",), options=("first", "last"), min=0, max=86400, default="first")),
            "image",
            extension="jpg",
        ),
        Edit(
            "contact_sheet",
            (
                EditParam("of", ("any",), required=True, many=True),
                EditParam("captions", ("string",), many=True),
                EditParam("columns", ("integer",), min=1, max=20),
            ),
            "image",
            extension="jpg",
        ),
        Edit(
            "extract_audio",
            (_VIDEO, _enum("format", "m4a", "wav"), _LOUDNESS),
            "audio",
            "input",
            extension="m4a",
        ),
        Edit(
            "watermark",
            (
                _PICTURE,
                EditParam("logo", ("image",), required=True),
                _enum("corner", "bottom-right", "bottom-left", "top-right", "top-left"),
                EditParam("size", ("number",), min=0.01, max=1, default=0.15),
                EditParam("opacity", ("number",), min=0, max=1, default=1),
            ),
            "same",
            "input",
        ),
        Edit(
            "subtitles",
            (
                EditParam("text", ("string",), required=True, many=True),
                EditParam("at", ("number",), many=True, min=0, max=86400),
                _seconds("seconds"),
                _enum("format", "srt", "vtt"),
            ),
            "file",
            extension="srt",
        ),
        Edit(
            "join_text",
            (EditParam("texts", ("string",), required=True, many=True), EditParam("by", ("string",), default="\n")),
            "string",
        ),
    )
}
"""All edits by name."""
