"""A `generate.submit` for each take, then one `.submit` on each result."""

from __future__ import annotations

from rh_prefect import flow, generate
from tests.identity.branches import first, second
from tests.support.processes.program_report import break_off, keep

BRANCHES = 6


def _program() -> None:
    firsts = [generate.submit(first(), take=n + 1) for n in range(BRANCHES)]
    photos = [future.result() for future in firsts]
    seconds = [generate.submit(second(photo, n)) for n, photo in enumerate(photos)]
    for n, photo in enumerate(photos):
        keep(n, photo, seconds[n].result())
    break_off()


@flow(name="submit")
def sync_form() -> None:
    _program()


@flow(name="submit")
async def async_form() -> None:
    _program()
