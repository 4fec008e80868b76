"""Works for tests, with what a test does not care about filled in."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rh_prefect.works.events import Silent
from rh_prefect.works.journal.costs_and_budget import SpendTracker, entries_in
from rh_prefect.works.journal.job_records import JobRecords
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.request_preparation import JobRequest
from rh_prefect.works.work import Services, Work


async def _nothing(_: object) -> None: ...


async def _storing(_run: object, _store: object, _job: object, collecting: Any) -> Any:
    return await collecting


def services(**facts: Any) -> Services:
    made: dict[str, Any] = {
        "spool": Spool(Path("/nowhere")),
        "stores": SimpleNamespace(check=_nothing, refuse_payment=lambda *_: None, storing=_storing),
        "sleep": asyncio.sleep,
        "jitter": lambda: 0.5,
        "submit_timeout": 60.0,
    }
    return Services(**(made | facts))


def work_of(request: JobRequest, *, scope: Any, key: str, kind: type[Work] = Work, **facts: Any) -> Work:
    records = JobRecords(scope.journal, key)
    made: dict[str, Any] = {
        "store": None,
        "observer": Silent(),
        "policy": Policy(job=records.name, endpoint=request.endpoint),
        "lease": None,
        "services": services(),
        "spending": SpendTracker(partial(entries_in, scope.journal)),
        "delivery": None,
        "callback": None,
        "is_new": False,
        "flow": "",
    }
    return kind(request=request, records=records, scope=scope, **(made | facts))


def no_progress(*_: object) -> Any:
    """The progress of a task that reports none."""
    return SimpleNamespace(during=lambda _: nullcontext(), runs=lambda: None)


class FileLease:
    """The lease of a job whose task has ended: it gives a provider that only downloads and queries."""

    def __init__(self, download: Any, query: Any) -> None:
        self.switches = 0
        self.account = SimpleNamespace(provider=SimpleNamespace(download=download, query=query, is_bare=False))

    async def switch_to(self, _: object) -> Any:
        self.switches += 1
        return self.account
