"""The last run of a pipeline: its final plan, kept with the records to show later changes.

A later run replaces this record, so no payment depends on it. The last run of a deployment is in
`pipelines/<name>/<deployment>.json`, the last run outside of deployments in `pipelines/<name>/cli.json`, and the last
run of the pipeline in `pipelines/<name>/latest.json`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import StoreError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.render import head_as_json, step_as_json
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE
from rh_prefect.pipelines.site_graphs import SavedGraphs, read_saved_graphs, with_used_graphs
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.journal.works_journal import options_of_records, records_url
from rh_prefect.works.loop_thread import LOOP

FOLDER = "pipelines"
_OWN_NAMES = ("cli", "latest")
"""File names that a deployment's file must not have."""


class LastRun(BaseModel):
    """The stored data of a pipeline's last run, with which later plans are compared."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str  # The flow run
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))  # When it ended, UTC
    deployment: str  # The deployment's name; empty outside of deployments
    plan: Mapping[str, Any]  # Its plan as the run ended, as plain JSON data

    @property
    def words(self) -> str:
        """Returns a description of the last run for the first line of a plan."""
        by = "" if self.deployment == COMMAND_LINE else f" (deployment {self.deployment})"
        return f"the run of {self.at:%d %b %H:%M}{by}"

    def as_json(self) -> dict[str, str]:
        """Returns the last run's id, time and deployment in the form used in a plan's JSON."""
        return {"run": self.run, "at": self.at.isoformat(), "deployment": self.deployment}


class LastRuns:
    """The last run of each pipeline and deployment, in the storage of the records."""

    def __init__(self, place: MediaStore) -> None:
        self._place = place

    async def read(self, pipeline: str, deployment: str = COMMAND_LINE) -> LastRun | None:
        """Reads the last run of a deployment, else the last run of the pipeline; None if no run is stored."""
        for name in _files(pipeline, deployment):
            found = await asyncio.to_thread(self._read, name)
            if found is not None:
                return found
        return None

    async def graphs(self, pipeline: Pipeline, pool: Pool, deployment: str = COMMAND_LINE) -> SavedGraphs:
        """Reads the graphs of a pipeline; the graphs of the last run replace those that cannot be read."""
        saved: SavedGraphs = await LOOP.call(read_saved_graphs(pipeline.checked, pool))
        last = await self.read(pipeline.name, deployment) if saved else None
        return saved if last is None else with_used_graphs(saved, last.plan)

    def write(self, plan: Plan, *, run: str, deployment: str) -> None:
        """Replaces the stored last run with a run of this plan; slow for many rows."""
        head = LastRun(run=run, deployment=deployment, plan=head_as_json(plan)).model_dump_json()
        # Step by step, since the data of all steps takes several times the memory of their text.
        data = bytearray(head.removesuffix("}}").encode() + b',"steps":[')
        for number, one in enumerate(plan.instances):
            data += b"," * bool(number) + json.dumps(step_as_json(one)).encode()
        data += b"]}}"
        for name in _files(plan.pipeline, deployment):
            self._place.write_bytes(name, bytes(data))

    def _read(self, name: str) -> LastRun | None:
        if not self._place.exists(name):
            return None
        try:
            return LastRun.model_validate_json(self._place.read_bytes(name))
        except (ValidationError, StoreError):
            return None  # of another version, or half written: there is nothing to compare with


def open_last_runs(store: MediaStore, settings: Settings) -> LastRuns:
    """Opens the last runs in the storage of the records."""
    url = records_url(store, settings)
    return LastRuns(MediaStore(url, options=options_of_records(url, store, settings)))


def since(plan: Plan, last: LastRun, params: Mapping[str, Param]) -> None:
    """Marks in a plan the changes since the last run."""
    compare(plan, last.plan, params)
    plan.compared_with, plan.since = last.words, last.as_json()


def _files(pipeline: str, deployment: str) -> tuple[str, str]:
    """Returns two file names: for the last run of a deployment, and for the last run of the pipeline."""
    folder = f"{FOLDER}/{_part(pipeline)}"
    own = _part(deployment, other_than=_OWN_NAMES) if deployment else "cli"
    return f"{folder}/{own}.json", f"{folder}/latest.json"


def _part(name: str, *, other_than: Sequence[str] = ()) -> str:
    """Returns a name as one part of a path; two names never become the same part."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,80}", name) and name.lower() not in other_than:
        return name
    return f"{re.sub(r'[^A-Za-z0-9-]+', '-', name)[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
