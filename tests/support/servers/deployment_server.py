"""A Prefect server with the deployments of `deployments/`, and process workers that a test can kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.works.journal.job_records_and_state import JobView, jobs_of
from tests.support.processes.end_with_parent import end_with_parent
from tests.support.processes.flow_process import ROOT
from tests.support.servers.prefect_server import PrefectServer
from tests.support.waiting import until

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
POOL = "media"

_SHORT = {
    # What takes minutes by default, so that a test sees it in seconds.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "15",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    # The server acts by the automations.
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true",
    # No sweep by the clock in the middle of a test.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
}


class Worker:
    def __init__(self, env: Mapping[str, str], folder: Path, name: str, *, limit: int | None = None) -> None:
        self.log = folder / f"{name}.log"
        command = [*PREFECT, "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
        command += ["--limit", str(limit)] if limit else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills the worker alone; its flow runs' processes go on."""
        send(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Workplace:
    """One server, what is deployed on it, and its workers; see `workplace`."""

    def __init__(self, server: PrefectServer, folder: Path, env: Mapping[str, str]) -> None:
        self.server = server
        self.folder = folder
        self.env = {**server.env, **env, "PYTHONPATH": str(ROOT), "WORKPLACE": str(folder)}
        self.workers: list[Worker] = []  # all that were ever hired

    def prefect(self, *words: str, folder: Path = ROOT) -> str:
        """Runs Prefect's command line in a folder, by default the top of the repository; what it said."""
        done = subprocess.run([*PREFECT, *words], env=self.env, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def deploy(self, *entrypoints: str) -> None:
        """Deploys flows by their modules' paths, as `<flow>/test`, with the tag that the automations look for."""
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
            for entrypoint in entrypoints:
                flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
                await client.create_deployment(
                    await client.create_flow(flow),
                    name="test",
                    entrypoint=entrypoint,
                    pull_steps=[],
                    work_pool_name=POOL,
                    tags=["media"],
                    parameter_openapi_schema=flow.parameters.model_dump(),
                )

    def hire(self, *, limit: int | None = None, env: Mapping[str, str] | None = None) -> Worker:
        """Starts a worker; `env` adds to its environment."""
        name = f"worker-{len(self.workers) + 1}"
        self.workers.append(Worker({**self.env, **(env or {})}, self.folder, name, limit=limit))
        return self.workers[-1]

    def staff(self) -> None:
        """Sees that there is a worker."""
        if not any(worker.is_running for worker in self.workers):
            self.hire()

    async def start(self, deployment: str, **parameters: Any) -> UUID:
        self.staff()
        async with get_client() as client:
            found = await client.read_deployment_by_name(deployment)
            return (await client.create_flow_run_from_deployment(found.id, parameters=parameters)).id

    async def look(self, run: UUID) -> FlowRun:
        async with get_client() as client:
            return await client.read_flow_run(run)

    async def end_of(self, run: UUID) -> State[Any]:
        """Waits for the end of a run; its state."""

        async def has_ended() -> bool:
            state = (await self.look(run)).state
            return state is not None and state.is_final()

        await self.until(has_ended)
        state = (await self.look(run)).state
        assert state is not None
        return state

    async def is_in(self, run: UUID, state: str, *, attempt: int = 1) -> bool:
        """Whether a run is in a state, by its name, in that attempt or a later one."""
        found = await self.look(run)
        return found.state is not None and found.state.name == state and found.run_count >= attempt

    async def until_told(self, run: UUID, words: str) -> None:
        """Waits until a flow run's logs in the dashboard say this; they come a little after the fact."""

        async def is_told() -> bool:
            async with get_client() as client:
                lines = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))
            return any(words in line.message for line in lines)

        await self.until(is_told)

    async def jobs(self, run: UUID) -> list[JobView]:
        return [view async for view in jobs_of(FlowRunJournal(run))]

    async def until(self, reached: Callable[[], object], *, seconds: float = 600.0) -> None:
        """Looks until it is so; shows what the workers wrote where it does not come to that."""
        await until(reached, seconds=seconds, said=self.said)

    def processes_of(self, run: UUID) -> list[int]:
        return sorted(_processes(WORKPLACE=str(self.folder), PREFECT__FLOW_RUN_ID=str(run)))

    def signal(self, run: UUID, number: int) -> None:
        found = self.processes_of(run)
        assert found, "nobody runs it"
        for pid in found:
            send(pid, number)

    def black_out(self) -> None:
        """Kills all workers and all that they run, as a machine does that loses its power."""
        for worker in self.workers:
            worker.kill()
        for pid in _processes(WORKPLACE=str(self.folder)):
            send(pid, signal.SIGKILL)

    def said(self) -> str:
        return "\n".join(worker.log.read_text(errors="replace")[-6000:] for worker in self.workers[-2:])


@contextmanager
def workplace(
    folder: Path, env: Mapping[str, str], *, template: Path | None = None, database: str | None = None
) -> Iterator[Workplace]:
    """Opens a workplace; this process's settings point at its server meanwhile."""
    with PrefectServer(folder / "prefect", template=template, database=database, settings=_SHORT) as server:
        place = Workplace(server, folder, env)
        try:
            with temporary_settings({PREFECT_API_URL: server.api}):
                yield place
        finally:
            place.black_out()


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _processes(**env: str) -> list[int]:
    """All processes that were started with this in their environment, whoever is their parent by now."""
    wanted = {f"{name}={value}".encode() for name, value in env.items()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found
