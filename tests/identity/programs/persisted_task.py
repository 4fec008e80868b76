"""A task whose result Prefect serves without running it again."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.futures import wait

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off, keep_again

BRANCHES = 4


@task(persist_result=True)
def own(name: int) -> list[str]:
    return branch(name)


@task(persist_result=True)
async def aown(name: int) -> list[str]:
    return await abranch(name)


def _program(of: Task[..., Any]) -> None:
    futures = [of.submit(name) for name in range(BRANCHES)]
    wait(futures)
    for name, future in enumerate(futures):
        keep_again(name, future.result())
    break_off()


@flow(name="persisted task")
def sync_form() -> None:
    _program(own)


@flow(name="persisted task")
async def async_form() -> None:
    _program(aown)
