"""The part of Prefect 3.9's API that stores the inputs of one flow run; it counts requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.flow_runs.append_only_log import encode
from rh_prefect.prefect_api import disconnect
from rh_prefect.works.journal.record_types import Record
from tests.support.servers.scripted_server import Asked, Step, WireServer, reply
from tests.support.world.job_records import intent, ticket

RUN = UUID("11111111-2222-4333-8444-555555555555")


@dataclass(slots=True)
class RunInputs:
    """The inputs, in the order of their creation, and the requests for them."""

    values: dict[str, str] = field(default_factory=dict)  # each input's text, by its key
    requests: list[str] = field(default_factory=list)  # the paths that were asked for
    longest: int = 0  # bytes of the longest request

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        self.requests.append(asked.path)
        self.longest = max(self.longest, len(asked.body))
        status, body = self._answer(asked.path, asked.body)
        return await reply(body, status=status)(reader, writer, asked)

    def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path.endswith("/input/filter"):
            return 200, self._filter(**json.loads(body))
        if path.endswith("/input"):
            given = json.loads(body)
            if given["key"] in self.values:
                return 409, b"{}"
            self.values[given["key"]] = given["value"]
            return 201, b"{}"
        value = self.values.get(path.rpartition("/")[2])
        return (404, b"{}") if value is None else (200, value.encode())

    def _filter(self, *, prefix: str, limit: int, exclude_keys: list[str]) -> bytes:
        excluded = set(exclude_keys)
        found = [key for key in self.values if key.startswith(prefix) and key not in excluded][:limit]
        rows = [{"flow_run_id": str(RUN), "key": key, "value": self.values[key]} for key in found]
        return json.dumps(rows).encode()


@asynccontextmanager
async def prefect_api(*answers: Step, always: Step | None = None) -> AsyncIterator[WireServer]:
    """A Prefect API that gives these answers, one after another; this process's settings point at it."""
    async with WireServer(always=always) as server:
        with temporary_settings({PREFECT_API_URL: f"{server.plays(*answers).url}/api"}):
            yield server
            await disconnect()


def job_keys(count: int) -> list[str]:
    """Keys of so many jobs, as evenly spread as hashes are."""
    return [f"{number * 2654435761 % 2**32:08x}{number:016x}" for number in range(1, count + 1)]


def submitted(key: str, n: int = 1) -> dict[str, str]:
    """The records of a job whose task runs, as text."""
    task_id = str(2 * 10**18 + int(key[8:], 16))
    records: Mapping[str, Record] = {f"intent-{n}": intent(), f"answer-{n}": ticket(task_id)}
    return {f"{key}-{name}": record.model_dump_json() for name, record in records.items()}


def logged(records: Mapping[str, str], *, together: int = 3) -> dict[str, str]:
    """The inputs of a flow run whose journal has these records, so many in one entry."""
    names = list(records)
    parts = [names[start : start + together] for start in range(0, len(names), together)]
    entries = [encode(f"writer-{number}", {key: records[key] for key in part}) for number, part in enumerate(parts)]
    return {f"rh-log-{number:08}": text for number, text in enumerate(entries, 1)}
