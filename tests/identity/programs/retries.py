"""A flow with `retries=1` that fails once, in one process."""

from __future__ import annotations

from prefect.runtime import flow_run

from rh_prefect import flow, generate
from tests.identity.branches import first, second
from tests.support.processes.program_report import BrokenOff, keep

BRANCHES = 6


def _program() -> None:
    firsts = [generate.submit(first(), take=n + 1) for n in range(BRANCHES)]
    photos = [future.result() for future in firsts]
    seconds = [generate.submit(second(photo, n)) for n, photo in enumerate(photos)]
    for n, photo in enumerate(photos):
        keep(n, photo, seconds[n].result())
    if flow_run.run_count == 1:
        raise BrokenOff("the first try fails")


@flow(name="retries", retries=1)
def sync_form() -> None:
    _program()


@flow(name="retries", retries=1)
async def async_form() -> None:
    _program()
