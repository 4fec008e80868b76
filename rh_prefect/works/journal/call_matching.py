"""Matches a paid call with the record of the same call in an earlier attempt. No I/O; tested with a table of cases.

A call takes the first record that fits; each record is taken once in an attempt of the run:

1. the same address, if it is the same in each attempt;
2. the same names and equal arguments, where only one record fits, or only one of these has the same place;
3. the same names and the same place, where the arguments of one side cannot be compared;
4. the only recorded address of this request, if the flow's version differs, or if the names are the same and no
   arguments differ: the call has moved;
5. another version of the flow: other names, equal arguments: a run was renamed.

If other records may belong to the call, it is refused; otherwise it is a new job. Among calls with equal arguments
the number decides: the second one never takes the job that the first one paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rh_prefect.works.journal.identity import Address, Likeness

Equal = Literal["refuse", "by place", "by order", "new"]
"""How to handle a call that may be one of several recorded calls."""

Verdict = Literal["found", "moved", "renamed", "new", "unclear", "repeated"]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One recorded call of a request.

    Attributes:
        key: The job's key.
        address: Where the call was made.
        version: Version of the flow that made it.
        order: Which of the calls of this request it was when it was recorded, from 1.
        taken_at: Where the call was made that has taken it in this attempt; None if it is free.
        is_elsewhere: Whether another process of this attempt made it; then only the same address finds it.
    """

    key: str
    address: Address
    version: str = ""
    order: int = 1
    taken_at: Address | None = None
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The result of the search for a call's record.

    Attributes:
        verdict: `found`, `moved` and `renamed` have a record; `new` is a new job; `unclear` may be one of several
            recorded calls; `repeated` has the address of another call of this attempt.
        record: The record that the call takes, or that conflicts with it.
    """

    verdict: Verdict
    record: RecordedCall | None = None


def find_record(call: Address, records: Sequence[RecordedCall], *, version: str, equal: Equal = "refuse") -> Match:
    """Finds the record that belongs to a call.

    Args:
        call: Where the call is made.
        records: The recorded calls with its request and label.
        version: Version of the flow that makes the call.
        equal: How to handle several records that may belong to the call.
    """
    taken = next((record for record in records if record.taken_at == call), None)
    if taken is not None and equal == "refuse":
        return Match("repeated", taken)
    exact = next((record for record in records if record.address == call), None)
    if exact is not None and call.is_repeatable:
        return Match("found" if exact.taken_at is None else "repeated", exact)
    free = [
        _compare(call, record, version) for record in records if record.taken_at is None and not record.is_elsewhere
    ]
    alike = [compared for compared in free if compared.has_names]
    same = [compared for compared in alike if compared.arguments == "same" and compared.place != "other"]
    if record := _only(same):
        return Match("found", record)
    unclear = [compared for compared in alike if compared.arguments == "unclear" and compared.place == "same"]
    if record := _only(unclear):
        return Match("found", record)
    if len(records) == 1 and free and not free[0].is_another_call:
        if free[0].may_have_moved:
            return Match("moved", free[0].record)
        return _settle(free, equal)
    edited = [compared for compared in free if compared.is_edited and not compared.has_names]
    renamed = [compared for compared in edited if compared.arguments == "same" and compared.place != "other"]
    if record := _only(renamed):
        return Match("renamed", record)
    possible = [compared for compared in free if compared.may_be_this_call]
    return _settle(possible, equal) if possible else Match("new")


@dataclass(frozen=True, slots=True)
class _Compared:
    """A free record, compared with a call."""

    record: RecordedCall
    has_names: bool
    arguments: Likeness
    place: Likeness
    is_beside: bool
    has_another_number: bool
    is_repeatable: bool
    is_edited: bool

    @property
    def is_another_call(self) -> bool:
        """Whether the record is certainly of another call: same arguments, but another number among such calls."""
        if self.arguments == "unclear":
            # A run that contains both has arguments that cannot be compared; its place identifies it.
            return self.is_beside and not self.is_edited
        return self.has_names and self.arguments == "same" and self.place == "other"

    @property
    def may_have_moved(self) -> bool:
        """Whether only the call's position or the program changed; if not, it may be another task's call."""
        return self.is_edited or (self.has_names and self.arguments != "other")

    @property
    def may_be_this_call(self) -> bool:
        if self.arguments == "other" or (self.place == "other" and self.is_repeatable):
            return False
        return self.is_edited or (self.has_names and not self.has_another_number)


def _compare(call: Address, record: RecordedCall, version: str) -> _Compared:
    recorded, is_edited = record.address, record.version != version
    is_as_deep = len(recorded.steps) == len(call.steps)
    has_names = recorded.names == call.names
    return _Compared(
        record=record,
        has_names=has_names,
        arguments=call.arguments_like(recorded, common_only=is_edited) if is_as_deep else "unclear",
        place=call.places_like(recorded) if is_as_deep else "unclear",
        is_beside=has_names and call.is_beside(recorded),
        has_another_number=is_as_deep and call.has_another_number_than(recorded),
        is_repeatable=call.is_repeatable and recorded.is_repeatable,
        is_edited=is_edited,
    )


def _only(candidates: list[_Compared]) -> RecordedCall | None:
    """Returns the only candidate; of several, the only one at the same position."""
    at_place = [compared for compared in candidates if compared.place == "same"]
    for group in (at_place, candidates):
        if len(group) == 1:
            return group[0].record
    return None


def _settle(possible: list[_Compared], equal: Equal) -> Match:
    match equal:
        case "refuse":
            return Match("unclear", possible[0].record)
        case "new":
            return Match("new")
        case "by place":
            records = [compared.record for compared in possible if compared.place == "same"]
        case "by order":
            records = sorted((compared.record for compared in possible), key=lambda record: (record.order, record.key))
    return Match("found", records[0]) if records else Match("new")
