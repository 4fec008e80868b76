"""`Services` and `Outcome`: the services that a pipeline run uses, and what became of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.last_run import LastRuns
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.rounds import Rounds
from rh_prefect.pipelines.run.run_budget import RunBudget
from rh_prefect.pipelines.run.surroundings import Pages, StepEngine
from rh_prefect.pipelines.save_as import SavedNames
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.work_runner import WorkRunner


@dataclass(slots=True)
class Services:
    """The services that a pipeline run uses."""

    engine: StepEngine  # What runs the steps
    pages: Pages  # Where the run shows what it does
    runner: WorkRunner  # Makes paid works
    edits: EditResults  # Makes edits
    store: MediaStore  # Where files go
    names: SavedNames  # The names that files were saved under
    known: KnownWorks  # The records of works and edits
    rounds: Rounds  # The rounds of the pipeline
    last_runs: LastRuns  # The last runs of pipelines
    budget: RunBudget  # What the run may cost, and has paid
    reviewed: ReviewedPlan | None = None  # The plan that was reviewed for the run, beyond which it pays for nothing


@dataclass(slots=True)
class Outcome:
    """What became of the steps that a run started."""

    # Addresses of the steps that were started; one that is to be made again is not among them
    begun: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)  # Addresses of those whose tasks go on while the run is suspended
    new_steps: set[str] = field(default_factory=set)  # Addresses of the steps that this process made something new for
    errors: dict[str, Exception] = field(default_factory=dict)  # The error of each step that failed, by its address
    # What this run paid for each work, failed tasks and refused answers included
    costs: dict[str, Costs] = field(default_factory=dict)
    open_submissions: int = 0  # How many of its submissions have no known end, as of a lost response
    open_costs: Costs = field(default_factory=Costs)  # What they may cost, by their prices
    saved: dict[str, list[Media]] = field(default_factory=dict)  # The file that a step was saved as, by its address
    # The same by the content of the result, of which a converted picture is another file
    named: dict[str, Media] = field(default_factory=dict)
