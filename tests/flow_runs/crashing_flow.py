"""A flow that is killed in its first attempt; run by test_resume.py in a separate process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from rh_prefect.flow_runs.call_scope import current_scope
from rh_prefect.flow_runs.rerun import rerun


@task(cache_policy=NO_CACHE)
async def pay(name: str) -> bool:
    scope = current_scope()
    assert scope is not None
    key = f"paid-{name}"  # no job's: other tests list the jobs of all runs
    mine = await scope.journal.create(key, {"token": uuid.uuid4().hex})
    print("paid" if mine else "found", key, "attempt", scope.attempt, "of", scope.journal.scope, flush=True)
    if scope.attempt == 1 and name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return mine


@flow
async def killed(names: list[str]) -> list[bool]:
    return [await pay(name) for name in names]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(asyncio.run(rerun(killed, sys.argv[1])), flush=True)
    else:
        asyncio.run(killed(["a", "b", "c"]))
