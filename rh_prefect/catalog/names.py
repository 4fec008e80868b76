"""Python names for what the API names in its own ways: models, and the keys of their parameters."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# `model` says in every input which model it is for, and these are what an input inherits from pydantic's BaseModel.
_OWN = {"model", "unchecked", "entry", "params", "as_media", "class_of", "self", "cls"}
_PYDANTIC = {
    "construct",
    "copy",
    "dict",
    "from_orm",
    "json",
    "schema",
    "schema_json",
    "update_forward_refs",
    "validate",
}

_OF_MODULE = {"Any", "CustomInput", "Decimal", "FileValue", "InputBase", "InputError", "Mapping", "MediaInput", "Model"}
_OF_MODULE |= {"ModelInput", "RLock"}
"""What `rh_prefect.models` holds besides the classes of the models."""

RUN_OPTIONS = (
    "label",
    "reuse",
    "on_unknown",
    "max_attempts",
    "deadline",
    "budget",
    "credentials",
    "storage",
    "scope",
    "key",
)
"""What a model's task takes beside the model's parameters; a parameter of such a name gets an underscore."""

_PREFECT = {"wait_for", "return_state"}
_TAKEN = {*_OWN, *_PYDANTIC, *RUN_OPTIONS, *_PREFECT, "parse_file", "parse_obj", "parse_raw"}


def words(name: str) -> list[str]:
    """Splits a model's name into its words: `kling-v2.6-pro` is kling, v2, 6, pro."""
    return _WORD.findall(name)


@lru_cache(maxsize=4096)
def class_name(name: str) -> str:
    """Names the input class of a model: `kling-v2.6-pro-image-to-video` is `KlingV26ProImageToVideo`."""
    joined = "".join(word[0].upper() + word[1:] for word in words(name))
    return joined if joined[:1].isalpha() and joined not in _OF_MODULE else f"Model{joined}"


@lru_cache(maxsize=4096)
def snake_name(name: str) -> str:
    """Names the task of a model: `kling-v2.6-pro-image-to-video` is `kling_v2_6_pro_image_to_video`."""
    joined = "_".join(words(name)).lower()
    return joined if joined.isidentifier() and not keyword.iskeyword(joined) else f"model_{joined}"


@lru_cache(maxsize=4096)
def param_name(key: str) -> str:
    """Names a parameter: `imageUrl` is `image_url`; a name that Python, an input class or a task needs gets `_`."""
    name = "_".join(words(_HUMP.sub("_", key.strip()))).lower()
    if not name.isidentifier():
        name = f"p_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN or name.startswith("model_") else name


def param_names(keys: Sequence[str]) -> list[str]:
    """Names all parameters of one model; a key that needs no change goes before one that would get the same name.

    Args:
        keys: The wire keys, in order.

    Returns:
        The names in the same order, unique.
    """
    taken: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key != param_name(key)):
        name, number = param_name(key), 2
        while name in taken:
            name, number = f"{param_name(key)}_{number}", number + 1
        taken[name] = key
    by_key = {key: name for name, key in taken.items()}
    return [by_key[key] for key in keys]
