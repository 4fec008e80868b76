"""A flow that is killed in its first attempt; run by test_rerun.py in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from rh_prefect.runs.rerun import rerun
from rh_prefect.runs.scope import current_scope


@task(cache_policy=NO_CACHE)
async def pay(token: str) -> dict[str, object]:
    scope = current_scope()
    assert scope is not None
    key = f"job{scope.ordinal('job')}-intent-1"
    mine = await scope.journal.create(key, {"token": token})
    print("paid" if mine else "found", key, "attempt", scope.attempt, "of", scope.journal.scope, flush=True)
    if mine and token == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"mine": mine}


@flow
async def killed(tokens: list[str]) -> list[bool]:
    return [bool((await pay(token))["mine"]) for token in tokens]


@flow
def failed() -> int:
    scope = current_scope()
    assert scope is not None
    if scope.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return scope.attempt


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(asyncio.run(rerun(killed, sys.argv[1])), flush=True)
    else:
        asyncio.run(killed(["a", "b", "c"]))
