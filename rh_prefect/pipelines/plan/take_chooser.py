"""Chooses the takes of steps: takes in the takes file, new takes, and takes that `reuse` allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rh_prefect.pipelines.plan.planned_steps import KnownWork, KnownWorks, Round, Selection, WorkQuery
from rh_prefect.pipelines.plan.size_limits import count_of
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.pipelines.plan.undecided_steps import FindingsOf
from rh_prefect.pipelines.planning_values import digest
from rh_prefect.pipelines.takes_file import Choices
from rh_prefect.works.journal.identity import work_id
from rh_prefect.works.journal.scope import last_number

_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def query_of(draft: Draft, take: int) -> WorkQuery | None:
    """Returns the query for the records of a take; None if the request is not known."""
    if not draft.is_settled:
        return None
    if not draft.endpoint:
        return WorkQuery(draft.base, is_edit=True)
    return WorkQuery(work_id(draft.base, take, draft.scope), draft.instance.shape)


def _choice(draft: Draft, takes: Sequence[int]) -> str:
    """Returns the key of the record of the takes of an item with `same: separate`."""
    one = draft.instance
    item = one.item_meaning or one.item
    return f"separate-{digest([one.path, item, draft.base, draft.scope, takes[0], len(takes)])}"


class EqualRequests:
    """The takes of several items with equal requests, for `same: separate`.

    A run keeps these takes in all its plans, because an item whose input changes later must not use another item's
    result.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], set[int]] = {}
        self._takes: dict[tuple[str, str, str, int], int] = {}
        self._next: dict[tuple[str, str, int], int] = {}
        self.repeated: dict[str, dict[str, None]] = {}  # by step: items whose request equals that of an earlier item

    def first_take(self, draft: Draft, first: int, size: int, kept: int | None = None) -> int:
        """Returns the first of `size` takes, not below `first`, that no other item with an equal request has.

        Returns `kept`, the take that an earlier run has chosen for the item, if no other item has it.
        """
        path, address = draft.instance.path, draft.instance.address
        name, begin = (path, draft.base, address, first), (path, draft.base, first)
        if name not in self._takes:
            held, take = self._held.setdefault((path, draft.base), set()), self._next.get(begin, first)
            if kept is not None and held.isdisjoint(range(kept, kept + size)):
                take = kept
            else:
                while not held.isdisjoint(range(take, take + size)):
                    take += 1
                self._next[begin] = take + size
            held.update(range(take, take + size))
            if take > first:
                self.repeated.setdefault(path, {})[draft.instance.row or address] = None
            self._takes[name] = take
        return self._takes[name]


