"""`generate_many`: many paid jobs at once, in one process and on few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from rh_prefect.jobs.result import Result
from rh_prefect.models import ModelInput
from rh_prefect.tasks.generate import generate

WAVE = 10
"""How many task runs start together: a thousand starts in one go would hold up the event loop for seconds, and
Prefect's server for longer, which takes note of some 25 task runs a second."""

BETWEEN_WAVES = 0.2
"""Seconds between two waves, so that the first jobs are submitted before the last ones are started."""


async def generate_many(asked: Iterable[ModelInput], **options: Any) -> list[Result]:
    """Runs many jobs at once and waits for all of them, the failed ones included.

    Use this and not `generate.map`, which gives each waiting job a thread and an event loop of its own.

    Args:
        asked: What to run; RunningHub's own limit decides how many of them run at once.
        options: Passed on to each `generate`.

    Returns:
        The results, in the order of what was asked.

    Raises:
        ExceptionGroup: Some failed; each of its errors names its job. What succeeded is kept, and running the same flow
            run again pays only for what is missing.
    """
    runs: list[asyncio.Task[Result]] = []
    for number, one in enumerate(asked):
        if number and number % WAVE == 0:
            await asyncio.sleep(BETWEEN_WAVES)
        runs.append(asyncio.ensure_future(_run(one, options)))
    done = await asyncio.gather(*runs, return_exceptions=True)
    failed = [one for one in done if isinstance(one, Exception)]
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(done)} jobs did not succeed", failed)
    return [one for one in done if isinstance(one, Result)]


async def _run(asked: ModelInput, options: dict[str, Any]) -> Result:
    result: Result = await generate(asked, **options)
    return result
