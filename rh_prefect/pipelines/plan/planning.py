"""`Planning`: the data that all parts of a plan share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.plan.options import PlanOptions
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.plan.shared_works import SharedWorks
from rh_prefect.pipelines.plan.size_limits import Size
from rh_prefect.pipelines.plan.undecided_steps import Missing
from rh_prefect.pipelines.takes_file import Choices

BindUsed: TypeAlias = Callable[[Checked, Mapping[str, Any]], Awaitable[tuple[dict[str, Any], dict[str, str]]]]


@dataclass(slots=True, repr=False)
class Planning:
    """The data that all parts of a plan share."""

    checked: Checked  # The file
    options: PlanOptions  # How it is planned
    choices: Choices  # What a person has decided
    bind_used: BindUsed  # Gives the parameters of a used file their values
    pipeline: str  # Identifies the pipeline with its parameters; see `pipeline_id`
    known: KnownWorks = field(init=False)  # Answers what is known of works
    works: SharedWorks = field(init=False, default_factory=SharedWorks)  # What the steps pay for, or render
    missing: Missing = field(init=False)  # The steps without a result
    size: Size = field(init=False, default_factory=Size)  # How much was counted

    def __post_init__(self) -> None:
        """Reads the known works and failed steps from the options."""
        self.known, self.missing = self.options.known or KnownWorks(), Missing(set(self.options.failed))

    @property
    def skips_items(self) -> bool:
        """Whether invalid items are skipped, so that the other items are made."""
        return self.checked.file.invalid_items == "skip"
