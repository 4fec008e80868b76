"""`RunServices` and `Outcome`: the services of a pipeline run, and the outcome of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from rh_prefect.media.media import Media
from rh_prefect.pipelines.known_works import StoredWorks, cache_of
from rh_prefect.pipelines.last_run import open_last_runs
from rh_prefect.pipelines.named_file_saver import SavedNames
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.rounds_across_runs import Rounds
from rh_prefect.pipelines.run.interfaces import Surroundings
from rh_prefect.pipelines.run.run_budget import RunBudget
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import get_settings
from rh_prefect.works.job_options import Options
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.works_journal import options_of_records, records_url
from rh_prefect.works.run_ledger import spending_of
from rh_prefect.works.work_runner import WorkRunner


class RunServices:
    """The records, names, budget and runner of a pipeline run, opened for its surroundings."""

    def __init__(self, around: Surroundings, pipeline: str, reviewed: ReviewedPlan | None) -> None:
        """Opens the services; `reviewed` is the reviewed plan, if the run has one."""
        settings, store, works, scope = get_settings(), around.store, around.works, around.scope
        self.engine, self.pages, self.store, self.reviewed = around.engine, around.pages, store, reviewed
        self.edits = open_edits(store, settings)
        self.rounds = Rounds(
            works.rounds,
            deployment=around.deployment,
            run=scope.journal,
            is_scheduled=around.is_scheduled,
            has_ended=around.has_ended,
            is_silent=self._is_silent,
            alive_at=works.alive_at,
        )
        self.known = StoredWorks(
            works, self.edits, store, rounds=self.rounds, cache=cache_of(works, settings), run=scope.journal
        )
        url = records_url(store, settings)
        self.names = SavedNames(url, store, options=options_of_records(url, store, settings), pipeline=pipeline)
        self.last_runs = open_last_runs(store, settings)
        self.budget = RunBudget(spending_of(scope))
        self.runner = WorkRunner(
            around.accounts,
            scope,
            store,
            works,
            Options(credentials=around.credentials, reuse=around.reuse),
            observer=around.observer,
            pipeline=pipeline,
            has_ended=around.has_ended,
        )
        self.works, self._reader = works, scope.journal.scope

    async def _is_silent(self, run: str, key: str) -> bool:
        works = self.works
        return await works.is_silent(run, [await works.rounds.time_of(key)], reader=self._reader)

    def limit(self, budget: Decimal | None, *, is_planned: bool) -> None:
        """Sets the run's budget; with `is_planned`, from the prices of the plan, so that it may rise."""
        options = replace(self.runner.options, budget=budget)
        self.runner = replace(self.runner, options=options, is_planned=is_planned)
        self.budget.limit = budget


@dataclass(slots=True)
class Outcome:
    """The outcome of the steps that a run started."""

    # Addresses of the steps that were started; one that is to be made again is not among them
    begun: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)  # Addresses of those whose tasks go on while the run is suspended
    new_steps: set[str] = field(default_factory=set)  # Addresses of the steps that this process made something new for
    errors: dict[str, Exception] = field(default_factory=dict)  # The error of each step that failed, by its address
    # What this run paid for each work, failed tasks and refused answers included
    costs: dict[str, Costs] = field(default_factory=dict)
    saved: dict[str, list[Media]] = field(default_factory=dict)  # The file that a step was saved as, by its address
    # The same files by the step's address, or "", and the content of the result, which is another one than that of a
    # converted picture
    named: dict[tuple[str, str], Media] = field(default_factory=dict)

    def saved_as(self, file: Media, *steps: PlannedStep | None) -> Media | None:
        """Returns a result as saved by the first of `steps` that has saved it, else by any step; None if none has."""
        names = (*(one.address for one in steps if one is not None), "")
        return next((saved for name in names if (saved := self.named.get((name, file.sha256))) is not None), None)
