"""Suggestions for a wrong model name: similar models, with what they make and cost."""

from __future__ import annotations

from collections.abc import Sequence

from rh_prefect import catalog
from rh_prefect.catalog.model import Model

_MOST = 5


def no_such_model(name: str, kinds: Sequence[str] = ()) -> str:
    """Builds the message for an unknown model name, with the closest names.

    Args:
        name: The wrong name.
        kinds: The kinds of the files that it is given, where these are known.
    """
    taken = [kind for kind in kinds if kind in ("image", "video", "audio")]
    among = f"of the models that take {' and '.join(f'one {kind}' for kind in taken)} the" if taken else "the"
    near = _nearest(name, taken)
    return f"there is no model {name}; {among} nearest are {', '.join(map(_described, near))}"


def _nearest(name: str, kinds: Sequence[str]) -> list[Model]:
    by_words = [model for model in catalog.find(name) if _takes(model, kinds)]
    by_letters = [catalog.get(one) for one in catalog.nearest(name, limit=60)]
    found = [*by_words, *(model for model in by_letters if _takes(model, kinds))]
    return list(dict.fromkeys(found))[:_MOST]


def _takes(model: Model, kinds: Sequence[str]) -> bool:
    """Returns whether a model takes one file of each kind, and requires no other file."""
    one = [param.type for param in model.media_params if not param.multiple]
    needed = [param.type for param in model.media_params if param.required]
    return all(kind in one for kind in kinds) and (not kinds or sorted(needed) in ([], sorted(kinds)))


def _described(model: Model) -> str:
    return f"{model.name} ({model.output}, {model.price or 'price unknown'})"
