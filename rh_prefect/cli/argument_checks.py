"""Reads and checks a command's arguments before anything is started, and prepares them for printing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from rh_prefect.errors import ConfigError, ConnectFailed, InputError, KeyRejected, RunningHubError
from rh_prefect.settings import get_settings

T = TypeVar("T")

_HIDDEN = "<the whole address of "
_ASSIGNMENT = re.compile(r"((?:[\w.-]+=)*)(.*)", re.DOTALL)
"""A word of a command line: `name=value`, `--set=name=value`, or a value alone."""

_PATIENCE = 10.0
"""Maximum seconds for the check of a key; if the site is slower, the run starts without the check."""


def printable(word: str) -> str:
    """Returns a word of a command line, a value or `name=value`, for printing.

    An address with a signature or a password is replaced by a placeholder, which commands refuse: without these parts,
    the address could lead to another file.
    """
    from rh_prefect.media.input_files import shown

    name, value = _ASSIGNMENT.fullmatch(word).groups()  # type: ignore[union-attr]  # it fits each text
    if "://" not in value or shown(value) == value:
        return word
    return f"{name}{_HIDDEN}{shown(value)}>"


def text_in(what: str, file: Path) -> str:
    """Reads the text of a file that an option names; raises an `InputError` if the file cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else error.strerror or error
        raise InputError(
            f"{what} {file} cannot be read: {reason}. Nothing was sent. What to do: give a text file in UTF-8."
        ) from None


def check_texts(_type: object, value: object) -> None:
    """Raises an `InputError` for a string or path that is not valid; used for all arguments of all commands."""
    if isinstance(value, str | Path):
        _check_text(str(value))
    elif isinstance(value, list | tuple):
        for one in value:
            check_texts(_type, one)
    elif is_dataclass(value):
        check_texts(_type, [getattr(value, one.name) for one in fields(value)])


def _check_text(text: str) -> None:
    from rh_prefect.json_snapshot import is_text

    if _ASSIGNMENT.fullmatch(text).group(2).startswith(_HIDDEN):  # type: ignore[union-attr]  # as above
        raise InputError(
            f"{text} is a masked form of an address whose signature or password is not printed. Nothing was sent. "
            "What to do: write the whole address."
        )
    if "\0" in text:
        raise InputError(
            f"{text!r} contains a NUL byte, which is not allowed in paths and prompts. Nothing was sent. What to do: "
            "remove it."
        )
    if not is_text(text):
        raise InputError(
            f"{text!a} is not UTF-8, the only encoding that Prefect and RunningHub accept. Nothing was sent. What to "
            "do: encode the text, or the file name, in UTF-8."
        )


def check_account(credentials: str | None) -> None:
    """Checks the environment's API key with one free request, unless a block is given instead."""
    if credentials is None:
        asyncio.run(_check_account())


async def _check_account() -> None:
    from rh_prefect.blocks.lookup import load_credentials

    try:
        async with asyncio.timeout(_PATIENCE), (await load_credentials()).get_client() as client:
            await client.queue_status()
    except ConnectFailed as error:
        raise ConfigError(
            f"{get_settings().base_url} cannot be reached: {error.what or error}. Nothing was sent. What to do: "
            "correct RH_BASE_URL, or start the server at that address, such as `rh-prefect emulator`."
        ) from error
    except (ConfigError, KeyRejected):
        raise
    except (RunningHubError, TimeoutError):
        return  # an error that is not about the key; the run itself waits, and reports its own errors


def check_store(storage: str | None) -> None:
    """Writes, reads and deletes a small file at RH_STORAGE_URL, unless a block is given instead."""
    from rh_prefect.media.store import MediaStore

    if storage is None:
        settings = get_settings()
        MediaStore(settings.storage_url, options=settings.storage_options).check()


def check_batch(rows: str, models: Iterable[str]) -> None:
    """Raises an `InputError` if the rows or the model do not exist."""
    from rh_prefect import catalog

    for model in models:
        catalog.get(model)
    if _is_missing(rows) and not set(rows) & set("*?["):
        raise InputError(f"batch: there is no file or folder {rows}. Nothing was sent. What to do: check the path.")


def _is_missing(source: str) -> bool:
    from rh_prefect.media.storage_urls import is_local, local_path

    try:
        return is_local(source) and not Path(local_path(source)).exists()
    except OSError:  # a name that is too long, or a folder that may not be listed
        return True


def assigned(assignments: Iterable[str]) -> dict[str, list[str]]:
    """Returns the values of the `NAME=VALUE` arguments of `--set`, by name."""
    found: dict[str, list[str]] = {}
    for one in assignments:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise InputError(
                f"--set: {one!r} is not an assignment. Nothing was sent. What to do: write --set NAME=VALUE."
            )
        found.setdefault(name, []).append(value)
    return found


def one_or_list(values: Sequence[T]) -> T | list[T]:
    """Returns the value of an option, or a list if the option was given more than once."""
    return list(values) if len(values) > 1 else values[0]


def batch_values(assignments: Iterable[str]) -> dict[str, Any]:
    """Reads the values of a batch; `@PATH` is a file. The batch's plan converts the strings like table cells."""
    return {
        name: one_or_list([{"file": text[1:]} if text.startswith("@") else text for text in texts])
        for name, texts in assigned(assignments).items()
    }
