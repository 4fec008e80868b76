"""Parses the answers of models as `parse` requires, and determines the types of parsed answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rh_prefect.pipelines.file_model import Parse
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.types import Type, of_literal

_SHOWN = 300
"""Maximum number of characters of an answer in a message."""

# No two of its parts match the same blanks: a model may answer with thousands of them, and each split would be tried.
_FENCE = re.compile(r"```[A-Za-z]*[^\S\n]*\n(.*)```", re.DOTALL)


class InvalidAnswerError(ValueError):
    """A model's answer does not have the structure that `parse` requires."""


def answer_type(parse: Parse) -> Type:
    """Returns the type of a parsed answer."""
    if parse.text is not None:
        return Type("string", max=parse.text.max)
    fields = {name: Type(one.type, max=one.max) for name, one in (parse.object or parse.list or {}).items()}
    return Type("object", many=parse.list is not None, fields=fields)


def shape_of(parse: Parse | None, *, at_most: int | None = None) -> str:
    """Returns a string that identifies the structure that `parse` describes; empty without `parse`."""
    if parse is None:
        return ""
    shape = parse.model_dump(exclude_none=True) | ({} if at_most is None else {"at_most": at_most})
    return json.dumps(shape, sort_keys=True)


def fits_shape(text: str, shape: str) -> bool:
    """Returns whether a model's answer has the given structure; an empty `shape` allows any answer."""
    if not shape:
        return True
    parse = Parse.model_validate_json(shape)
    try:
        read_answer(text, parse, at_most=parse.at_most if isinstance(parse.at_most, int) else None)
    except InvalidAnswerError:
        return False
    return True


def read_answer(text: str, parse: Parse, *, at_most: int | None = None) -> Any:
    """Returns the content of a model's answer; raises `InvalidAnswerError` if it has another structure."""
    try:
        return _read(text, parse, at_most)
    except InvalidAnswerError as wrong:
        begin = visible(" ".join(text.split()))
        shown = begin if len(begin) <= _SHOWN else f"{begin[:_SHOWN]}…"
        raise InvalidAnswerError(f"{wrong}. The answer is: {shown or 'empty'}") from None


def _read(text: str, parse: Parse, at_most: int | None) -> Any:
    fenced = _FENCE.fullmatch(text.strip())
    plain = (fenced[1] if fenced else text).strip()
    if parse.text is not None:
        return _text("the answer", plain, parse.text.max)
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        raise InvalidAnswerError("the answer is not JSON") from None
    found = answer_type(parse)
    if not found.many:
        return _object("the answer", value, found.fields)
    if not isinstance(value, list) or not value:
        raise InvalidAnswerError("the answer is not a list with at least one item")
    if at_most is not None and len(value) > at_most:
        raise InvalidAnswerError(f"the answer has {len(value)} items; at most {at_most} are allowed")
    return [_object(f"item {number}", one, found.fields) for number, one in enumerate(value, 1)]


def _object(what: str, value: Any, fields: Mapping[str, Type]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidAnswerError(f"{what} is not an object")
    return {name: _one(f"{name} of {what}", value.get(name), kind) for name, kind in fields.items()}


def _one(what: str, value: Any, kind: Type) -> Any:
    if kind.kind in ("string", "handle"):
        return _text(what, value, kind.max)
    found = of_literal(value).kind
    if found != kind.kind and (found, kind.kind) != ("integer", "number"):
        raise InvalidAnswerError(f"{what} is not {kind.words}")
    return value


def _text(what: str, value: Any, longest: int | None) -> str:
    if not isinstance(value, str):
        raise InvalidAnswerError(f"{what} is not a string")
    if not value.strip():
        raise InvalidAnswerError(f"{what} is empty")
    if longest is not None and len(value) > longest:
        raise InvalidAnswerError(f"{what} has {len(value)} characters; at most {longest} are allowed")
    return value
