"""A process that generates one picture in a named scope, outside of flows.

`python -m tests.support.processes.scope_process SCOPE` prints each change of the job, then its task id or error.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rh_prefect import models
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs import progress_observer
from rh_prefect.tasks import generate
from rh_prefect.works.events import JobEvent
from tests.support.processes.warm_process import WarmProcess

PROMPT = "a lighthouse"


@contextmanager
def asking(scope: str) -> Iterator[WarmProcess]:
    """Runs such a process in the environment of this one; kills it at the end if it is still there."""
    with WarmProcess(["-m", "tests.support.processes.scope_process", scope]) as process:
        yield process


def ask_elsewhere(scope: str) -> str:
    with asking(scope) as process:
        return process.communicate()[0].splitlines()[-1]


async def ask(scope: str) -> str:
    try:
        return str((await generate.fn(models.ZImageTurbo(prompt=PROMPT), scope=scope)).task_id)
    except RunningHubError as error:
        return f"{type(error).__name__}: {error.message}"


def _say(event: JobEvent) -> None:
    print(event.state, flush=True)


if __name__ == "__main__":
    progress_observer.listeners.append(_say)
    print(asyncio.run(ask(sys.argv[1])), flush=True)
