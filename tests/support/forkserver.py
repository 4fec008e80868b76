"""Processes forked from one without threads: forked from the tests' own, they could inherit a lock that is held."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pytest", "rh_prefect.jobs.journal.journal", "rh_prefect.jobs.workdir", "rh_prefect.pipelines.works_run"]
)
