"""`Request`, the union of all kinds of requests, and the options of a job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Literal, TypeAlias, get_args

from typing_extensions import TypedDict

from rh_prefect.custom_endpoint import CustomInput
from rh_prefect.errors import InputError
from rh_prefect.json_snapshot import is_text
from rh_prefect.models import ModelInput
from rh_prefect.workflow_inputs import AppInput, GraphInput, QuickCreateInput, WorkflowInput

LONGEST_LABEL = 1000
"""Maximum number of characters of a label; file names contain only the first characters."""

Reuse = Literal["never", "always"]
Wait: TypeAlias = Literal["poll", "suspend"]
"""How a run waits for its jobs: in its process, or suspended."""

Request: TypeAlias = ModelInput | CustomInput | WorkflowInput | AppInput | QuickCreateInput | GraphInput
"""A request for a job: for a model, a custom endpoint, a workflow, an app, a quick-create module or a whole graph."""


class JobOptions(TypedDict, total=False):
    """The keyword arguments of every paid task; `Options` explains them."""

    label: str | None
    reuse: Reuse
    on_unknown: Literal["raise", "resubmit"]
    attempts: int
    budget: float | None
    deadline: float | None
    credentials: str | None
    storage: str | None
    take: int
    same: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one job."""

    take: int = 1  # Which of several results of the request, from 1
    same: bool = False  # Whether the call may ask for what another call of the run has asked for, and share its result
    label: str | None = None  # A readable name for the output; the names of its task run and of its file contain it
    # `always` returns the result of an equal earlier request, of this run or another one, at no cost
    reuse: Reuse = "never"
    # After a lost response to a submission, `raise` raises `SubmissionUnknown`; `resubmit` pays again
    on_unknown: Literal["raise", "resubmit"] = "raise"
    attempts: int = 3  # Maximum number of tasks that one job pays for before a person reruns it; failed ones count
    deadline: float | None = None  # Seconds to wait for the task's end; None waits without a limit
    # Maximum cost of all jobs of the run together, in the account's currency; None for no limit
    budget: float | Decimal | None = None
    may_submit: bool = True  # False only downloads results that are already paid for
    credentials: str | None = None  # Name of the block of the account or of the pool that pays
    storage: str | None = None  # Name of the storage block, for the journal

    def __post_init__(self) -> None:
        """Raises an error if a value is not valid."""
        for fault, advice in chain(self._faulty_words(), self._faulty_numbers()):
            raise InputError(f"{fault}. Nothing was sent. What to do: {advice}.")
        if isinstance(self.deadline, Decimal):  # a clock adds no Decimal
            object.__setattr__(self, "deadline", float(self.deadline))

    def _faulty_words(self) -> Iterator[tuple[str, str]]:
        """Yields each invalid text, with what to do."""
        label = self.label
        if label is not None and not isinstance(label, str):
            yield f"The label must be a string, not {type(label).__name__}", "pass one"
        elif label is not None and len(label) > LONGEST_LABEL:
            yield f"The label has {len(label)} characters; at most {LONGEST_LABEL} are allowed", "use a shorter label"
        elif label is not None and not is_text(label):
            yield f"The label {label!a} cannot be written as UTF-8", "use another label"
        if self.reuse not in get_args(Reuse):
            yield f'`reuse` must be "never" or "always", not {self.reuse!r}', "use one of these values"
        if self.on_unknown not in ("raise", "resubmit"):
            yield f'`on_unknown` must be "raise" or "resubmit", not {self.on_unknown!r}', "use one of these values"
        if self.on_unknown == "resubmit" and self.reuse == "always":
            yield (
                '`on_unknown="resubmit"` cannot be combined with `reuse="always"`: other runs may share the job',
                "leave one of them out; `rh-prefect jobs mark-refused` allows a new submission",
            )

    def _faulty_numbers(self) -> Iterator[tuple[str, str]]:
        """Yields each invalid number, with what to do."""
        if isinstance(self.take, bool) or not isinstance(self.take, int) or self.take < 1:
            yield (
                f"`take` must be a whole number of 1 or more, not {self.take!r}: it numbers a request's results",
                "pass 1, 2 or a higher number",
            )
        if not isinstance(self.attempts, int) or self.attempts < 1:
            yield (
                f"`attempts` must be at least 1, not {self.attempts!r}: it limits the tasks that a job may pay for",
                "pass 1 or a higher number",
            )
        if self.deadline is not None and not (_is_number(self.deadline) and self.deadline > 0):
            yield (
                f"`deadline` must be a number of seconds above 0, not {self.deadline!r}",
                "pass such a number, or omit `deadline` to wait without a limit",
            )
        if self.budget is not None and not (_is_number(self.budget) and self.budget >= 0):
            yield (
                f"`budget` must be an amount of money of 0 or more, not {self.budget!r}",
                "pass such an amount, or omit `budget` for no limit",
            )


def _is_number(value: object) -> bool:
    """Returns whether a value is a finite number; NaN would pass each comparison with a limit."""
    try:
        return not isinstance(value, bool) and isinstance(value, int | float | Decimal) and math.isfinite(value)
    except (TypeError, ValueError, ArithmeticError):
        return False
