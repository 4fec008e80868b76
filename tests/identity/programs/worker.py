"""A task worker, to which each attempt delivers the same orders."""

from __future__ import annotations

import os

from prefect import task
from prefect.client.orchestration import get_client
from prefect.task_worker import TaskWorker

from rh_prefect import generate
from tests.identity.branches import first
from tests.support.processes.program_report import break_off, keep, tag

ORDERS = 3


@task
async def order(number: int, delivery: str) -> None:
    keep(number, await generate(first(), scope=f"{tag()}-{number}"))


async def async_form() -> None:
    worker = TaskWorker(order)
    async with get_client() as client:
        for number in range(ORDERS):
            delivered = order.delay(number, os.environ["PROGRAM_ATTEMPT"])
            await worker.execute_task_run(await client.read_task_run(delivered.task_run_id))
    break_off()
