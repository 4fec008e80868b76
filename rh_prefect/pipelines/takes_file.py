"""The takes file next to a pipeline's file: the user's takes and choices for individual results."""

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
from rh_prefect.pipelines.yaml_reader import read

_ADDRESS = re.compile(r"[A-Za-z][\w.-]*(?:\[.+\]\.[\w-]+)?", re.DOTALL)


@dataclass
class Choices:
    """A user's decisions about individual results."""

    # The first take of a step or of one item's step, by its address
    takes: Mapping[str, int] = field(default_factory=dict)
    # Choices at reviews, by address: `of` identifies the shown candidates, `take` the chosen one; `text` corrects it
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    new: Collection[str] = ()  # Steps whose next take is made, by step or address; `*` for all paid steps
    # For a take of an item without an id, by address: a hash that identifies the item; see `Frame.meaning`
    items: Mapping[str, str] = field(default_factory=dict)
    # The takes of these items, by the path of the step and the item
    by_item: Mapping[tuple[str, str], int] = field(default_factory=dict, compare=False)
    given: Collection[str] = ()  # Addresses of the takes that a command or a run was given

    def take_of(self, address: str, item: str = "") -> int:
        """Returns the take to use for a step or for one item's step."""
        path = step_of(address)
        if address not in self.given and (path, item) in self.by_item:
            return self.by_item[path, item]
        has_own = address in self.takes and (address not in self.items or address in self.given)
        return self.takes[address] if has_own else self.takes.get(path, 1)

    @property
    def bare(self) -> set[str]:
        """The addresses in the takes file that have no hash of their item."""
        return self.takes.keys() - self.items.keys() - set(self.given)


class Choice(BaseModel):
    """The answer to one review: the id of its candidates, and the chosen number or a corrected text."""

    model_config = ConfigDict(extra="forbid")

    of: str
    take: int | None = Field(None, ge=1)
    text: str | None = None


class ItemTake(BaseModel):
    """The take of an item without an id: its number, and a hash of the item."""

    model_config = ConfigDict(extra="forbid")

    take: int = Field(ge=1)
    of: str


class TakesFile(BaseModel):
    """The content of `<pipeline>.takes.yaml`, which a person can commit or delete."""

    model_config = ConfigDict(extra="forbid")

    takes: dict[str, int | ItemTake] = Field(default_factory=dict)
    choices: dict[str, Choice] = Field(default_factory=dict)


def step_of(address: str) -> str:
    """Returns the step in an address: `each.picture` for `each[A-17].picture`."""
    return re.sub(r"\[.*\]", "", address, flags=re.DOTALL)


def takes_file(pipeline: Path) -> Path:
    """Returns the path of the takes file that belongs to a pipeline's file."""
    return pipeline.with_suffix(".takes.yaml")


def read_choices(file: Path | None) -> Choices:
    """Returns the takes and choices in a takes file; returns empty `Choices` if the file does not exist."""
    if file is None or not file.is_file():
        return Choices()
    data = read(file.read_bytes().decode("utf-8", "surrogateescape"), str(file), is_data=True).data
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if value is not None}  # after its lines were deleted
    try:
        found = TakesFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{file}: {where}: {first['msg']}. What to do: write takes as in {{'each[A-17].picture': 2}}."
        ) from None
    items = {address: one.of for address, one in found.takes.items() if isinstance(one, ItemTake)}
    takes = {address: one.take if isinstance(one, ItemTake) else one for address, one in found.takes.items()}
    for address, take in takes.items():
        if not _ADDRESS.fullmatch(address) or take < 1:
            raise InputError(
                f"{file}: {address}: {take} is not a valid take. What to do: write a step and a number above 0, as in "
                "'each[A-17].picture': 2."
            )
    choices = {address: choice.model_dump(exclude_none=True) for address, choice in found.choices.items()}
    by_item = {(step_of(address), item): takes[address] for address, item in items.items()}
    return Choices(takes, choices, items=items, by_item=by_item)


def add_choices(
    file: Path,
    takes: Mapping[str, int],
    choices: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    items: Mapping[str, str] | None = None,
) -> bool:
    """Adds takes and choices to a takes file. Entries that other commands add at the same time are kept."""
    try:
        with _locked(file):
            found, now = read_choices(file), items or {}
            others = {one: take for one, take in takes.items() if found.take_of(one, now.get(one, "")) != take}
            moved = _moved(found, now) if others else found
            meant = {one: now[one] for one in others if one in now}
            changed = Choices(
                {**moved.takes, **others}, {**found.choices, **(choices or {})}, items={**moved.items, **meant}
            )
            if changed == found:
                return False
            _write(file, changed)
            return True
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written: {error.strerror or error}. Nothing was paid for the takes and choices that "
            "could not be recorded there. What to do: make the folder writable, or run a copy of the pipeline in "
            "another folder."
        ) from error


def _moved(found: Choices, now: Mapping[str, str]) -> Choices:
    """Returns takes with the current numbers of their items, so that no take of another item is replaced."""
    addresses = {(step_of(address), item): address for address, item in now.items()}
    names = {one: addresses.get((step_of(one), item), one) for one, item in found.items.items()}
    order = sorted(found.takes, key=lambda one: one in found.items and names[one] in now and names[one] != one)
    takes = {names.get(one, one): found.takes[one] for one in order}
    return Choices(takes, found.choices, items={names[one]: found.items[one] for one in order if one in names})


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
    takes = {
        one: {"take": n, "of": choices.items[one]} if one in choices.items else n for one, n in choices.takes.items()
    }
    found = {"takes": takes, "choices": {name: dict(one) for name, one in choices.choices.items()}}
    data = {name: value for name, value in found.items() if value}
    head = "# Decisions about this pipeline's results. Delete a line to return to the earlier result.\n"
    write_atomic(file, (head + yaml.safe_dump(data, allow_unicode=True, sort_keys=True)).encode())
