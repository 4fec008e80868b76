"""The identity of requests and calls: hashes of requests, keys of jobs, and the addresses of calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


def media_mark(sha256: str) -> str:
    """Returns a placeholder for a file in a job's payload, made from its content and not its address."""
    return f"sha256:{sha256}"


def file_mark(sha256: str) -> str:
    """Returns a placeholder for a file that a workflow's loader node takes by name instead of by link."""
    return f"file-sha256:{sha256}"


def marked(value: object) -> str | None:
    """Returns the sha256 in a `media_mark`; None for any other value."""
    if isinstance(value, str) and value.startswith("sha256:"):
        return value.removeprefix("sha256:")
    return None


def base_hash(*, site: str, endpoint: str, payload: Mapping[str, object]) -> str:
    """Hashes the request of a call; equal requests have equal hashes.

    Args:
        site: RunningHub's host; the two sites have separate accounts and tasks.
        endpoint: Path below `/openapi/v2/`.
        payload: The request's parameters, files as `media_mark`s.

    Returns:
        40 hex digits. The account is not included, so that a new key or a pool of keys makes no new job.
    """
    content = {"site": site, "endpoint": endpoint, "payload": _plain(payload)}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _hash(text)[:40]


def _plain(value: object) -> object:
    """Returns JSON data with 5 for 5.0, so that both spellings have one hash."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def graph_base(base: str, graph: str) -> str:
    """Hashes a call together with the graph that the site has for it; 40 hex digits.

    Args:
        base: Hash of the call.
        graph: The graph's fingerprint; empty where the call alone determines the result.
    """
    return _hash(f"{base}/{graph}")[:40] if graph else base


REQUEST_DIGITS = 12
"""Digits of a job's key that identify the request; the others identify the position in the run."""


def request_id(base: str, label: str | None) -> str:
    """Returns the common prefix of the keys of all equal requests under one label in a scope; 12 hex digits."""
    return _hash(json.dumps([base, label]))[:REQUEST_DIGITS]


def job_key(request: str, address: str) -> str:
    """Returns the key of a job from the address of its first call; 24 hex digits.

    Args:
        request: See `request_id`.
        address: The address's digest, 12 hex digits.
    """
    return request + address


def other_job_key(request: str, address: str, again: int) -> str:
    """Returns the key of a job whose address was used by another job before; 24 hex digits."""
    return request + _hash(f"{address}/{again}")[:REQUEST_DIGITS]


def reused_key(request: str) -> str:
    """Returns the key of the one job that equal requests of a scope may share; 24 hex digits."""
    return request + _hash("reuse")[:REQUEST_DIGITS]


def explicit_key(key: str) -> str:
    """Returns the key of a job from the caller's own idempotency key; 24 hex digits."""
    return _hash(f"key/{key}")[:24]


def uri_hash(uri: str) -> str:
    """Returns the key part of an input's record, a hash of 24 hex digits."""
    return _hash(uri)[:24]


def _hash(text: str) -> str:
    # A file name may not be UTF-8, and a text may end within a surrogate pair.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Likeness = Literal["same", "other", "unclear"]
"""Whether two descriptions are equal, differ, or cannot be compared."""


class Place(BaseModel):
    """The position of a call among the calls with the same name in one run.

    Attributes:
        in_order: Whether the run itself makes its calls one after the other, so that the number is the same each time;
            False for calls from asyncio tasks and threads of the caller's own, and where that is unknown.
        given: Hash of the arguments of the call; None where they cannot be compared.
        number: Which of the calls of this name and with these arguments it is, from 1. Outside of program order each
            asyncio task or thread of the caller has its own count.
        concurrent: Prefect's number of a child flow that is called outside of program order, from 1; 0 for all others.
            It counts the calls of all asyncio tasks and threads, so it may differ in each attempt: it keeps the
            addresses of calls in one attempt apart, but finds no call of an earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    in_order: bool = False
    given: str | None = None
    number: int = 1
    concurrent: int = 0

    @model_serializer(mode="wrap")
    def _serialize(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without it where there is none, so that the digests of all other addresses stay what they are.
        return {name: value for name, value in default(self).items() if name != "concurrent" or value}

    def likeness(self, other: Place) -> Likeness:
        """Compares two positions of calls with the same names, and returns their similarity."""
        if self.in_order != other.in_order or self.given != other.given:
            return "unclear"
        if self.number == other.number:
            return "same" if self.in_order else "unclear"
        return "unclear" if self.given is None else "other"


class Step(BaseModel):
    """One Prefect run between the root flow run and a paid call.

    Attributes:
        name: Name of the flow or task.
        place: Which of the calls of this name in the run around it this is.
        arguments: Parameter -> hash of its value; None for a value that cannot be compared.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    place: Place = Place()
    arguments: Mapping[str, str | None] = Field(default_factory=dict)


