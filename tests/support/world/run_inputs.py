"""The part of Prefect 3.9's API that stores the inputs of one flow run; it counts requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from rh_prefect.flow_runs.append_only_log import encode
from rh_prefect.works.journal.record_types import Record
from tests.support.world.job_records import intent, ticket

RUN = UUID("11111111-2222-4333-8444-555555555555")


@dataclass(slots=True)
class RunInputs:
    """The inputs, in the order of their creation, and the requests for them.

    Attributes:
        values: Each input's text, by its key.
        seconds: How long a request takes.
        requests: The paths that were asked for.
        longest: Bytes of the longest request.
    """

    values: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    requests: list[str] = field(default_factory=list)
    longest: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            lines = head.lower().splitlines()
            length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
            status, answer = self._answer(head.split(" ")[1], await reader.readexactly(length))
            await asyncio.sleep(self.seconds)
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
            await writer.drain()
        writer.close()

    def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if "csrf-token" in path:
            return 422, b"CSRF protection is disabled."
        self.requests.append(path)
        self.longest = max(self.longest, len(body))
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
async def serve(inputs: RunInputs) -> AsyncIterator[str]:
    """Serves inputs; yields the API's address."""
    server = await asyncio.start_server(inputs, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    finally:
        server.close()


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
