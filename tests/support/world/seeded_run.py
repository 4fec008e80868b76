"""A flow run with many records, written into the database of a Prefect server, because the API would take
minutes."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from uuid import UUID

from prefect.client.orchestration import get_client

from rh_prefect.works.journal.record_types import End
from tests.support.servers.prefect_server import PrefectServer, empty
from tests.support.world.run_inputs import job_keys, logged, submitted

_SAMPLE = "rh-cancel-9999"


async def seed(server: PrefectServer, jobs: int, *, running: int) -> UUID:
    """Makes a flow run with jobs, of which some have tasks that run and the rest have ended."""
    return await seed_records(server, lambda _: dict(_records(jobs, running)))


async def seed_records(server: PrefectServer, records: Callable[[UUID], Mapping[str, str]]) -> UUID:
    async with get_client() as client:
        flow_run_id = (await client.create_flow_run(empty)).id
        await client.create_flow_run_input(flow_run_id, _SAMPLE, '{"token": "sample"}')
    with sqlite3.connect(server.home / "prefect.db", timeout=300) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(flow_run_input)")]
        newest = "SELECT * FROM flow_run_input WHERE key = ? ORDER BY rowid DESC LIMIT 1"
        sample = dict(zip(columns, *database.execute(newest, [_SAMPLE])))
        rows = [
            tuple({**sample, "id": str(uuid.uuid4()), "key": key, "value": value}.values())
            for key, value in logged(records(flow_run_id)).items()
        ]
        database.executemany(f"INSERT INTO flow_run_input VALUES ({', '.join('?' * len(columns))})", rows)
    database.close()
    return flow_run_id


def _records(jobs: int, running: int) -> Iterator[tuple[str, str]]:
    every = jobs // running
    for number, key in enumerate(job_keys(jobs)):
        yield from submitted(key).items()
        if number % every != every - 1:
            yield f"{key}-end-1", End(status="SUCCESS", task_id=str(number)).model_dump_json()
