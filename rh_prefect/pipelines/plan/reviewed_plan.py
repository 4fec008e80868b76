"""A plan that a person has reviewed; a run of the reviewed plan pays only for the works in the plan.

reviewed = ReviewedPlan.read("p.json")      # written by `rh-prefect plan FILE --json`
reviewed.refuse_changes(plan, params)       # `plan`: a new plan; `params`: the parameters that the file declares
reviewed.refusal(instance, work)            # why one work is not paid for; empty if it is in the plan
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, cached_property
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Self

from rh_prefect.errors import InputError, PlanChanged
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.changes import head_changes, shown_change, step_changes
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, PriceRange, Selection, Work

_MOST_NAMED = 10
_SAME = ("model", "endpoint")
"""The fields of a step that are known even if its inputs do not exist."""

_NO_PLAN = "Nothing was paid. What to do: write a plan with `rh-prefect plan … --out`."

_DIGITS = Decimal("0.00001")
"""Precision of prices in a plan's JSON."""


@dataclass(frozen=True, repr=False)
class ReviewedPlan:
    """The JSON data of a reviewed plan, and the payments that it allows.

    Attributes:
        data: The plan's JSON data.
        name: The plan's name in messages.
    """

    data: Mapping[str, Any]
    name: str = "the plan"

    @classmethod
    def read(cls, file: str | PathLike[str]) -> Self:
        """Reads a plan from a file.

        Args:
            file: A file from `rh-prefect plan --json` or `--out`.

        Raises:
            InputError: The file cannot be read, or does not contain a plan that a run can follow.
        """
        try:
            data = json.loads(Path(file).read_bytes(), parse_constant=_no_number)
        except OSError as error:
            raise InputError(f"The plan {file} cannot be read: {error.strerror or error}. {_NO_PLAN}") from None
        except (ValueError, RecursionError):
            data = None
        flaw = next(_schema().iter_errors(data), None)
        if flaw is not None:
            where = f": its field {flaw.json_path.removeprefix('$.')} has a wrong form" if flaw.path else ""
            raise InputError(f"{file} is not a plan{where}. {_NO_PLAN}")
        if data.get("problems"):
            raise InputError(
                f"The plan {file} has problems and cannot be run. Nothing was paid. What to do: correct the "
                "pipeline, and plan again."
            )
        return cls(data, str(file))

    @property
    def most(self) -> Decimal:
        """The maximum cost of a run of the plan, in the plan's currency."""
        return Decimal(str(self.data["price"]["most"]))

    @property
    def is_open(self) -> bool:
        """Whether a price of the plan was not known; the plan's maximum cost is then unknown."""
        return bool(self.data["price"]["open"])

    @property
    def budget(self) -> Decimal | None:
        """The file's budget when the plan was reviewed; None if the file had no budget."""
        budget = self.data.get("budget")
        return None if budget is None else Decimal(str(budget["amount"]))

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the plan."""
        return dict(self.data["params"])

    @property
    def hidden_params(self) -> tuple[str, ...]:
        """Parameters whose values a plan does not show in full, such as signed links."""
        return tuple(self.data.get("hidden_params", ()))

    def selected(self, given: Selection) -> Selection:
        """Returns the selection that a run uses: that of the reviewed plan, or the given one if the plan has none.

        Args:
            given: The selection of the run's options; everything if they select nothing.

        Raises:
            PlanChanged: The plan selects a different part.
        """
        reviewed = Selection.from_json(self.data.get("selection", {}))
        if given in (Selection(), reviewed):
            return reviewed
        if reviewed == Selection():
            return given
        raise PlanChanged(
            f"{self.name} selects {reviewed.words}; the run selects {given.words}. Nothing was paid. What to do: leave "
            "these options out, or plan again with them."
        )

    def refuse_changes(self, plan: Plan, params: Mapping[str, Param]) -> None:
        """Raises an error if a new plan has a different file, different parameters or inputs, or more payments.

        Args:
            plan: The plan as it is now.
            params: The parameters that the file declares.

        Raises:
            PlanChanged: Something differs; the message lists the differences.
        """
        changed = list(head_changes(self.data, plan, params))
        steps = list(self._step_changes(plan))
        # A different catalogue matters only if it changes the request or the price of a step.
        if not steps and {one["what"] for one in changed} <= {"catalogue"}:
            return
        lines = [shown_change(one["what"], one["was"], one["is"]) for one in changed] + steps[:_MOST_NAMED]
        lines += [f"and {len(steps) - _MOST_NAMED} further steps"] if len(steps) > _MOST_NAMED else []
        listed = "".join(f"\n  {line}" for line in lines)
        raise PlanChanged(
            f"{plan.pipeline}: the run would differ from {self.name}. Nothing was paid. What changed:{listed}\nWhat to "
            "do: plan again and review the new plan, or undo the change."
        )

    def _step_changes(self, plan: Plan) -> Iterator[str]:
        for one in plan.instances:
            refusals = (self.refusal(one, work) for work in one.works if one.is_paid and work.is_paid)
            if refusal := next(filter(None, refusals), ""):
                yield f"{visible(one.address)}: {refusal}"

    def refusal(self, instance: PlannedStep, work: Work) -> str:
        """Returns the reason why this plan does not allow a step's work; empty if it allows the work.

        The plan allows the works in it. For a step whose inputs did not exist yet, the plan allows works with the same
        address, model and takes. No work may cost more than in the plan.

        Args:
            instance: The step, as it is planned now.
            work: The work of one of its takes.
        """
        step = self._steps.get(instance.address)
        # If the task of another run fails, this run would submit it again.
        if step is not None and work.key in step.get("in_progress", ()):
            return "the plan pays nothing for it, because its task was in progress"
        if work.is_settled and work.key in self._paid:
            return "" if step is None else _why_dearer(step, instance)
        if step is None or step["state"] == "x":
            return "this step is not in the plan"
        changes = step_changes(step, instance)
        is_other = bool(_works_of(step)) and work.is_settled and not instance.is_unread
        if (is_other and work.key not in _works_of(step)) or any(one["param"] in _SAME for one in changes):
            listed = "; ".join(shown_change(one["param"], one["was"], one["is"]) for one in changes)
            return listed or _other_work(step, work)
        first = step.get("take", 1)
        is_planned = first <= work.take < first + step.get("takes", 1)
        return _why_dearer(step, instance) if is_planned else _other_work(step, work)

    @cached_property
    def _steps(self) -> Mapping[str, Mapping[str, Any]]:
        return {step["address"]: step for step in self.data["steps"]}

    @cached_property
    def _paid(self) -> frozenset[str]:
        """The works that the plan pays for and whose inputs were known."""
        return frozenset(work for step in self.data["steps"] if step["price"]["most"] for work in _works_of(step))


@cache
def _schema() -> Any:
    from jsonschema import Draft202012Validator  # most commands read no plan

    return Draft202012Validator(json.loads(files(__package__).joinpath("schema.json").read_bytes()))


def _works_of(step: Mapping[str, Any]) -> list[str]:
    """Returns the works of a step in a plan; empty if their inputs were not known yet."""
    return list(step.get("works") or ([step["work"]] if "work" in step else []))


def _other_work(step: Mapping[str, Any], work: Work) -> str:
    """Returns the reason why the plan has a different work for a step whose request did not change."""
    if step.get("take", 1) != work.take:
        return f"take: {step.get('take', 1)} -> {work.take}"
    if step.get("round", "") != work.scope:
        return "its result was made after the plan, and reuse: never would make another result in this run"
    return "its request differs: the plan was made for another site, or by another version of rh-prefect"


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _why_dearer(step: Mapping[str, Any], instance: PlannedStep) -> str:
    planned = Decimal(str(step["price"]["most"]))
    now = sum((work.price for work in instance.works if work.is_paid), PriceRange())
    if now.most.quantize(_DIGITS) > planned:
        return f"price: up to {planned} -> up to {now.most.normalize():f}"
    # A price that RunningHub has quoted is not in the catalogue. It is requested again before the payment, and the
    # budget is the plan's highest price.
    if now.is_open and not step["price"]["open"] and not step.get("quoted"):
        return "price: known -> not known"
    return ""
