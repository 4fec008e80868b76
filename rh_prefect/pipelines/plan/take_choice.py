"""Chooses the takes of steps: those of the takes file, new ones, and those that `reuse` allows."""

from __future__ import annotations

from itertools import count

from rh_prefect.pipelines.plan.count_settings import count_of
from rh_prefect.pipelines.plan.identity import work_id
from rh_prefect.pipelines.plan.planned_steps import Instance, KnownWork, KnownWorks, Selection, WorkQuery
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.pipelines.takes_file import Choices

_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def query_of(draft: Draft, take: int) -> WorkQuery | None:
    """Returns the query for what is known of a take; None while the request is not known.

    Args:
        draft: The step, with the hash of its request.
        take: The take.
    """
    if not draft.is_settled:
        return None
    if not draft.endpoint:
        return WorkQuery(draft.base, is_edit=True)
    return WorkQuery(work_id(draft.base, take), draft.instance.shape)


class TakeChooser:
    """Chooses the takes of the steps of one plan.

    Attributes:
        new: The first take of each step that is made again, by address.
    """

    def __init__(
        self,
        known: KnownWorks,
        choices: Choices,
        selection: Selection,
        *,
        notes: dict[str, None],
    ) -> None:
        """Chooses nothing yet.

        Args:
            known: Answers what is known of works.
            choices: What a person has decided.
            selection: The part of the plan that is made.
            notes: Takes what is worth knowing.
        """
        self._known, self._choices, self._selection = known, choices, selection
        self._notes = notes
        self.new: dict[str, int] = {}

    async def choose(self, draft: Draft) -> list[int]:
        """Returns the numbers of a step's takes.

        Args:
            draft: The step, with the hash of its request.
        """
        takes = await self._new(draft, self._configured_takes(draft))
        return takes if draft.instance.reuse == "always" else await self._fresh(draft, takes, draft.instance.reuse)

    def _configured_takes(self, draft: Draft) -> list[int]:
        instance = draft.instance
        number, _ = count_of("takes", instance.step.takes, draft.frame)
        first = self._choices.take_of(instance.address, instance.item_meaning)
        return list(range(first, first + (number or 1)))

    async def _new(self, draft: Draft, takes: list[int]) -> list[int]:
        """Returns the takes of a step; of a step to be made again, they begin with one that was never submitted."""
        instance = draft.instance
        if not (instance.is_paid and draft.is_settled and self._wants_new(instance)):
            return takes
        first = await self._known.new_take(draft.base)
        self.new[instance.address] = first
        return [first + number for number in range(len(takes))]

    def _wants_new(self, one: Instance) -> bool:
        """Returns whether a step is to be made again."""
        names, selection = {one.path, one.address}, self._selection
        if one.item or not (selection.items or selection.sample):
            names.add("*")  # a new result of a step that the selected items share would change the other items
        return not names.isdisjoint(self._choices.new) and selection.has(one)

    async def _fresh(self, draft: Draft, takes: list[int], reuse: str) -> list[int]:
        """Returns takes that `reuse` allows, as many as given. A run chooses them once: what it makes stays allowed."""
        if not draft.is_settled or draft.instance.address in self.new:
            return takes
        choice = f"{draft.base}-{reuse}-{takes[0]}x{len(takes)}"
        chosen = await self._known.takes_of(choice)
        if chosen is None:
            chosen = await self._known.keep_takes(choice, await self._allowed(draft, takes, reuse))
        return list(chosen)

    async def _allowed(self, draft: Draft, takes: list[int], reuse: str) -> list[int]:
        """Returns the first takes from the given one on that `reuse` allows; none of them twice."""
        found: list[int] = []
        for number in count(takes[0]):
            if await self._is_allowed(draft, number, reuse):
                found.append(number)
            if len(found) == len(takes):
                return found
        raise AssertionError("a count does not end")

    async def _is_allowed(self, draft: Draft, take: int, reuse: str) -> bool:
        """Returns whether `reuse` allows a take; one without records is always allowed."""
        query = query_of(draft, take)
        (known,) = await self._known.find([query]) if query is not None else (None,)
        return known is None or (reuse != "never" and self._is_fresh(known, reuse, draft))

    def _is_fresh(self, known: KnownWork, reuse: str, draft: Draft) -> bool:
        if known.state != "=" or known.age is None:
            return True
        if known.age < 0:
            self._notes[f"{draft.instance.address}: its record has a time in the future and is treated as new."] = None
        return known.age <= int(reuse[:-1]) * _SECONDS[reuse[-1]]