class Address(BaseModel):
    """The position of a paid call in its run.

    Attributes:
        steps: The runs between the root flow run and the call, outermost first.
        place: The call's own place in the innermost of them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: tuple[Step, ...] = ()
    place: Place = Place()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the runs, outermost first."""
        return tuple(step.name for step in self.steps)

    @property
    def is_repeatable(self) -> bool:
        """Whether the call has this address in each attempt."""
        return not any(step.place.concurrent for step in self.steps)

    @property
    def digest(self) -> str:
        """A hash of the address; 12 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def places_like(self, other: Address) -> Likeness:
        """Compares the positions of the runs and the call; requires equal names."""
        return _whole(self._compare_places(other))

    def is_beside(self, other: Address) -> bool:
        """Whether both are in the same run, at different positions; requires equal names."""
        first = next((part for part in self._compare_places(other) if part != "same"), "same")
        return first == "other"

    def has_another_number_than(self, other: Address) -> bool:
        """Whether a number differs that is the same in each attempt; requires the same number of runs."""
        mine, its = ([*(step.place for step in one.steps), one.place] for one in (self, other))
        # Calls that are neither in program order nor counted by their arguments are numbered as they happen to come.
        # An asyncio task may call a child flow that another task called in the attempt before.
        return any(
            place.number != place_of_other.number
            and (place.in_order or place.given is not None)
            and not (place.concurrent or place_of_other.concurrent)
            for place, place_of_other in zip(mine, its, strict=True)
        )

    def arguments_like(self, other: Address, *, common_only: bool) -> Likeness:
        """Compares the arguments of the runs; requires the same number of runs.

        Args:
            other: The other address.
            common_only: Whether parameters that only one side has are ignored, as after an edit that adds a default.
        """
        pairs = zip(self.steps, other.steps, strict=True)
        return _whole(
            [_arguments_like(step.arguments, other_step.arguments, common_only) for step, other_step in pairs]
        )

    def _compare_places(self, other: Address) -> list[Likeness]:
        steps = zip(self.steps, other.steps, strict=True)
        parts = [step.place.likeness(other_step.place) for step, other_step in steps]
        return [*parts, self.place.likeness(other.place)]

    def __str__(self) -> str:
        """The path to the call, as in `branch #2 > call #1`; `?` marks a number outside of program order."""
        return " > ".join(
            [*(f"{step.name} {_number(step.place)}" for step in self.steps), f"call {_number(self.place)}"]
        )


def _arguments_like(
    arguments: Mapping[str, str | None], others: Mapping[str, str | None], common_only: bool
) -> Likeness:
    if not common_only and arguments.keys() != others.keys():
        return "other"
    common = arguments.keys() & others.keys()
    comparable = [name for name in common if arguments[name] is not None and others[name] is not None]
    if any(arguments[name] != others[name] for name in comparable):
        return "other"
    return "same" if len(comparable) == len(common) else "unclear"


def _whole(parts: list[Likeness]) -> Likeness:
    if "other" in parts:
        return "other"
    return "unclear" if "unclear" in parts else "same"


def _number(place: Place) -> str:
    return f"#{place.number}" if place.in_order else f"#{place.number}?"


def work_id(base: str, take: int, scope: str = "") -> str:
    """Returns the id of a work: one request with one take, in one scope; 40 hex digits.

    Args:
        base: The request's hash.
        take: Which result of the request, from 1.
        scope: The round that it belongs to; empty for a work that all runs share.
    """
    name = f"{base}/{take}/{scope}" if scope else f"{base}/{take}"
    return hashlib.sha256(name.encode()).hexdigest()[:40]
