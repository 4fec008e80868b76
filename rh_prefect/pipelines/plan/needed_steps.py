"""`Needs`: the needed steps of a plan, updated when parts of the plan are replaced.

A step with an existing result needs no earlier step, unless an earlier step decides whether the step is made. Steps are
counted by address, because a replanned part has new objects for the same steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rh_prefect.pipelines.plan.planned_steps import PlannedStep

_NONE, _MAKES, _EXISTS = range(3)
"""What a step needs: nothing, the steps that make its inputs, or only the steps that decide whether it is made."""

_UNNEEDED = "nothing needs it"


class Needs:
    """Sets `is_needed` and `state` of the steps of a plan."""

    def __init__(self) -> None:
        self.steps: dict[str, PlannedStep] = {}
        self._takers: Counter[str] = Counter()
        self._needed: Counter[str] = Counter()  # By how many steps each step is needed

    def replace(
        self, old: Iterable[PlannedStep], new: Sequence[PlannedStep], *, outputs: Iterable[PlannedStep] = ()
    ) -> list[PlannedStep]:
        """Replaces steps with newly planned steps; returns other steps whose `is_needed` or `state` changed."""
        found = {one.address: None for one in outputs}
        for one in old:
            self._weigh(one, None, found)
            edges = [need.address for need in _edges(one)]
            self._takers.subtract(edges)
            found.update(dict.fromkeys(edges))
            if self.steps.get(one.address) is one:
                del self.steps[one.address]
        for one in new:
            self.steps[one.address] = one
            edges = [need.address for need in _edges(one)]
            self._takers.update(edges)
            found.update(dict.fromkeys(edges))
        for one in reversed(new):
            found.pop(one.address, None)
            self._evaluate(one, found)
        changed, pending = dict[PlannedStep, None](), list(found)
        while pending:
            more = dict[str, None]()
            step = self.steps.get(pending.pop())
            if step is not None and self._evaluate(step, more):
                changed[step] = None
            pending += more
        return [one for one in changed if one not in set(new)] if changed else []

    def _evaluate(self, one: PlannedStep, found: dict[str, None]) -> bool:
        address, was = one.address, (one.is_needed, one.state, one.is_lost)
        is_taken = not self._takers[address] or self._needed[address] > 0
        one.is_needed = is_taken or one.is_output or bool(one.save_as)
        if not one.is_needed and one.found in "+!?" and one.is_paid:
            one.state, one.note = "=", one.note or _UNNEEDED
        else:
            one.state, one.note = one.found, "" if one.note == _UNNEEDED else one.note
        is_last = one.is_output or not self._takers[address]
        known = (work.known for work in one.works if work.known is not None)
        one.is_lost = is_last and not one.save_as and any(each.is_lost for each in known)
        exists = one.state == "=" and not one.is_lost
        weight = _NONE if not one.is_needed or one.state == "x" else _EXISTS if exists else _MAKES
        self._weigh(one, weight, found)
        return was != (one.is_needed, one.state, one.is_lost)

    def _weigh(self, one: PlannedStep, weight: int | None, found: dict[str, None]) -> None:
        """Updates the counts of the steps that a step needs; if `weight` is None, the step's needs no longer count."""
        if one.weight == weight:
            return
        for kind, is_new in ((one.weight, False), (weight, True)):
            steps = _edges(one) if kind == _MAKES else one.waits_for if kind == _EXISTS else ()
            addresses = [need.address for need in steps]
            (self._needed.update if is_new else self._needed.subtract)(addresses)
            found.update(dict.fromkeys(addresses))
        one.weight = weight


def _edges(one: PlannedStep) -> tuple[PlannedStep, ...]:
    return (*one.needs, *one.waits_for)
