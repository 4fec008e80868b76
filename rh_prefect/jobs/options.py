"""The kinds of requests that a job can run, and the options of a job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias, get_args

from typing_extensions import TypedDict

from rh_prefect.custom import CustomInput
from rh_prefect.errors import InputError
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.lifecycle import Policy
from rh_prefect.jobs.requests.request import JobRequest
from rh_prefect.json_values import is_text
from rh_prefect.models import ModelInput
from rh_prefect.workflows import AppInput, GraphInput, QuickCreateInput, WorkflowInput

LONGEST_LABEL = 1000
"""Characters; a file's name takes the beginning."""

Reuse = Literal["never", "always"]
Request: TypeAlias = ModelInput | CustomInput | WorkflowInput | AppInput | QuickCreateInput | GraphInput
"""What a job can be requested for."""


class JobOptions(TypedDict, total=False):
    """The options of every paid task; see `Options`."""

    label: str | None
    reuse: Reuse
    on_unknown: Literal["raise", "resubmit"]
    max_attempts: int
    budget: float | None
    deadline: float | None
    credentials: str | None
    storage: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """How one job is to be run.

    Attributes:
        label: A name for the output, in its file's name; calls with different labels are different jobs.
        key: The caller's own idempotency key: in one scope the same key is the same job.
        reuse: `always` serves an identical earlier request from the store, at no cost, and makes equal calls one job.
        on_unknown: `raise` leaves a submit whose answer was lost to a person; `resubmit` pays again.
        max_attempts: How many tasks one job may pay for until a person runs it again, failed ones included.
        deadline: Seconds to wait for the task's end; None waits as long as it takes.
        budget: What all jobs of the run may cost together, in the account's currency; None for no limit.
        may_submit: False only downloads results that are already paid for.
        credentials: Name of the block of the account or of the pool that pays.
        storage: Name of the storage block, for the record.
    """

    label: str | None = None
    key: str | None = None
    reuse: Reuse = "never"
    on_unknown: Literal["raise", "resubmit"] = "raise"
    max_attempts: int = 3
    deadline: float | None = None
    budget: float | Decimal | None = None
    may_submit: bool = True
    credentials: str | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        """Refuses what would only be found out after the payment.

        Raises:
            InputError: An option has no meaning.
        """
        self._check_label()
        if self.reuse not in get_args(Reuse):
            raise InputError(f'reuse must be "never" or "always", not {self.reuse!r}. Nothing was sent.')
        if self.on_unknown not in ("raise", "resubmit"):
            raise InputError(f'on_unknown must be "raise" or "resubmit", not {self.on_unknown!r}. Nothing was sent.')
        self._check_numbers()

    def _check_label(self) -> None:
        if self.label is None:
            return
        if not isinstance(self.label, str):
            raise InputError(f"The label must be text, not {type(self.label).__name__}. Nothing was sent.")
        if len(self.label) > LONGEST_LABEL:
            raise InputError(
                f"The label has {len(self.label)} characters; at most {LONGEST_LABEL} are allowed. "
                "Nothing was sent; use a shorter one."
            )
        if not is_text(self.label):
            raise InputError(
                f"The label {self.label!a} cannot be written as UTF-8. Nothing was sent; use another label."
            )

    def _check_numbers(self) -> None:
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise InputError(
                "max_attempts is the maximum number of tasks paid for one job and must be at least 1, "
                f"not {self.max_attempts!r}. Nothing was sent."
            )
        if self.deadline is not None and not (_is_number(self.deadline) and self.deadline > 0):
            raise InputError(
                f"deadline is a number of seconds to wait, more than 0, not {self.deadline!r}. Nothing was sent; "
                "omit it to wait without a limit."
            )
        if self.budget is not None and not (_is_number(self.budget) and self.budget >= 0):
            raise InputError(
                f"budget is an amount of money, 0 or more, not {self.budget!r}. Nothing was sent; omit it for no limit."
            )


def _is_number(value: object) -> bool:
    """Whether something has a finite value: NaN is neither below nor above any limit, and would let everything pass."""
    try:
        return not isinstance(value, bool) and isinstance(value, int | float | Decimal) and math.isfinite(value)
    except (TypeError, ValueError, ArithmeticError):
        return False


def policy_of(request: JobRequest, scope: Scope, options: Options, *, job: str, may_move_on: bool) -> Policy:
    """Converts the caller's options to the lifecycle's `Policy`.

    Args:
        request: The request.
        scope: The run that it belongs to.
        options: How to run it.
        job: The job's full name, for messages.
        may_move_on: Whether another account may pay where one refuses for reasons of its own.
    """
    return Policy(
        job=job,
        endpoint=request.endpoint,
        attempt=scope.attempt,
        task_attempt=scope.task_attempt,
        first_attempt=scope.first_attempt,
        max_attempts=options.max_attempts,
        on_unknown=options.on_unknown,
        may_submit=options.may_submit,
        # By its digits: 0.1 means 0.1, not the nearest binary number.
        budget=None if options.budget is None else Decimal(str(options.budget)),
        may_move_on=may_move_on,
    )
