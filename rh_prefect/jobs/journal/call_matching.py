"""Matches a paid call with one of the records of its request. No I/O; tested with a table of cases.

A call takes the first record that fits; each record is taken once in an attempt of the run:

1. the same address;
2. the same names and equal arguments, where only one record is left that fits, or one that also has the same place;
3. the same names and the same place, where the arguments of one side cannot be compared;
4. the only address that ever asked for this request, where the flow's version differs, or the names are the same and
   no arguments are others: the call has moved;
5. another version of the flow: other names, equal arguments: a run was renamed.

Where records are left that may be the call's own, it is refused; otherwise it is a new job. Of calls with equal
arguments the number decides: the second one never takes what the first one has paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rh_prefect.jobs.journal.identity import Address, Likeness

Equal = Literal["refuse", "by place", "by order", "new"]
"""What becomes of a call that may be one of several recorded ones."""

Verdict = Literal["found", "moved", "renamed", "new", "unclear", "repeated"]


@dataclass(frozen=True, slots=True)
class Known:
    """One recorded call of a request.

    Attributes:
        key: The job's key.
        address: Where the call was made.
        version: Version of the flow that made it.
        order: Which of the calls of this request it was when it was recorded, from 1.
        is_taken: Whether another call of this attempt has taken it.
        is_elsewhere: Whether another process of this attempt made it; then only the same address finds it.
    """

    key: str
    address: Address
    version: str = ""
    order: int = 1
    is_taken: bool = False
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """What was found for a call.

    Attributes:
        verdict: `found`, `moved` and `renamed` have a record; `new` is a new job; `unclear` may be one of several
            recorded calls; `repeated` has the address of another call of this attempt.
        record: The record that the call takes, or that stands in its way.
    """

    verdict: Verdict
    record: Known | None = None


def find_record(call: Address, known: Sequence[Known], *, version: str, equal: Equal = "refuse") -> Match:
    """Finds the record that belongs to a call.

    Args:
        call: Where the call is made.
        known: The recorded calls with its request and label.
        version: Version of the flow that makes the call.
        equal: What to do where several records may be its own.
    """
    exact = next((one for one in known if one.address == call), None)
    if exact is not None:
        return Match("repeated" if exact.is_taken else "found", exact)
    free = [_compare(call, one, version) for one in known if not (one.is_taken or one.is_elsewhere)]
    alike = [one for one in free if one.has_names]
    same = [one for one in alike if one.arguments == "same" and one.place != "other"]
    if found := _only(same):
        return Match("found", found)
    if found := _only([one for one in alike if one.arguments == "unclear" and one.place == "same"]):
        return Match("found", found)
    if len(known) == 1 and free and not free[0].is_another_call:
        if free[0].may_have_moved:
            return Match("moved", free[0].known)
        return _settle(free, equal)
    renamed = [one for one in free if one.is_edited and not one.has_names and one.place != "other"]
    if found := _only([one for one in renamed if one.arguments == "same"]):
        return Match("renamed", found)
    possible = [one for one in free if one.may_be_this_call]
    return _settle(possible, equal) if possible else Match("new")


@dataclass(frozen=True, slots=True)
class _Compared:
    """A free record, compared with a call."""

    known: Known
    has_names: bool
    arguments: Likeness
    place: Likeness
    is_beside: bool
    has_another_number: bool
    is_edited: bool

    @property
    def is_another_call(self) -> bool:
        """Whether the record is certainly of another call: same arguments, but another number among such calls."""
        if self.arguments == "unclear":
            # A run around both has arguments that cannot be compared, and is the same one by its place.
            return self.is_beside and not self.is_edited
        return self.has_names and self.arguments == "same" and self.place == "other"

    @property
    def may_have_moved(self) -> bool:
        """Whether only the call's position or the program changed; if not, it may be another task's call."""
        return self.is_edited or (self.has_names and self.arguments != "other")

    @property
    def may_be_this_call(self) -> bool:
        if self.arguments == "other" or self.place == "other":
            return False
        return self.is_edited or (self.has_names and not self.has_another_number)


def _compare(call: Address, known: Known, version: str) -> _Compared:
    there, is_edited = known.address, known.version != version
    is_as_deep = len(there.steps) == len(call.steps)
    has_names = there.names == call.names
    return _Compared(
        known=known,
        has_names=has_names,
        arguments=call.arguments_like(there, common_only=is_edited) if is_as_deep else "unclear",
        place=call.places_like(there) if is_as_deep else "unclear",
        is_beside=has_names and call.is_beside(there),
        has_another_number=is_as_deep and call.numbers != there.numbers,
        is_edited=is_edited,
    )


def _only(found: list[_Compared]) -> Known | None:
    """The one that fits: the only one, or of several the only one at the same place."""
    here = [one for one in found if one.place == "same"]
    for some in (here, found):
        if len(some) == 1:
            return some[0].known
    return None


def _settle(possible: list[_Compared], equal: Equal) -> Match:
    match equal:
        case "refuse":
            return Match("unclear", possible[0].known)
        case "new":
            return Match("new")
        case "by place":
            here = [one.known for one in possible if one.place == "same"]
        case "by order":
            here = sorted((one.known for one in possible), key=lambda one: (one.order, one.key))
    return Match("found", here[0]) if here else Match("new")
