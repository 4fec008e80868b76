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
    """A parameter of an edit: the values that it takes."""

    name: str
    # What it takes: kinds of files, or `string`, `number`, `integer`, `boolean`, `enum`; `any`: all files
    kinds: tuple[str, ...]
    required: bool = False  # Whether it must be given
    many: bool = False  # Whether it takes a list
    options: tuple[str, ...] = ()  # The values of an `enum`; beside other kinds: words that are also allowed
    min: float | None = None  # The least number
    max: float | None = None  # The greatest number

    @property
    def takes_files(self) -> bool:
        """Whether the parameter takes files."""
        return not {"string", "number", "integer", "boolean", "enum"} & {*self.kinds}

    @property
    def takes(self) -> str:
        """Returns a phrase for messages that describes the accepted files, as in `a file of kind image`."""
        return "a file" if self.kinds == ("any",) else f"a file of kind {' or '.join(self.kinds)}"


DEFAULT_OVERLAP = 0.5
"""The seconds of a transition without `seconds`."""

_EXTENSIONS = {"video": "mp4", "audio": "m4a", "image": "jpg", "file": "srt"}


@dataclass(frozen=True, slots=True)
class Edit:
    """The name, the parameters and the kind of result of a local edit."""

    name: str
    output: EditKind  # The kind of its result
    length: Length  # How long the result is
    params: tuple[EditParam, ...]  # Its parameters, the one that it is about first

    def param(self, name: str) -> EditParam | None:
        """Returns a parameter by name; None if the edit does not have it."""
        return next((param for param in self.params if param.name == name), None)

    @property
    def extension(self) -> str:
        """The extension of the result, unless the parameter `format` gives another one; empty for the kind `same`."""
        return _EXTENSIONS.get(self.output, "")

    @property
    def has_starts(self) -> bool:
        """Whether references can use the field `starts` of the result: the second at which each clip starts."""
        return self.length in ("sum", "overlapped")


def _edit(name: str, output: EditKind, length: Length, *params: EditParam) -> Edit:
    return Edit(name, output, length, params)


def _file(name: str, *kinds: str, required: bool = True, many: bool = False) -> EditParam:
    return EditParam(name, kinds, required, many)


def _text(name: str, *, required: bool = False, many: bool = True) -> EditParam:
    return EditParam(name, ("string",), required, many)


def _size(name: str, *, required: bool = False) -> EditParam:
    return EditParam(name, ("integer",), required, min=16, max=8192)


def _seconds(name: str, *, required: bool = False, many: bool = False, least: float = 0.04) -> EditParam:
    return EditParam(name, ("number",), required, many, min=least, max=86400)


def _number(name: str, least: float, most: float) -> EditParam:
    return EditParam(name, ("number",), min=least, max=most)


def _enum(name: str, *options: str) -> EditParam:
    return EditParam(name, ("enum",), options=options)


_CLIPS = _file("videos", "video", many=True)
_VIDEO = _file("video", "video")
_PICTURE = _file("file", "image", "video")
_BACKGROUND = _file("image", "image", required=False)
_MUSIC = _file("music", "audio", required=False)
_CUES = _file("file", "file", required=False)
_SPEECH = _file("speech", "audio", many=True)
_LOGO = _file("logo", "image")
_FONT = _file("font", "file", required=False)
_STARTS = _seconds("at", many=True, least=0)
_LENGTH = _seconds("seconds", required=True)
_OVERLAP = _number("seconds", 0.04, 5)
_LOUDNESS = _number("loudness", -40, -5)
_LEVEL = _number("music_level", -60, 0)
_TEXT_SIZE = _number("size", 0.02, 0.2)
_COLUMNS = EditParam("columns", ("integer",), min=1, max=20)
_KEEP_SOUND = EditParam("keep_sound", ("boolean",))
_FIT = _enum("fit", "contain", "cover", "stretch")
_PLACE = _enum("place", "bottom", "top")
_CORNER = _enum("corner", "bottom-right", "bottom-left", "top-right", "top-left")
_FORMAT = EditParam("format", ("enum",), options=("jpg", "png", "mp4"))
_SECOND = EditParam("at", ("number",), options=("first", "last"), min=0, max=86400)
_FRAME = (_size("width"), _size("height"))
_NEW_FRAME = (_size("width", required=True), _size("height", required=True))
_SEPARATOR = EditParam("by", ("string",))

EDITS: Mapping[str, Edit] = {
    edit.name: edit
    for edit in (
        _edit("concat", "video", "sum", _CLIPS, _FIT, *_FRAME),
        _edit("transition", "video", "overlapped", _CLIPS, _OVERLAP, _enum("look", "fade", "black"), _FIT, *_FRAME),
        _edit(
            "title", "video", "seconds", _text("text", required=True, many=False), _LENGTH, _BACKGROUND, _FONT, *_FRAME
        ),
        _edit("captions", "video", "input", _VIDEO, _text("text"), _STARTS, _CUES, _PLACE, _TEXT_SIZE, _FONT),
        _edit("mix", "audio", "seconds", _SPEECH, _STARTS, _MUSIC, _seconds("seconds"), _LEVEL, _LOUDNESS),
        _edit("mux", "video", "input", _VIDEO, _file("audio", "audio"), _KEEP_SOUND, _LOUDNESS),
        _edit("resize", "same", "input", _PICTURE, *_NEW_FRAME, _FIT, _FORMAT),
        _edit("trim", "same", "seconds", _file("file", "video", "audio"), _number("start", 0, 86400), _LENGTH),
        _edit(
            "still", "video", "seconds", _file("image", "image"), _LENGTH, *_FRAME, _enum("zoom", "none", "in", "out")
        ),
        _edit("frame", "image", "", _VIDEO, _SECOND),
        _edit("contact_sheet", "image", "", _file("of", "any", many=True), _text("captions"), _COLUMNS),
        _edit("extract_audio", "audio", "input", _VIDEO, _enum("format", "m4a", "wav"), _LOUDNESS),
        _edit(
            "watermark",
            "same",
            "input",
            _PICTURE,
            _LOGO,
            _CORNER,
            _number("size", 0.01, 1),
            _number("opacity", 0, 1),
        ),
        _edit(
            "subtitles",
            "file",
            "",
            _text("text", required=True),
            _STARTS,
            _seconds("seconds"),
            _enum("format", "srt", "vtt"),
        ),
        _edit("join_text", "string", "", _text("texts", required=True), _SEPARATOR),
    )
}
"""All edits by name."""
