"""The next step is asked for in the order in which the first ones are done, which is another one in each attempt."""

from __future__ import annotations

from prefect.futures import as_completed

from rh_prefect import flow, generate
from tests.identity.branches import edited, first
from tests.support.processes.program_report import break_off, keep

BRANCHES = 6


def _program() -> None:
    firsts = [generate.submit(first(), take=n + 1) for n in range(BRANCHES)]
    places = {future.task_run_id: n for n, future in enumerate(firsts)}
    steps = []
    for future in as_completed(firsts):
        photo = future.result()
        steps.append((places[future.task_run_id], photo, generate.submit(edited(photo))))
    for n, photo, clip in steps:
        keep(n, photo, clip.result())
    break_off()


@flow(name="completed")
def sync_form() -> None:
    _program()


@flow(name="completed")
async def async_form() -> None:
    _program()
