from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from rh_prefect.flow_runs.journal import FlowRunJournal
from tests.support.processes.warm_process import WarmProcess
from tests.support.servers.prefect_server import PrefectServer

pytestmark = [pytest.mark.prefect]

CLAIM = """
import asyncio, json, random, sys, time
from rh_prefect.flow_runs.journal import FlowRunJournal

async def main(run, name):
    journal = FlowRunJournal(run)
    await journal.read("cancel-1")
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    order = list(range(300))
    random.Random(name).shuffle(order)

    async def claim(place, n):
        await asyncio.sleep(begin - time.time() + place * 0.005)
        token = f"{name}-{n}"
        is_mine = await journal.create(f"{n:016x}-intent-1", {"token": token, "by": name, "text": "x" * 1000})
        return n, is_mine

    print(json.dumps(await asyncio.gather(*(claim(place, n) for place, n in enumerate(order)))))

asyncio.run(main(*sys.argv[1:]))
"""


@flow
def _nothing() -> None: ...


def test_of_two_processes_with_300_equal_keys_each_key_has_one_winner(
    prefect_server: PrefectServer,
) -> None:
    with get_client(sync_client=True) as client:
        run = str(client.create_flow_run(_nothing).id)
    processes = [_claiming(run, name, prefect_server) for name in ("one", "two")]
    assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
    begin = f"{time.time() + 0.5}\n"
    for process in processes:
        process.stdin.write(begin)
        process.stdin.flush()
    claims = [sorted(json.loads(process.communicate(timeout=600)[0])) for process in processes]

    async def recorded() -> Counter[str]:
        return Counter([r["by"] async for _, records in FlowRunJournal(run).jobs() for r in records.values()])

    by = asyncio.run(recorded())
    won = [sum(is_mine for _, is_mine in one) for one in claims]
    assert [one[1] != two[1] for one, two in zip(*claims, strict=True)] == [True] * 300
    assert by == Counter(one=won[0], two=won[1])


def _claiming(run: str, name: str, server: PrefectServer) -> WarmProcess:
    return WarmProcess(["-c", CLAIM, run, name], env=server.env)
