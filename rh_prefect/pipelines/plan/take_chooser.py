"""Chooses the takes of steps: takes in the takes file, new takes, and takes that `reuse` allows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rh_prefect.pipelines.plan.part_data import Findings
from rh_prefect.pipelines.plan.planned_steps import KnownWork, Round, WorkQuery
from rh_prefect.pipelines.plan.size_limits import count_of
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.pipelines.planning_values import digest
from rh_prefect.works.journal.identity import work_id
from rh_prefect.works.journal.scope import last_number

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.planning import Planning

_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def query_of(draft: Draft, take: int) -> WorkQuery:
    """Returns the query for the records of a take of a request that is known."""
    if not draft.endpoint:
        return WorkQuery(draft.base, is_edit=True)
    return WorkQuery(work_id(draft.base, take, draft.scope), draft.instance.shape)


def _choice(draft: Draft) -> str:
    """Returns the key of the record of the takes of an item with `same: separate`."""
    one, takes = draft.instance, draft.takes
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

    def hold(self, draft: Draft, recorded: int) -> bool:
        """Gives a draft the first take that is recorded for it; returns False if an equal request has this take."""
        held = self._held.setdefault((draft.instance.path, draft.base), set())
        if self._name(draft) not in self._takes and not held.isdisjoint(range(recorded, recorded + len(draft.takes))):
            return False
        self._give(draft, recorded)
        return True

    def take_next(self, draft: Draft, first: int) -> None:
        """Gives a draft as many takes as it has that no equal request has.

        The items have the takes from the step's `first` one on, in order. An item that begins with another take, such
        as a new one, keeps its place in this order, so that the takes of the other items stay the same.
        """
        path, own, size = draft.instance.path, draft.takes[0], len(draft.takes)
        begin, order = (path, draft.base, own), (path, draft.base, first)
        held, take = self._held.setdefault((path, draft.base), set()), self._next.get(begin, own)
        if self._name(draft) not in self._takes:
            while not held.isdisjoint(range(take, take + size)):
                take += 1
            self._next[order] = self._next.get(order, first) + size
            self._next[begin] = take + size
        self._give(draft, take)

    def free(self, draft: Draft, own: int) -> None:
        """Takes the takes from a draft again, which began with the take `own`."""
        path, take, begin = draft.instance.path, draft.takes[0], (draft.instance.path, draft.base, own)
        self._held[path, draft.base].difference_update(draft.takes)
        self._next[begin] = min(take, self._next.get(begin, take))
        draft.begin_with(own)
        self._takes.pop(self._name(draft), None)

    def _give(self, draft: Draft, take: int) -> None:
        one, own, name = draft.instance, draft.takes[0], self._name(draft)
        draft.begin_with(self._takes.setdefault(name, take))
        self._held[one.path, draft.base].update(draft.takes)
        if draft.takes[0] > own:
            self.repeated.setdefault(one.path, {})[one.row or one.address] = None

    @staticmethod
    def _name(draft: Draft) -> tuple[str, str, str, int]:
        return draft.instance.path, draft.base, draft.instance.address, draft.takes[0]


class TakeChooser:
    """Chooses the takes of steps that are planned together."""

    def __init__(self, planning: Planning, findings: Findings) -> None:
        self._planning, self._known, self._findings = planning, planning.known, findings

    async def choose(self, drafts: Sequence[Draft]) -> None:
        """Sets the takes of drafts, and the scopes of their works."""
        for draft in drafts:
            draft.scope = (self._planning.checked.file.scope or "") if draft.endpoint else ""
            draft.takes = self._configured_takes(draft)
        asking = [one for one in drafts if one.endpoint and (one.instance.reuse != "always" or self._wants_new(one))]
        await asyncio.gather(*map(self._ask, asking))
        if apart := [one for one in drafts if one.endpoint and one.instance.step.get("same") == "separate"]:
            await self._set_apart(apart)

    async def _set_apart(self, drafts: Sequence[Draft]) -> None:
        """Gives items with equal requests different takes: first the takes that an earlier run chose for an item."""
        late = [one for one in drafts if one.instance.item and one.is_settled and not one.is_in_order]
        choices = {_choice(one): one for one in late if not self._wants_new(one)}
        noted = await asyncio.gather(*map(self._known.takes_of, choices))
        kept = {one: chosen[0] for one, chosen in zip(choices.values(), noted, strict=True) if chosen}
        own = {one: one.takes[0] for one in drafts}
        self._assign(drafts, kept)
        for one in drafts:
            address, new = one.instance.address, self._new_takes(one)
            if address in new:
                new[address] = one.takes[0]
        added = {choice: one for choice, one in choices.items() if one not in kept}
        noted = await asyncio.gather(*(self._known.takes_of(choice, one.takes) for choice, one in added.items()))
        recorded = {one: chosen[0] for one, chosen in zip(added.values(), noted, strict=True) if chosen}
        if any(take != one.takes[0] for one, take in recorded.items()):
            # By a run at the same time. These items have the takes that later runs give them: none is submitted yet.
            for one in recorded:
                self._planning.options.equal.free(one, own[one])
            self._assign(list(recorded), recorded)

    def _assign(self, drafts: Sequence[Draft], recorded: Mapping[Draft, int]) -> None:
        """Gives drafts their recorded takes, then the other drafts takes that are free."""
        equal = self._planning.options.equal
        others = [one for one in drafts if one not in recorded or not equal.hold(one, recorded[one])]
        for one in sorted(others, key=lambda one: one not in recorded):
            equal.take_next(one, self._planning.choices.take_of(one.instance.path))

    async def _ask(self, draft: Draft) -> None:
        """Sets the takes of a draft that depend on the records."""
        reuse = draft.instance.reuse
        if reuse == "always":
            await self._begin_new(draft)
            return
        current = await self._known.round(self._planning.pipeline)
        if current.note:
            self._note(draft, f"{draft.instance.path} has reuse: {reuse}; {current.note}.")
        if reuse == "never":
            draft.scope = current.scope
        await self._begin_new(draft)
        if reuse != "never" and draft.is_settled and not self._wants_new(draft):
            draft.takes = await self._fresh(draft, current)

    def _note(self, draft: Draft, note: str) -> None:
        self._findings.of(draft.instance.numbers).notes[note] = None

    def _new_takes(self, draft: Draft) -> dict[str, int]:
        return self._findings.of(draft.instance.numbers).new_takes

    def _configured_takes(self, draft: Draft) -> list[int]:
        instance = draft.instance
        number, _ = count_of("takes", instance.step.get("takes"), draft.frame)
        first = self._planning.choices.take_of(instance.address, instance.item_meaning)
        return list(range(first, first + (number or 1)))

    async def _begin_new(self, draft: Draft) -> None:
        """Lets the takes of a step that is made again begin with a take that was never submitted."""
        if self._wants_new(draft):
            draft.begin_with(await self._known.new_take(draft.base, draft.scope))
            self._new_takes(draft)[draft.instance.address] = draft.takes[0]

    def _wants_new(self, draft: Draft) -> bool:
        one, selection = draft.instance, self._planning.options.selection
        names = {one.path, one.address}
        if one.item or not (selection.items or selection.sample):
            names.add("*")  # a new result of a step that the selected items share would change the other items
        return draft.is_settled and not names.isdisjoint(self._planning.choices.new) and selection.has(one)

    async def _fresh(self, draft: Draft, current: Round) -> list[int]:
        """Returns as many takes as configured, none older than `reuse` allows. A round chooses these takes once."""
        choice = f"{current.scope}-{draft.base}-{draft.instance.reuse}-{draft.takes[0]}x{len(draft.takes)}"
        chosen = await self._known.takes_of(choice)
        return list(chosen or await self._known.takes_of(choice, await self._allowed(draft, current)))

    async def _allowed(self, draft: Draft, current: Round) -> list[int]:
        """Returns the newest takes that `reuse` allows, from the first take on; new takes replace forbidden ones."""
        first, size = draft.takes[0], len(draft.takes)

        async def is_begun(number: int) -> bool:
            # Some takes of a run that ended early may be missing, but never as many as a step has.
            start = first + number - 1
            return any([await self._find(draft, take) is not None for take in range(start, start + size)])

        last = first + await last_number(is_begun) - 1
        newest = range(max(first, last - size + 1), last + 1)
        found = [take for take in newest if self._is_fresh(await self._find(draft, take), draft, current)]
        return [*found, *range(last + 1, last + 1 + size - len(found))]

    async def _find(self, draft: Draft, take: int) -> KnownWork | None:
        (known,) = await self._known.find([query_of(draft, take)])
        return None if known is None or known.state == "+" else known

    def _is_fresh(self, known: KnownWork | None, draft: Draft, current: Round) -> bool:
        """Returns whether a take was new enough when the round began; without a result, it always counts as new."""
        if known is None or known.state not in ("=", "!") or known.at is None:
            return True
        if known.at > datetime.now(UTC):
            self._note(draft, f"{draft.instance.address}: its record has a time in the future and is treated as new.")
        allowed = draft.instance.reuse
        return (current.began - known.at).total_seconds() <= int(allowed[:-1]) * _SECONDS[allowed[-1]]
