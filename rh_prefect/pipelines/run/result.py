"""`PipelineResult` and `RunEnd`: the results of a pipeline run's steps, and its final state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rh_prefect.errors import InputError, PipelineIncomplete
from rh_prefect.media.notebook_view import listing
from rh_prefect.works.journal.costs_and_budget import Costs

_T = TypeVar("_T")

EndName: TypeAlias = Literal["Completed", "Failed", "Nothing new", "Over budget", "Waiting for review"]

StepState = Literal[
    "made",
    "reused",
    "failed",
    "unknown",
    "cancelled",
    "not run",
    "unfinished",
    "absent",
    "not needed",
    "waits for review",
    "not in the plan",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The result of one step of one item, or of one job of a flow.

    Attributes:
        step: The step's address, as in `each[A-17].clip`.
        model: The model, or the edit.
        state: The step's final state.
        cost: The step's cost for this run.
        files: The addresses of the step's results.
        reason: Why the step has no result; empty if it has one.
        number: The number of the step's item in the outermost fan-out; 0 outside of fan-outs.
        row: The table row of the step's item.
        subject: The beginning of the step's prompt, or the name of the step's first file.
        error: The class of the step's error, as in `BudgetExceeded`.
        seconds: The run time of the step's tasks; None if it is not known, or if the result is from an earlier run.
        tasks: The ids of RunningHub's tasks for the step's results, and of the task that failed.
        jobs: The names of the step's works, for `rh-prefect jobs`.
        recipe: The hash of an edit and its inputs; empty for other steps, and if an input does not exist yet.
    """

    step: str
    model: str
    state: StepState
    cost: str = ""
    files: tuple[str, ...] = ()
    reason: str = ""
    number: int = 0
    row: str = ""
    subject: str = ""
    error: str = ""
    seconds: float | None = None
    tasks: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    recipe: str = ""


class PipelineResult(BaseModel):
    """The return value of a pipeline run.

    Attributes:
        pipeline: The pipeline's name.
        outputs: The file's outputs, by name: files, strings and numbers, or lists of them. If the file has no outputs:
            the files that no other step uses, by step.
        steps: Every step of every item.
        costs: The total cost of this run.
        other_costs: The part of `costs` for steps that are not in the plan; see `StepScheduler.costs_by_step`.
        open_submissions: The number of submissions without a known end, as after a lost response; not in `costs`.
        open_costs: The sum of the prices of these submissions.
        new: The number of steps whose result this run made.
        report: The address of the report, a CSV file.
        gallery: The address of the page with the run's outputs; empty if there are none, or more than 1,000.
        takes: The chosen take of each step that was made again, by address.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    outputs: dict[str, Any]
    steps: tuple[StepReport, ...]
    costs: Costs
    other_costs: Costs = Costs()
    open_submissions: int = 0
    open_costs: Costs = Costs()
    new: int
    report: str = ""
    gallery: str = ""
    takes: dict[str, int] = {}

    @property
    def has_reused(self) -> bool:
        """Whether the run used an earlier result."""
        return any(one.state == "reused" for one in self.steps)

    def __getitem__(self, name: str) -> Any:
        """Returns the output with this name."""
        return self.outputs[name]

    def output(self, name: str, kind: type[_T]) -> _T:
        """Returns an output, validated as a type, as in `done.output("clips", list[Media])`.

        Args:
            name: The output's name.
            kind: Any type that pydantic validates.

        Raises:
            InputError: There is no such output, or its type is not `kind`.
        """
        if name not in self.outputs:
            there = ", ".join(self.outputs) or "none"
            raise InputError(f"{self.pipeline} has no output {name!r}. What to do: use one of its outputs: {there}.")
        try:
            return TypeAdapter(kind).validate_python(self.outputs[name])
        except ValidationError as error:
            (wrong, *_) = error.errors(include_url=False)
            place = "".join(f"[{one}]" for one in wrong["loc"])
            raise InputError(
                f"{self.pipeline}: the output {name}{place} does not have the requested type: {wrong['msg']}. What to "
                "do: pass the output's actual type."
            ) from None

    def __repr__(self) -> str:
        """Returns a description with the states, the cost and the outputs."""
        return f"<PipelineResult of {self.pipeline}: {summary(self)} Outputs: {', '.join(self.outputs) or 'none'}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Shows the outputs in a notebook, with the cost."""
        return listing(f"{self.pipeline}: {summary(self)}", self.outputs.items())


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended.

    Attributes:
        name: The name of the final state.
        message: The outcome in a sentence, and what to do.
        result: The result of the run.
        is_failed: Whether the run counts as failed, as when a result or the report is missing.
    """

    name: EndName
    message: str
    result: PipelineResult
    is_failed: bool = False

    @property
    def error(self) -> PipelineIncomplete:
        """The error of a failed run."""
        return PipelineIncomplete(self.message, result=self.result)


def summary(result: PipelineResult) -> str:
    """Returns one line: the number of steps in each state, and the amount that the run paid.

    Args:
        result: The run's result.
    """
    others = f", of which {result.other_costs} for steps that are not in its plan" if result.other_costs else ""
    still_open = ""
    if number := result.open_submissions:
        which = "1 submission has" if number == 1 else f"{number} submissions have"
        amounts, is_exact = Costs(result.open_costs.amounts), not result.open_costs.unknown
        price = f"{amounts} {'more' if is_exact else 'or more'}" if amounts else "an unknown amount"
        still_open = f"; {which} no known end and may cost {price}"
    paid = f"Steps: {counted(one.state for one in result.steps)}; paid" if result.steps else "Paid"
    return f"{paid} {result.costs or 'nothing'}{others}{still_open}."


def counted(states: Iterable[str]) -> str:
    """Counts equal states, as in `3 made, 2 reused`.

    Args:
        states: The states to count.
    """
    counts = Counter(states).items()
    return ", ".join(f"{count} {state.replace('waits', 'wait') if count > 1 else state}" for state, count in counts)
