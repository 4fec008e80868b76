"""Finds models: by any of their names, or by what they do."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from rh_prefect.catalog.entry import Model, Output, decode_model
from rh_prefect.catalog.names import words
from rh_prefect.errors import UnknownModelError

SLIM_FILE = Path(__file__).with_name("models.json")
"""The package's own data: made by `python -m rh_prefect.catalog.build`, never by hand."""

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(?:\+\d+)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@cache
def models() -> tuple[Model, ...]:
    """Returns every model, in the order of their names; the file is read once, at the first call.

    It is the package's own file, or the one that `rh-prefect models refresh` has left for this user.
    """
    return _of_this_user() or _decoded(json.loads(SLIM_FILE.read_bytes()))


def user_file() -> Path:
    """Where this user's own data lies, once `rh-prefect models refresh` has been run."""
    from rh_prefect.settings import get_settings  # whoever imports the catalogue does not pay for it

    return get_settings().state_dir / "models.json"


def is_older(version: str, than: str) -> bool:
    """Tells whether a data file's version is before another's; two that cannot be compared are not.

    Args:
        version: As in `2026-04-29+1`.
        than: The other.
    """
    mine, other = _VERSION.fullmatch(version), _VERSION.fullmatch(than)
    return bool(mine and other) and _order(version) < _order(than)


def _order(version: str) -> tuple[str, int]:
    date, _, number = version.partition("+")
    return date, int(number or 0)


def _of_this_user() -> tuple[Model, ...] | None:
    file = user_file()
    try:
        content = json.loads(file.read_bytes())
        found = _decoded(content)
        version = str(content["version"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _warn(f"This user's models in {file} cannot be read ({error!r})")
        return None
    own = str(json.loads(SLIM_FILE.read_bytes())["version"])
    if is_older(version, own):
        _warn(f"This user's models in {file} are of {version}, and the package has newer ones of {own}")
        return None
    return found


def _warn(what: str) -> None:
    warnings.warn(
        f"{what}; the package's own are used. What to do: `rh-prefect models refresh FILE` with a newer file, or "
        "`rh-prefect models refresh --reset`.",
        stacklevel=5,
    )


def _decoded(content: Mapping[str, Any]) -> tuple[Model, ...]:
    return tuple(decode_model(raw) for raw in content["models"])


@cache
def _index() -> dict[str, Model]:
    """Every name of every model in lower case; where two clash, the documentation's name wins."""
    found = {alias.lower(): model for model in models() for alias in model.aliases}
    for kind in ("snake_name", "class_name", "endpoint", "name"):
        found.update((getattr(model, kind).lower(), model) for model in models())
    return found


def get(name: str) -> Model:
    """Finds one model.

    Args:
        name: Its name in the documentation, its endpoint in any spelling of RunningHub's lists, or the name of its
            class or task; case does not matter.

    Raises:
        UnknownModelError: There is none; the message and `nearest` hold the three nearest names.
    """
    found = _index().get(name.strip().strip("/").lower())
    if found is not None:
        return found
    near = nearest(name)
    raise UnknownModelError(
        f"There is no model {name!r}. The nearest are {', '.join(near)}. "
        "`rh-prefect models search WORDS` finds one by what it does.",
        nearest=near,
    )


def nearest(name: str, *, limit: int = 3) -> tuple[str, ...]:
    """Names the models whose names are most like a wrong one.

    Args:
        name: The wrong name, of any kind.
        limit: How many.

    Returns:
        Their names in the documentation, the nearest first.
    """
    from difflib import SequenceMatcher  # only a wrong name needs it

    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(_plain(name))

    def likeness(model: Model) -> float:
        ratios = []
        for known in (model.name, model.endpoint):
            matcher.set_seq1(_plain(known))
            ratios.append(matcher.ratio())
        return max(ratios)

    return tuple(model.name for model in sorted(models(), key=likeness, reverse=True)[:limit])


def _plain(name: str) -> str:
    return "".join(words(name)).lower()


def find(
    query: str = "",
    *,
    output: Output | None = None,
    family: str | None = None,
    in_docs: bool | None = None,
    with_old: bool = False,
) -> list[Model]:
    """Searches for models by words.

    Args:
        query: Words that describe the model, as in "kling image to video"; each may also be a part of a word.
        output: Only models that make this.
        family: Only models of this line.
        in_docs: Only models that the documentation lists, or only the others.
        with_old: Also models that are deprecated, or gone from RunningHub's newest lists.

    Returns:
        The models that have every word, the best match first: words in the name before words elsewhere, a phrase before
        scattered words, listed before unlisted, newer before older. Where none has every word, those that have most.
    """
    chosen = [
        model
        for model in models()
        if (output is None or model.output == output)
        and (family is None or model.family == family.lower())
        and (in_docs is None or model.in_docs is in_docs)
        and (with_old or model.status == "current")
    ]
    wanted = [word.lower() for word in words(query)]
    scored = [(_score(model, wanted), model) for model in chosen]
    most = max((hits for (hits, _), _ in scored), default=0)
    if wanted and not most:
        return []
    return _ranked((score, model) for (hits, score), model in scored if hits == most)


def _ranked(scored: Iterable[tuple[int, Model]]) -> list[Model]:
    def order(pair: tuple[int, Model]) -> tuple[object, ...]:
        score, model = pair
        return (
            model.status != "current",
            model.incomplete,
            -score,
            not model.in_docs,
            _version(model),
            len(model.name),
            model.name,
        )

    return [model for _, model in sorted(scored, key=order)]


def _version(model: Model) -> tuple[float, ...]:
    """Sorts newer models of a line before older ones."""
    return tuple(-float(number) for number in _NUMBER.findall(model.name)[:1])


def _score(model: Model, wanted: list[str]) -> tuple[int, int]:
    """How many of the words a model has, and how well they fit."""
    own = [word.lower() for word in words(model.name)]
    name, more = " ".join(own), _more(model)
    hits = score = 0
    for word in wanted:
        worth = 6 if word in own else 4 if word in name else 2 if word in more else 0
        hits += worth > 0
        score += worth
    phrase = " ".join(wanted)
    pairs = sum(f"{left} {right}" in name for left, right in pairwise(wanted))
    return hits, score + 3 * pairs + (8 if phrase and phrase in name else 0)


def _more(model: Model) -> str:
    parts = (model.endpoint, model.family, model.output, *model.groups)
    return " ".join(word.lower() for part in parts for word in words(part))
