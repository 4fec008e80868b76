"""Says of a model what it does and what it takes, from its name, parameters, family, groups and output."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Literal, get_args

from rh_prefect.catalog.model import Model
from rh_prefect.catalog.names import words
from rh_prefect.catalog.tag_table import TAGS, Tag, split

Input = Literal["image", "video", "audio", "text"]

INPUTS: tuple[Input, ...] = get_args(Input)
_TEXTS = ("prompt", "text", "lyrics", "description", "script_content", "instructions")


def tags_of(model: Model) -> tuple[str, ...]:
    """Names what a model does.

    Args:
        model: The model.

    Returns:
        The names of its tags, in the order of the vocabulary.
    """
    text = spelled(model.name, model.endpoint)
    return tuple(rule.tag.name for rule in _rules() if rule.holds(model, text))


def inputs_of(model: Model) -> tuple[Input, ...]:
    """Names what a model takes, required or not.

    Its parameters say so; its name, too, because not every list of parameters is complete, and some models take the
    link of a file as text.

    Args:
        model: The model.
    """
    text = spelled(model.name, model.endpoint)
    kinds: set[str] = {param.type for param in model.media_params}
    kinds.update(kind for kind in INPUTS if f" {kind} to " in text)
    if any(param.type == "string" and param.name.endswith(_TEXTS) for param in model.params):
        kinds.add("text")
    return tuple(kind for kind in INPUTS if kind in kinds)


def spelled(*names: str) -> str:
    """Writes names as their words in lower case, so that ` lip sync ` finds whole words of one name.

    Args:
        names: As in `kling-lip-sync/tts`.
    """
    return f" {' | '.join(' '.join(words(name)) for name in names)} ".lower()


class _Rule:
    """One tag's conditions, split once for all models."""

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self._named, self._but = _phrases(tag.named), _phrases(tag.but)
        self._families, self._params, self._groups = split(tag.families), split(tag.params), split(tag.groups)
        self._makes, self._needs = split(tag.makes), set(split(tag.needs))
        self._is_by_files = bool(self._groups or self._needs)
        self._has_hints = bool(self._families or self._params or self._groups)

    def holds(self, model: Model, text: str) -> bool:
        if (self._makes and model.output not in self._makes) or _any_in(self._but, text):
            return False
        return _any_in(self._named, text) or (self._is_hinted(model) and self._fits_files(model))

    def _is_hinted(self, model: Model) -> bool:
        if not self._has_hints:
            return self._is_by_files or not self._named
        return (
            model.family in self._families
            or any(group.startswith(known) for known in self._groups for group in model.groups)
            or any(_has_param(model, wanted) for wanted in self._params)
        )

    def _fits_files(self, model: Model) -> bool:
        return not self._is_by_files or {param.type for param in model.media_params if param.required} == self._needs


@cache
def _rules() -> tuple[_Rule, ...]:
    return tuple(_Rule(tag) for tag in TAGS)


def _phrases(listed: str) -> tuple[str, ...]:
    return tuple(f" {phrase} " for phrase in split(listed))


def _any_in(phrases: Iterable[str], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _has_param(model: Model, wanted: str) -> bool:
    name, _, option = wanted.partition("=")
    return any(param.name == name and (not option or option in param.options) for param in model.params)
