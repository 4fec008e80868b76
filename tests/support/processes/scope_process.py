"""A process that generates one picture in a named scope, outside of flows.

`python -m tests.support.processes.scope_process SCOPE` prints the task id or the error.
"""

from __future__ import annotations

import asyncio
import sys

from rh_prefect import models
from rh_prefect.errors import RunningHubError
from rh_prefect.tasks import generate
from tests.support.processes import warm_process

PROMPT = "a lighthouse"


def ask_elsewhere(scope: str) -> str:
    """Runs such a process in the environment of this one."""
    return warm_process.run(["-m", "tests.support.processes.scope_process", scope]).stdout.splitlines()[-1]


async def ask(scope: str) -> str:
    try:
        return str((await generate.fn(models.ZImageTurbo(prompt=PROMPT), scope=scope)).task_id)
    except RunningHubError as error:
        return f"{type(error).__name__}: {error.message}"


if __name__ == "__main__":
    print(asyncio.run(ask(sys.argv[1])), flush=True)
