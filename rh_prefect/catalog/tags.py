"""Reads the search vocabulary from `vocabulary.json`, and determines the tags and inputs of each model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rh_prefect.catalog.model import Model, words


@dataclass(frozen=True, slots=True)
class Tag:
    """A capability, such as `lip sync`, by which a search finds models.

    A model has the tag if its name or endpoint contains a phrase in `named`, or if its family, a parameter or a group
    is in `families`, `params` or `groups`. In the second case, if the tag has `groups` or `needs`, the model's required
    files must be exactly of the kinds in `needs`, because the groups of RunningHub's documentation are not always
    right. A tag with none of these fields applies to all models with an output in `makes`.
    """

    name: str
    synonyms: tuple[str, ...] = ()  # other names of the capability; spaces and hyphens do not matter
    named: tuple[str, ...] = ()  # words of which a model's name or endpoint has some, each between spaces
    families: tuple[str, ...] = ()  # lines of models that all have the capability
    params: tuple[str, ...] = ()  # parameters of which a model has one; `name=option` also asks for that option
    groups: tuple[str, ...] = ()  # beginnings of the documentation's groups that list such models
    makes: tuple[str, ...] = ()  # the outputs of which a model makes one
    needs: tuple[str, ...] = ()  # the kinds of files that a model requires
    but: tuple[str, ...] = ()  # words in its name that speak against it, each between spaces
    near: tuple[str, ...] = ()  # tags of the models that are the next best matches

    def is_of(self, model: Model, text: str) -> bool:
        """Returns whether a model has the tag; `text` is what `spelled` returns for the model's name and endpoint."""
        if (self.makes and model.output not in self.makes) or _any_in(self.but, text):
            return False
        return _any_in(self.named, text) or (self._is_hinted(model) and self._fits_files(model))

    def _is_hinted(self, model: Model) -> bool:
        if not (self.families or self.params or self.groups):
            return bool(self.needs) or not self.named
        return (
            model.family in self.families
            or any(group.startswith(known) for known in self.groups for group in model.groups)
            or any(_has_param(model, condition) for condition in self.params)
        )

    def _fits_files(self, model: Model) -> bool:
        required = {param.type for param in model.media_params if param.required}
        return not (self.groups or self.needs) or required == {*self.needs}


def _tag(name: str, raw: Mapping[str, list[str]]) -> Tag:
    spaced = {key: [f" {phrase} " for phrase in raw[key]] for key in ("named", "but") if key in raw}
    return Tag(name, **{key: tuple(values) for key, values in {**raw, **spaced}.items()})


_VOCABULARY = json.loads(Path(__file__).with_name("vocabulary.json").read_bytes())
TAGS = tuple(_tag(name, raw) for name, raw in _VOCABULARY["tags"].items())
ARTICLES = frozenset[str](_VOCABULARY["articles"])
FILLERS = frozenset[str](_VOCABULARY["fillers"])
"""Words that have no meaning for the search unless they belong to a known phrase."""

Input = Literal["image", "video", "audio", "text"]
_TEXTS = ("prompt", "text", "lyrics", "description", "script_content", "instructions")


def tags_of(model: Model) -> tuple[str, ...]:
    """Returns the names of the tags for what a model does, in the order of the vocabulary."""
    text = spelled(model.name, model.endpoint)
    return tuple(tag.name for tag in TAGS if tag.is_of(model, text))


def inputs_of(model: Model) -> tuple[Input, ...]:
    """Returns the kinds of input that a model accepts, required or not.

    The kinds follow from the model's parameters and name, because not every list of parameters is complete, and some
    models accept the link to a file as a string.
    """
    text = spelled(model.name, model.endpoint)
    kinds: set[str] = {param.type for param in model.media_params}
    if any(param.type == "string" and param.name.endswith(_TEXTS) for param in model.params):
        kinds.add("text")
    return tuple(kind for kind in get_args(Input) if kind in kinds or f" {kind} to " in text)


def spelled(*names: str) -> str:
    """Returns the given names as lower-case words separated by spaces, so that a search matches whole words only."""
    return f" {' | '.join(' '.join(words(name)) for name in names)} ".lower()


def _any_in(phrases: Iterable[str], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _has_param(model: Model, condition: str) -> bool:
    name, _, option = condition.partition("=")
    return any(param.name == name and (not option or option in param.options) for param in model.params)
