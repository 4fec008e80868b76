"""Equal calls in the flow itself; the test wraps all of them into a task between two attempts."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from rh_prefect import flow, generate
from rh_prefect.works.outputs.result import Result
from tests.identity.branches import first, made, second
from tests.support.processes.program_report import break_off, keep

BRANCHES = 4


@task(cache_policy=NO_CACHE)
def ask() -> Result:
    return made(first())


def _program() -> None:
    firsts = [generate.submit(first()) for _ in range(BRANCHES)]
    photos = [future.result() for future in firsts]
    for n, photo in enumerate(photos):
        keep(n, photo, made(second(photo, n)))
    break_off()


@flow(name="drift of equal calls")
def sync_form() -> None:
    _program()


@flow(name="drift of equal calls")
async def async_form() -> None:
    _program()
