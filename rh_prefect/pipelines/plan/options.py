"""`PlanOptions`: the options of a plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import httpx

from rh_prefect.pipelines.input_reader import Inputs
from rh_prefect.pipelines.plan.planned_steps import KnownWorks, Selection
from rh_prefect.pipelines.plan.take_chooser import EqualRequests
from rh_prefect.pipelines.planning_values import Span, Unknown
from rh_prefect.pipelines.site_graphs import SavedGraphs
from rh_prefect.pipelines.takes_file import Choices
from rh_prefect.settings import checked_site, get_settings


def site_of(base_url: str) -> str:
    """Returns the host in RunningHub's base URL; the host is part of each request's identity."""
    return httpx.URL(checked_site(base_url)).host


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of a plan, in addition to the parameters in its file.

    Attributes:
        known: The source of existing works; without it, all works are new.
        site: RunningHub's host; by default the host in the settings.
        takes: The first take of a step (`each.picture`) or of an item's step (`each[A-17].picture`). The takes in the
            file `<pipeline>.takes.yaml` are added.
        choices: A person's choices at reviews; the choices in the takes file are added.
        new: Steps whose next take is made, by step or address; `*` for all paid steps.
        selection: The part of the pipeline to make; only its steps get a next take.
        date: The value of `$(run.date)`; by default today's date in UTC.
        inputs: Reads the inputs, each once: `Inputs(allow=[…])` allows further folders for files named in rows.
        saved_graphs: The graphs of workflows and apps, from `read_saved_graphs`; without these graphs, earlier results
            are not found.
        run_id: The value of `$(run.id)`, the id of the run that plans; empty without a run.
        failed: Addresses of steps that this run cannot make; a step with `require: any` is made without them.
        decided: All takes and choices, from `Pipeline.decided`, for the plans of a run; the takes file is not read.
        equal: The takes of equal requests, which a run keeps when it plans again.
    """

    known: KnownWorks | None = None
    site: str = field(default_factory=lambda: site_of(get_settings().base_url))
    takes: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    new: Collection[str] = ()
    selection: Selection = field(default_factory=Selection)
    date: str | None = None
    inputs: Inputs = field(default_factory=Inputs)
    saved_graphs: SavedGraphs | None = None
    run_id: str = ""
    failed: Collection[str] = ()
    decided: Choices | None = None
    equal: EqualRequests = field(default_factory=EqualRequests)

    @cached_property
    def run(self) -> dict[str, Any]:
        """The values of `$(run.…)`."""
        date = self.date or datetime.now(UTC).date().isoformat()
        return {"date": date, "id": self.run_id or Unknown("string", "run.id", Span(8, 8, 8))}


OPTIONS = frozenset(one.name for one in fields(PlanOptions))
"""The names of all options."""
