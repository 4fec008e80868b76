"""A batch takes no outputs for rows: each run would find more to do, and pay for it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from string import Formatter

from rh_prefect.errors import InputError
from rh_prefect.jobs.requests.input_copies import is_copy
from rh_prefect.media.names import safe
from rh_prefect.media.store import MediaStore
from rh_prefect.media.urls import is_local, local_path, protocol_of, without_user

MAGIC = re.compile(r"[*?\[]")
"""What makes a part of a path a pattern, as fsspec reads it."""


def without_outputs(uris: Iterable[str], folder: str, store: MediaStore) -> Iterator[str]:
    """Leaves out what lies in the place if that is within the folder: what earlier runs have made is not an input.

    Copies of inputs in the place are left out wherever the folder is.

    Args:
        uris: The files.
        folder: The folder that they are in.
        store: The place.
    """
    outer, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    # In the folder's own spelling: a link may lead to it, but none is followed on the way down.
    inner = f"{_spelt(folder).rstrip('/')}{place[len(outer) :]}/" if place.startswith(f"{outer}/") else None
    outputs = (uri for uri in uris if inner is None or not _spelt(uri).startswith(inner))
    return (uri for uri in outputs if not is_copy(_spelt(uri).removeprefix(f"{_spelt(store.url).rstrip('/')}/")))


def refuse_own(name: str, folder: str, rest: Sequence[str], store: MediaStore, fields: Mapping[str, str]) -> None:
    """Refuses files from within the place where this batch's outputs could be among them: each run would add rows.

    Args:
        name: The folder or the glob.
        folder: The folder that the files are in.
        rest: What follows it, as the parts of a pattern.
        store: The place.
        fields: What this run's outputs have in its template, as far as it is known.

    Raises:
        InputError: They could.
    """
    inner, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    if not f"{inner}/".startswith(f"{place}/"):
        return
    between = [escape(part) for part in inner[len(place) :].split("/") if part]
    if _could_meet([*between, *rest], _own_names(store, fields)):
        raise InputError(
            f"batch: the rows come from {name}, which is within the place that outputs go to, {store.url}; the next "
            "run would take its own outputs for rows and pay again. What to do: name another place for outputs, or "
            "give a manifest or a list of the files."
        )


def _own_names(store: MediaStore, fields: Mapping[str, str]) -> list[str]:
    """What the names of this batch's outputs look like: a pattern for each part of the path.

    This run's own name suffices: later runs of a batch name their outputs after the first one, and that was refused
    if its rows could be its outputs.
    """
    text = ""
    for literal, field, form, conversion in Formatter().parse(store.template):
        is_known = field in fields and not form and not conversion
        text += escape(literal) + ("" if field is None else escape(safe(fields[field])) if is_known else "*")
    return text.split("/")


def _could_meet(sought: Sequence[str], made: Sequence[str]) -> bool:
    """Whether one path may fit both patterns; where that is not certainly impossible, it may."""
    for one, other in zip(sought, made):
        if "**" in one:
            return True
        if not _fit(one, other):
            return False
    return len(sought) >= len(made) and all("**" in part for part in sought[len(made) :])


def _fit(one: str, other: str) -> bool:
    if MAGIC.search(one) and MAGIC.search(other):
        return True
    return fnmatchcase(other, one) or fnmatchcase(one, other)


def _where(url: str) -> str:
    """Where a place really is: a link to it is no other place."""
    return os.path.realpath(_spelt(url)) if is_local(url) else _spelt(url)


def _spelt(url: str) -> str:
    """The one spelling of a place or a file, to compare it."""
    if is_local(url):
        return local_path(url)
    return f"{protocol_of(url)}://{without_user(url).partition('://')[2].strip('/')}"
