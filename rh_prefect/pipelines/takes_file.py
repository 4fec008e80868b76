"""The user's decisions about single results: the takes and choices next to a pipeline's file."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import InputError, StoreError
from rh_prefect.local_files import lock_file, write_atomic
from rh_prefect.pipelines.yaml_reader import MOST_BYTES, read

_ADDRESS = re.compile(r"[A-Za-z][\w.-]*(?:\[.+\]\.[\w-]+)?", re.DOTALL)


@dataclass
class Choices:
    """A user's decisions about single results.

    Attributes:
        takes: The first take of a step or of one item's step, by its address.
        choices: Of a review: `of` says what was shown, `take` which was chosen, `text` corrects it.
        failed: Addresses of steps that this run cannot make; a step with `require: any` continues without them.
        new: Steps whose next take is made, by step or address; `*` for all paid steps.
    """

    takes: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Collection[str] = ()
    new: Collection[str] = ()

    def take_of(self, address: str) -> int:
        """Returns the take to use for a step or for one item's step.

        Args:
            address: As in `each.picture` or `each[A-17].picture`.
        """
        return self.takes.get(address, self.takes.get(step_of(address), 1))


class Choice(BaseModel):
    """The answer to one review."""

    model_config = ConfigDict(extra="forbid")

    of: str
    take: int | None = Field(None, ge=1)
    text: str | None = None


class TakesFile(BaseModel):
    """The file `<pipeline>.takes.yaml`, which a person commits or deletes."""

    model_config = ConfigDict(extra="forbid")

    takes: dict[str, int] = Field(default_factory=dict)
    choices: dict[str, Choice] = Field(default_factory=dict)


def step_of(address: str) -> str:
    """Returns the step of an address: `each.picture` of `each[A-17].picture`.

    Args:
        address: Of a step, or of one item's step.
    """
    return re.sub(r"\[.*\]", "", address, flags=re.DOTALL)


def takes_file(pipeline: Path) -> Path:
    """Returns the path of the takes file of a pipeline's file.

    Args:
        pipeline: The pipeline's file.
    """
    return pipeline.with_suffix(".takes.yaml")


def read_choices(file: Path) -> Choices:
    """Reads takes and choices; empty if the file does not exist.

    Args:
        file: See `takes_file`.

    Raises:
        InputError: It is not what a takes file holds.
    """
    if not file.is_file():
        return Choices()
    with file.open("rb") as reader:
        data = read(reader.read(MOST_BYTES + 1).decode("utf-8", "surrogateescape"), str(file)).data
    try:
        found = TakesFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{file}: {where}: {first['msg']}. The file must contain takes as in {{'each[A-17].picture': 2}}."
        ) from None
    for address, take in found.takes.items():
        if not _ADDRESS.fullmatch(address) or take < 1:
            raise InputError(
                f"{file}: {address}: {take} is not a valid take; write a number of 1 or more, as in "
                "'each[A-17].picture': 2."
            )
    choices = {address: choice.model_dump(exclude_none=True) for address, choice in found.choices.items()}
    return Choices(found.takes, choices)


def add_choices(file: Path, takes: Mapping[str, int], choices: Mapping[str, Mapping[str, Any]] | None = None) -> bool:
    """Adds takes and choices to a takes file. Entries that other commands add at the same time are kept.

    Args:
        file: See `takes_file`.
        takes: See `Choices`; a take that is used without an entry gets none.
        choices: See `Choices`.

    Returns:
        Whether the file has changed.

    Raises:
        InputError: It is not what a takes file holds.
        StoreError: It cannot be written.
    """
    try:
        with _locked(file):
            found = read_choices(file)
            others = {address: take for address, take in takes.items() if found.take_of(address) != take}
            changed = Choices({**found.takes, **others}, {**found.choices, **(choices or {})})
            if changed == found:
                return False
            _write(file, changed)
            return True
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written: {error.strerror or error}. Nothing was paid for the takes and choices that are "
            "not recorded there. What to do: make the folder writable, or run a copy of the pipeline in another folder."
        ) from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = file.with_name(f".{file.name}.lock")
    held = lock_file(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _write(file: Path, choices: Choices) -> None:
    found = {"takes": dict(choices.takes), "choices": {name: dict(one) for name, one in choices.choices.items()}}
    data = {name: value for name, value in found.items() if value}
    head = "# Decisions about this pipeline's results. Delete a line to return to the earlier result.\n"
    write_atomic(file, (head + yaml.safe_dump(data, allow_unicode=True, sort_keys=True)).encode())
