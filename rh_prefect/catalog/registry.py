"""Loads the models from the data file in use, and finds a model by any of its names; `search` finds by purpose."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rh_prefect.catalog.hash_compatibility import keep_models
from rh_prefect.catalog.model import Model, class_name, decode_model, is_placeholder, snake_name, words
from rh_prefect.errors import InputError, UnknownModelError

SLIM_FILE = Path(__file__).with_name("models.json")
"""The package's own data, written by `python -m rh_prefect.catalog.generated_files` and never edited by hand."""

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(?:\+\d+)?")


@cache
def models() -> tuple[Model, ...]:
    """Returns all models, sorted by name; the file is read once, at the first call.

    The file is the package's own, or the one that `rh-prefect models refresh` has created for this user.
    """
    return tuple(_model(position) for position in range(len(_raws())))


@cache
def _raws() -> list[dict[str, Any]]:
    """Returns the undecoded models, so that looking up one model does not decode all 500."""
    raws: list[dict[str, Any]] = _content()["models"]
    return raws


@cache
def _content() -> dict[str, Any]:
    return in_use(_warn)


def version() -> str:
    """Returns the version of the models that this process uses."""
    return str(_content()["version"])


@cache
def _model(position: int) -> Model:
    return decode_model(_raws()[position])


def user_file() -> Path:
    """Returns the path of this user's own data file, which `rh-prefect models refresh` creates."""
    from rh_prefect.settings import get_settings  # keeps the import of the catalogue quick

    return get_settings().state_dir / "models.json"


def is_older(version: str, than: str) -> bool:
    """Returns whether a data file's version, as in `2026-04-29+1`, is older than another; False for other strings."""
    mine, other = _VERSION.fullmatch(version), _VERSION.fullmatch(than)
    return bool(mine and other) and _order(version) < _order(than)


def _order(version: str) -> tuple[str, int]:
    date, _, number = version.partition("+")
    return date, int(number or 0)


def in_use(tell: Callable[[str], None]) -> dict[str, Any]:
    """Returns the content of the data file for a newly started process.

    The newer one of the package's data and a user's file is used, with the models that only the other one has; each
    call of the user's file remains the same request. If a user's file is not used, `tell` is called with the reason.
    Placeholders for prices in a user's file count as unknown prices.
    """
    own: dict[str, Any] = json.loads(SLIM_FILE.read_bytes())
    file = user_file()
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        for raw in content["models"]:
            model = decode_model(raw)
            if model.price is not None and any(map(is_placeholder, model.price.amounts or (Decimal(0),))):
                del raw["price"]
        version = str(content["version"])
    except FileNotFoundError:
        return own
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, InputError) as error:
        tell(f"This user's models in {file} cannot be read ({error!r})")
        return own
    if is_older(version, str(own["version"])):
        tell(f"This user's models in {file} date from {version}, but the package has newer ones from {own['version']}")
        return _with_missing(own, content, user=content)
    return _with_missing(content, own, user=content) if content["models"] else own


def _with_missing(newer: dict[str, Any], older: Mapping[str, Any], *, user: Mapping[str, Any]) -> dict[str, Any]:
    there = {model["endpoint"] for model in newer["models"]}
    missing = [model for model in older["models"] if model["endpoint"] not in there]
    if newer is user and not missing:
        return newer
    kept = keep_models(user["models"], [*newer["models"], *missing], flaws=[])
    return {**newer, "models": sorted(kept, key=lambda model: str(model["name"]).lower())}


def _warn(what: str) -> None:
    warnings.warn(
        f"{what}; the package's models are used. What to do: run `rh-prefect models refresh FILE` with a newer file, "
        "or `rh-prefect models refresh --reset`.",
        stacklevel=6,
    )


@cache
def _index() -> dict[str, int]:
    return index_of(_raws())


def index_of(raws: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Maps each name of a model, in lower case, to the position of the model; an endpoint has priority over a name."""
    found: dict[str, int] = {}
    for position, raw in enumerate(raws):
        found.update((alias.lower(), position) for alias in raw.get("aliases", ()))
    for name_of in (snake_name, class_name):
        found.update((name_of(raw["name"]).lower(), position) for position, raw in enumerate(raws))
    for key in ("name", "endpoint"):
        found.update((raw[key].lower(), position) for position, raw in enumerate(raws))
    # Two endpoints may differ in case alone.
    found.update((raw["endpoint"], position) for position, raw in enumerate(raws))
    return found


def of_attribute(
    name: str, *, module: str, kind: str, name_of: Callable[[str], str] = snake_name, advice: str = ""
) -> Model:
    """Returns the model whose name in Python is an attribute of a module; `kind` names what the attribute is.

    `name_of` returns a model's name in Python. Raises `AttributeError` if there is no such model.
    """
    if name.startswith("_"):  # Python asks for such names at imports, for which the catalogue is not read
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    position = _index().get(name.lower())
    if position is None or name_of(_raws()[position]["name"]) != name:
        near = ", ".join(map(name_of, nearest(name)))
        raise AttributeError(f"module {module!r} has no {kind} {name!r}; similar names: {near}{advice}")
    return _model(position)


def is_known(endpoint: str) -> bool:
    """Returns whether the catalogue has a model with this endpoint, in any spelling that RunningHub's lists use."""
    position = _index().get(endpoint.lower())
    return position is not None and endpoint.lower() in {
        spelling.lower() for spelling in (_model(position).endpoint, *_model(position).aliases)
    }


def get(name: str) -> Model:
    """Returns the model with this name, in any spelling; raises `UnknownModelError` if there is none."""
    plain = name.strip().strip("/")
    position = _index().get(plain, _index().get(plain.lower()))
    if position is not None:
        return _model(position)
    near = nearest(name)
    raise UnknownModelError(
        f"Model {name!r} does not exist. Similar names: {', '.join(near)}. What to do: use one of these names, or "
        "find a model by what it does: `rh-prefect models search WORDS`.",
        nearest=near,
    )


def nearest(name: str, *, limit: int = 3) -> tuple[str, ...]:
    """Returns the names of the models that are most similar to a wrong name of any kind, the most similar first."""
    by_spelling = {_plain(known): model.name for model in models() for known in (model.endpoint, model.name)}
    spellings = get_close_matches(_plain(name), by_spelling, n=2 * limit, cutoff=0)
    return tuple(dict.fromkeys(by_spelling[one] for one in spellings))[:limit]


def _plain(name: str) -> str:
    return "".join(words(name)).lower()
