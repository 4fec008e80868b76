"""Drafts: the requests and recipes of a plan's steps before their results are looked up."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.pipelines.evaluation import evaluate, lacking, results, type_of, wrong_texts
from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.work_identity import is_settled, mark
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    EMPTY,
    File,
    Frame,
    Items,
    Maybe,
    Span,
    StepOutput,
    as_items,
    leaves,
    makers,
    parts,
    problems_of,
)
from rh_prefect.pipelines.references import parse
from rh_prefect.pipelines.types import FACTS


def planned(step: Step, at: Path, path: str, frame: Frame, model: str = "") -> PlannedStep:
    """Returns a step of an item."""
    one = PlannedStep(path, frame.id, step, at, model, is_sure=frame.is_sure, numbers=frame.numbers)
    one.row = frame.row_around
    return one


@dataclass(slots=True, eq=False, repr=False)
class Draft:
    """The request or recipe of one step of one item, before its results are looked up."""

    instance: PlannedStep  # The step's place in the plan
    frame: Frame  # The item
    endpoint: str = ""  # Path below `/openapi/v2/`; empty for edits
    is_settled: bool = True  # Whether everything in the request is known
    # Whether a run knows the requests of all items from its start, so that equal ones get their takes in order
    is_in_order: bool = False
    base: str = ""  # The hash of the request, or of the recipe
    scope: str = ""  # The round that its works belong to; empty if all runs share them
    takes: list[int] = field(default_factory=list)  # The numbers of its takes
    seconds: Span | None = None  # How long the result is
    # What is wrong: the parameter, or the step's key, and a clause
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # What is worth knowing
    facts: Mapping[str, Any] = field(default_factory=lambda: EMPTY)  # Further facts of the result

    def wrong(self, at: Path, clause: str) -> None:
        """Adds a problem; an empty clause adds nothing."""
        self.problems.extend([(at, clause)] if clause else [])

    def set_values(self, values: dict[str, Any], request: dict[str, Any] | None = None) -> None:
        """Sets the values of the request or recipe, and the steps that make these values."""
        self.is_settled, self.instance.values = is_settled(values), values
        self.instance.request = mark(values) if request is None else request
        self.instance.needs = tuple(dict.fromkeys(makers(values)))

    def begin_with(self, first: int) -> None:
        """Replaces the takes by as many takes from `first` on."""
        self.takes = list(range(first, first + len(self.takes)))


def evaluated(draft: Draft, at: Path, written: Any) -> Any:
    """Evaluates a value of a step; reports texts with gaps, and notes that a misspelt field leaves a parameter out."""
    for clause in wrong_texts(written, draft.frame):
        draft.wrong(at, clause)
    value = evaluate(written, draft.frame)
    if value is ABSENT and isinstance(written, str):
        [reference] = parse(written).references
        owner, name = lacking(reference, draft.frame) or (ABSENT, "")
        # A file of a kind that has the field may lack it, such as a picture whose width cannot be read.
        is_wrong = isinstance(owner, File) and name not in FACTS.get(owner.kind, ())
        if is_wrong and len(reference.options) == 1:
            draft.wrong(at, f"{written} has no value, because {owner.label} is {type_of(owner).words}")
        elif owner is not ABSENT:
            draft.notes.append(f"{written} has no value, so {at[-1]} is not set.")
    return value


def without_failed(value: Any, step: Step, failed: Container[PlannedStep]) -> Any:
    """Removes from a list the values of steps that this run cannot make, for a step with `require: any`."""
    if step.require != "any" or not isinstance(value, Items | list):
        return value
    items = as_items(value)
    return without_places(items, failed_places(items, failed))


def failed_places(items: Items, failed: Container[PlannedStep]) -> set[int]:
    """Returns the positions at which a list has values of steps that this run cannot make, or unusable files."""
    return {n for n, one in enumerate(items.values) if problem_in(one) or any(maker in failed for maker in makers(one))}


def problem_in(value: Any) -> str:
    """Returns why a file or a row in a value cannot be used, if the file skips invalid ones; empty if all can be."""
    own = next(iter(problems_of(value)), "")
    return own or next(filter(None, map(problem_in, parts(value))), "")


def without_places(items: Items, places: Collection[int]) -> Items:
    """Returns a list without the values at some positions."""
    return Items.of([one for n, one in enumerate(items.pairs()) if n not in places], items.count)


def plain(value: Any) -> Any:
    """Converts a value to plain lists and mappings, with the results of steps in place of `StepOutput`.

    Of a table's row, only the cells with values are left, without this package's own fields.
    """
    if isinstance(value, Maybe):
        return plain(value.value)
    if isinstance(value, Items):
        return [plain(one) for one in results(value)]
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        cells = {name: plain(one) for name, one in value.items() if not name.startswith("\0")}
        return {name: one for name, one in cells.items() if one is not ABSENT}
    return value.value if isinstance(value, StepOutput) else value


def files_in(value: Any) -> list[File]:
    """Returns the files in a value."""
    return [one for one in leaves(value) if isinstance(one, File)]