@dataclass(frozen=True, slots=True)
class TakeChooser:
    """Chooses the takes of steps that are planned together."""

    known: KnownWorks
    choices: Choices
    findings_of: FindingsOf
    selection: Selection
    equal: EqualRequests
    pipeline: str
    scope: str

    async def choose(self, drafts: Sequence[Draft]) -> list[list[int]]:
        """Returns the take numbers of each draft, and sets the scopes of the drafts' works."""
        for draft in drafts:
            draft.scope = self.scope if draft.endpoint else ""
        asking = [one for one in drafts if one.endpoint and (one.instance.reuse != "always" or self._wants_new(one))]
        found = dict(zip(map(id, asking), await asyncio.gather(*map(self._of_records, asking)), strict=True))
        takes = {id(one): found.get(id(one)) or self._configured_takes(one) for one in drafts}
        apart = [one for one in drafts if one.endpoint and one.instance.step.get("same") == "separate"]
        late = [one for one in apart if one.instance.item and one.is_settled and not one.is_in_order]
        # Items of equal rows have one choice, which is that of the first one
        choices = {_choice(one, takes[id(one)]): id(one) for one in reversed(late) if not self._wants_new(one)}
        noted = await asyncio.gather(*map(self.known.takes_of, choices))
        kept = {one: chosen[0] for one, chosen in zip(choices.values(), noted, strict=True) if chosen is not None}
        for one in sorted(apart, key=lambda one: id(one) not in kept):
            takes[id(one)] = self._apart(one, takes[id(one)], kept.get(id(one)))
        new = [(choice, takes[one]) for choice, one in choices.items() if one not in kept]
        await asyncio.gather(*(self.known.keep_takes(choice, chosen) for choice, chosen in new))
        return [takes[id(one)] for one in drafts]

    def _apart(self, draft: Draft, takes: list[int], kept: int | None) -> list[int]:
        """Returns takes that no other item with an equal request has."""
        first = self.equal.first_take(draft, takes[0], len(takes), kept)
        new = self.findings_of(draft.instance.numbers).new_takes
        if draft.instance.address in new:
            new[draft.instance.address] = first
        return [first + number for number in range(len(takes))]

    async def _of_records(self, draft: Draft) -> list[int]:
        reuse, takes = draft.instance.reuse, self._configured_takes(draft)
        if reuse == "always":
            return await self._new(draft, takes)
        current = await self.known.round(self.pipeline)
        if current.note:
            self._note(draft, f"{draft.instance.path} has reuse: {reuse}; {current.note}.")
        if reuse == "never":
            draft.scope = current.scope
        takes = await self._new(draft, takes)
        return takes if reuse == "never" else await self._fresh(draft, takes, reuse, current)

    def _note(self, draft: Draft, note: str) -> None:
        self.findings_of(draft.instance.numbers).notes[note] = None

    def _configured_takes(self, draft: Draft) -> list[int]:
        instance = draft.instance
        number, _ = count_of("takes", instance.step.get("takes"), draft.frame)
        first = self.choices.take_of(instance.address, instance.item_meaning)
        return list(range(first, first + (number or 1)))

    async def _new(self, draft: Draft, takes: list[int]) -> list[int]:
        """Returns the takes of a step; if the step is made again, these begin with a take that was never submitted."""
        if not self._wants_new(draft):
            return takes
        first = await self.known.new_take(draft.base, draft.scope)
        self.findings_of(draft.instance.numbers).new_takes[draft.instance.address] = first
        return [first + number for number in range(len(takes))]

    def _wants_new(self, draft: Draft) -> bool:
        """Returns whether a step is made again."""
        one, selection = draft.instance, self.selection
        names = {one.path, one.address}
        if one.item or not (selection.items or selection.sample):
            names.add("*")  # a new result of a step that the selected items share would change the other items
        return draft.is_settled and not names.isdisjoint(self.choices.new) and selection.has(one)

    async def _fresh(self, draft: Draft, takes: list[int], reuse: str, current: Round) -> list[int]:
        """Returns as many takes as given, none of them older than `reuse` allows. A round chooses these takes once."""
        if not draft.is_settled or self._wants_new(draft):
            return takes
        choice = f"{current.scope}-{draft.base}-{reuse}-{takes[0]}x{len(takes)}"
        chosen = await self.known.takes_of(choice)
        if chosen is None:
            chosen = await self.known.keep_takes(choice, await self._allowed(draft, takes, reuse, current))
        return list(chosen)

    async def _allowed(self, draft: Draft, takes: list[int], reuse: str, current: Round) -> list[int]:
        """Returns the newest takes that `reuse` allows, from the given take on; new takes replace forbidden ones."""
        first, size = takes[0], len(takes)

        async def is_begun(number: int) -> bool:
            # Some takes of a run that ended early may be missing, but never as many as a step has.
            start = first + number - 1
            return any([await self._find(draft, take) is not None for take in range(start, start + size)])

        last = first + await last_number(is_begun) - 1
        newest = range(max(first, last - size + 1), last + 1)
        found = [take for take in newest if self._is_fresh(await self._find(draft, take), reuse, draft, current)]
        return [*found, *range(last + 1, last + 1 + size - len(found))]

    async def _find(self, draft: Draft, take: int) -> KnownWork | None:
        query = query_of(draft, take)
        (known,) = await self.known.find([query]) if query is not None else (None,)
        return None if known is None or known.state == "+" else known

    def _is_fresh(self, known: KnownWork | None, reuse: str, draft: Draft, current: Round) -> bool:
        """Returns whether a take was new enough when the round began; without a result, it always counts as new."""
        if known is None or known.state != "=" or known.age is None:
            return True
        if known.age < 0:
            self._note(draft, f"{draft.instance.address}: its record has a time in the future and is treated as new.")
        since = (datetime.now(UTC) - current.began).total_seconds()
        return known.age - since <= int(reuse[:-1]) * _SECONDS[reuse[-1]]
