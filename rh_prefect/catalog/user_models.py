"""This user's own catalogue: newer models from a public file, without a new version of the package."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from rh_prefect.catalog import registry
from rh_prefect.catalog.changes import Changes, changes
from rh_prefect.catalog.data_file import decoded, dumps
from rh_prefect.catalog.merge import merge
from rh_prefect.catalog.public_lists import Form, PublicList, is_past_day, read_list
from rh_prefect.errors import InputError

_SILENCE = 30.0
"""Seconds without a byte after which a download is given up."""

_LONGEST = 120.0
"""Seconds that a download may take in all."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a public file has changed.

    Attributes:
        form: Which form the file has.
        entries: How many models or prices it lists.
        date: When it is from; empty where that is not known.
        is_older: Whether it is older than what was in use, and only adds what was not known.
        changes: How the catalogue differs now.
        flaws: What of the file was not used, and why.
    """

    form: Form
    entries: int
    date: str
    is_older: bool
    changes: Changes
    flaws: tuple[str, ...]


def refresh(source: str, *, date: str | None = None) -> Refreshed:
    """Puts what a public file says into this user's catalogue; processes that start from now on read it.

    Args:
        source: Path or URL of the file; for its forms see `rh_prefect.catalog.public_lists`.
        date: When the file is from, as in `2026-09-13`; default what it says itself.

    Raises:
        InputError: The file cannot be read, or nothing in it can be used; what was in use stays in use.
    """
    listed = _read(source)
    date = _day(date) if date is not None else listed.date
    before = in_use()
    content = merge(before, listed, date=date)
    entries = len(listed.models) + len(listed.prices)
    if not entries:
        told = "".join(f"\n  {flaw}" for flaw in listed.flaws[:5])
        raise InputError(f"{_shown(source)} names no model that can be used. Nothing was changed.{told}")
    found = changes(before, content)
    after = {
        **content,
        "version": _version(str(before["version"]), date),
        "source": f"{before['source']}; {_shown(source)}",
    }
    if content["models"] != before["models"]:
        _write(after)
    is_older = bool(date) and date < str(before["version"])[:10]
    return Refreshed(listed.form, entries, date, is_older, found, tuple(listed.flaws))


def reset() -> bool:
    """Goes back to the package's own models.

    Returns:
        Whether there was anything to go back from.
    """
    target = registry.user_file()
    there = target.exists()
    target.unlink(missing_ok=True)
    return there


def in_use() -> dict[str, Any]:
    """The content of the data file that a process which starts now would read."""
    own: dict[str, Any] = json.loads(registry.SLIM_FILE.read_bytes())
    try:
        content: dict[str, Any] = json.loads(registry.user_file().read_bytes())
        decoded(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return own  # a user's file that cannot be read is not in use
    return own if registry.is_older(str(content["version"]), str(own["version"])) else content


def _read(source: str) -> PublicList:
    shown = _shown(source)
    try:
        return read_list(json.loads(_bytes_of(source)))
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{shown} cannot be read: {reason.replace(source, shown)}. Nothing was changed.") from error
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"{shown} is no list of models: {error}. Nothing was changed.") from error


def _bytes_of(source: str) -> bytes:
    if source.startswith(("http://", "https://")):
        return _download(source)
    import fsspec  # takes a fifth of a second, and only this command needs it

    with fsspec.open(source, "rb") as file:
        content: bytes = file.read()
    return content


def _download(url: str) -> bytes:
    import httpx

    began = time.monotonic()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_SILENCE) as answer:
            if answer.is_error:
                raise OSError(f"HTTP status {answer.status_code}")
            parts = []
            for part in answer.iter_bytes():
                parts.append(part)
                if time.monotonic() - began > _LONGEST:
                    raise OSError(f"it took more than {_LONGEST} s")
            return b"".join(parts)
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _shown(source: str) -> str:
    """The path or URL without the user and password that a URL may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", source)


def _day(given: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given) or not is_past_day(given):
        raise InputError(f"{given!r} is no day that has been. What to do: write it as YYYY-MM-DD. Nothing was changed.")
    return given


def _version(before: str, date: str) -> str:
    """Counts on from the version that was in use, so that a package with older models does not go before it."""
    day, _, number = before.partition("+")
    return f"{date}+0" if date > day else f"{day}+{int(number or 0) + 1}"


def _write(content: dict[str, Any]) -> None:
    target = registry.user_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    part.write_text(dumps(content), encoding="utf-8")
    part.replace(target)
