"""Records the steps of a plan that depend on undecided conditions, and the steps that have failed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.evaluation import lookup
from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.pipelines.planning_values import (
    Frame,
    Items,
    Maybe,
    Unknown,
    certain,
    deciders_of,
    makers,
    undecided_in,
)
from rh_prefect.pipelines.references import Reference, references_in


@dataclass(slots=True, eq=False, repr=False)
class Missing:
    """The steps of a plan that have no result: failed steps, and steps that need a failed step."""

    failed: set[str]  # The steps that the run could not make
    # The steps that need a step whose `expect` is false, each with that step
    lost: dict[str, PlannedStep] = field(default_factory=dict)

    def __contains__(self, step: object) -> bool:
        """Returns whether a step has no result."""
        if not isinstance(step, PlannedStep):
            return False
        return bool(step.blocked_by) or step.address in self.failed or step.address in self.lost

    def waits_for(self, step: Step, frame: Frame) -> tuple[PlannedStep, ...]:
        """Returns the steps that decide whether a step is made, and under which name its file is saved.

        These steps decide the step's conditions, decide whether its item exists, or make results that `save_as` uses.
        """
        if not (step.conditions or step.named_by):
            return tuple(frame.waits_for)
        failed = self if step.require == "any" else ()
        found = [*deciding_steps(step.conditions, frame), *naming_steps(step, frame)]
        return tuple(dict.fromkeys([*frame.waits_for, *(one for one in found if one not in failed)]))

    def mark(self, instance: PlannedStep, *, is_open: bool) -> PlannedStep | None:
        """Marks a step that may cost nothing in this run, or that a failed step prevents.

        Returns the step in `lost` that the marked step needs; None if it needs none.
        """
        instance.may_be_free = is_open or any(need.may_be_free for need in instance.needs)
        instance.is_sure &= not instance.may_be_free
        needs = (*instance.waits_for, *instance.needs)
        causes = (one.address if one.address in self.failed else one.blocked_by for one in needs)
        instance.blocked_by = next(filter(None, causes), "")
        return next((need for need in needs if need.address in self.lost), None)

    def keep_open(self, draft: Draft, step: Step) -> bool:
        """Leaves a request open while undecided conditions can change it; returns whether only they leave it open."""
        undecided = undecided_parts(step.taken, draft.frame, self if step.require == "any" else ())
        was_settled, instance = draft.is_settled, draft.instance
        draft.is_settled &= not undecided
        if undecided:
            instance.waits_for = tuple(dict.fromkeys([*instance.waits_for, *deciders_of(undecided)]))
        return was_settled and bool(undecided)


def undecided_parts(references: Iterable[Reference], frame: Frame, failed: Container[PlannedStep] = ()) -> list[Maybe]:
    """Returns the parts of referenced values that may be absent, because a condition is undecided."""
    return [one for each in references for one in undecided_in(_without(lookup(each, frame), failed))]


def _without(value: Any, failed: Container[PlannedStep]) -> Any:
    """Removes the values of failed steps, and of items that wait for failed steps, from a list."""
    if not failed or not isinstance(value, Items):
        return value
    waits = ((one, owner.waits_for if owner is not None else ()) for one, owner, _ in value.pairs())
    return [one for one, steps in waits if not any(step in failed for step in (*makers(one), *steps))]


def condition_steps(conditions: Any, frame: Frame) -> list[PlannedStep]:
    """Returns the steps on which the values in conditions depend; a run evaluates the conditions after these steps."""
    return deciding_steps((one for _, one in references_in(conditions)), frame)


def deciding_steps(references: Iterable[Reference], frame: Frame) -> list[PlannedStep]:
    """Returns the steps that make referenced values, or that decide whether these values exist."""
    values = (lookup(one, frame) for one in references)
    return [step for one in values for step in (*makers(one), *deciders_of(undecided_in(one)))]


def naming_steps(step: Step, frame: Frame) -> list[PlannedStep]:
    """Returns the steps that `save_as` refers to and that have no result yet, without which the file has no name."""
    values = (lookup(one, frame) for one in step.named_by)
    return [maker for one in values if isinstance(certain(one), Unknown) for maker in makers(one)]


def is_unmade(instances: Sequence[PlannedStep]) -> bool:
    """Returns whether at least one of the steps has yet to make its result."""
    return any(one.found not in "=x" for one in instances)


def is_open(step: Step, frame: Frame, waits_for: Sequence[PlannedStep]) -> bool:
    """Returns whether it is still undecided whether a step will be made."""
    conditions = (step.when, step.get("expect"))
    is_unknown = any(one is not None and truth(one, frame) is None for one in conditions)
    return frame.is_pending or is_unknown or is_unmade(waits_for)
