"""The last run of a pipeline: its final plan, kept with the records to show later changes.

The record decides nothing that is paid: a later run replaces it, and without it a plan compares with nothing.
`pipelines/<name>/deployments/<deployment>.json` is the last run of a deployment, `pipelines/<name>/cli.json` the last
one outside of deployments, and `pipelines/<name>/latest.json` the last one of all.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import StoreError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.works_store import records_url
from rh_prefect.settings import Settings

FOLDER = "pipelines"
COMMAND_LINE = "cli"


class LastRun(BaseModel):
    """The stored data of a run.

    Attributes:
        version: The version of this form.
        run: The flow run.
        at: When it ended, UTC.
        deployment: The deployment's name; None outside of deployments.
        plan: Its plan as the run ended, as plain JSON data.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    run: str
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    deployment: str | None = None
    plan: Mapping[str, Any]

    @property
    def words(self) -> str:
        """Returns the text for the last run in the first line of a plan."""
        by = "" if self.deployment is None else f" (deployment {self.deployment})"
        return f"the run of {self.at:%d %b %H:%M}{by}"

    def as_json(self) -> dict[str, str]:
        """The data about the last run in a plan's JSON."""
        return {"run": self.run, "at": self.at.isoformat(), "deployment": self.deployment or COMMAND_LINE}


class LastRuns:
    """The last runs of pipelines, in the storage of the records."""

    def __init__(self, place: MediaStore) -> None:
        """Stores the location; reads nothing.

        Args:
            place: The place of the records.
        """
        self._place = place

    async def read(self, pipeline: str, deployment: str | None = None) -> LastRun | None:
        """Reads the last run of a deployment, else the last one of the pipeline; None where there is none.

        Args:
            pipeline: The pipeline's name.
            deployment: The deployment's name; None outside of deployments.

        Raises:
            StoreError: The place cannot be read.
        """
        for name in (_file(pipeline, deployment), _latest(pipeline)):
            found = await asyncio.to_thread(self._read, name)
            if found is not None:
                return found
        return None

    async def write(self, pipeline: str, last: LastRun) -> None:
        """Replaces the last run.

        Args:
            pipeline: The pipeline's name.
            last: The run.

        Raises:
            StoreError: The place cannot be written.
        """
        data = last.model_dump_json().encode()
        names = [_file(pipeline, last.deployment), _latest(pipeline)]
        await asyncio.gather(*(asyncio.to_thread(self._place.write_bytes, name, data) for name in names))

    def _read(self, name: str) -> LastRun | None:
        if not self._place.exists(name):
            return None
        try:
            return LastRun.model_validate_json(self._place.read_bytes(name))
        except (ValidationError, StoreError):
            return None  # of another version, or half written: there is nothing to compare with


def open_last_runs(store: MediaStore, settings: Settings) -> LastRuns:
    """Opens the last runs in the storage of the records.

    Args:
        store: Where the files go.
        settings: RH_RECORDS.
    """
    url = records_url(store, settings)
    return LastRuns(MediaStore(url, options=dict(store.options_for(url))))


def since(plan: Plan, last: LastRun, params: Mapping[str, Param]) -> None:
    """Marks in a plan what changed since the last run.

    Args:
        plan: The plan.
        last: The last run.
        params: The parameters that the file declares.
    """
    compare(plan, last.plan, params)
    plan.compared_with, plan.since = last.words, last.as_json()


def _file(pipeline: str, deployment: str | None) -> str:
    name = COMMAND_LINE if deployment is None else f"deployments/{_part(deployment)}"
    return f"{FOLDER}/{_part(pipeline)}/{name}.json"


def _latest(pipeline: str) -> str:
    return f"{FOLDER}/{_part(pipeline)}/latest.json"


def _part(name: str) -> str:
    """A name as one part of a path; two names never share one."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,80}", name):
        return name
    return f"{re.sub(r'[^A-Za-z0-9-]+', '-', name)[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
