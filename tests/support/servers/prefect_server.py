"""A real `prefect server start` on SQLite: one for the session, and separate ones for tests that need them.

The first start on a fresh database takes 9 s, most of it migrations; a start on a migrated one takes 3 s. So
`python -m tests.support.servers.prefect_server FILE` makes a fresh database when everything is installed. Without it,
the first server of all leaves a copy of its database in pytest's cache, and the others wait for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import prefect.context
import pytest
import stamina
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import SettingsContext
from prefect.events.worker import EventsWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    PREFECT_RESULTS_LOCAL_STORAGE_PATH,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from rh_prefect.prefect_internals import drain
from tests.support.processes.end_with_parent import end_with_parent

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Each client would ask for both; a flow run opens several.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    # Not one of these does anything in a test but cost CPU.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}
_PREFECT = """
import gc, runpy
gc.set_threshold(100_000, 50, 100)
runpy.run_module("prefect", run_name="__main__", alter_sys=True)
"""
"""`python -m prefect` with fewer garbage collections, which take a quarter of its CPU until it has started."""
_ADDRESS = pytest.StashKey[str]()
"""The address of the session's server, once it has started."""


class PrefectServer:
    def __init__(
        self,
        home: Path,
        *,
        template: Path | None = None,
        database: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.log = home / "server.log"
        self._template = template if database is None else None
        self._database = database
        self._settings = settings or {}
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"  # address of its dashboard
        self.api = f"{self.url}/api"  # address of its API

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RH_"))}
        own = {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.api}
        return {**kept, **_QUIET, **own, **self._settings}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with _only_one(self._template):
            self._start()

    def _start(self) -> None:
        database = self.home / "prefect.db"
        if self._template and self._template.exists() and not database.exists():
            _copy_database(self._template, database)
        command = [sys.executable, "-c", _PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        env = self.env
        del env["PREFECT_API_URL"]
        if self._template and self._template.exists():  # whose block types are those of this very Prefect
            env["PREFECT_API_BLOCKS_REGISTER_ON_START"] = "false"
            # It would import all collections, this one too, to see whether there are others: 1.2 s of CPU.
            env["PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION"] = "false"
        if self._database:
            env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self._database
        with self.log.open("ab") as log:
            # A separate session: whatever it starts can be stopped with it, by id.
            self._process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent
            )
        self._wait()
        if self._template and not self._template.exists():
            _copy_database(database, self._template)

    def stop(self) -> None:
        process, self._process = self._process, None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process is not None and process.poll() is None:
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(timeout=10)

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 300
        with httpx.Client(timeout=5) as http:
            while time.monotonic() < deadline and self._process.poll() is None:
                with suppress(httpx.TransportError):
                    if http.get(f"{self.api}/health").status_code == 200:
                        return
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the Prefect server did not start:\n{self.log.read_text()[-4000:]}")


@flow
def empty() -> None: ...


def new_flow_run() -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_flow_run(empty).id


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that no server of another test gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@contextmanager
def _only_one(template: Path | None) -> Iterator[None]:
    """Has one process make the template while the others wait; where it exists, nobody waits."""
    if template is None or template.exists():
        yield
        return
    template.parent.mkdir(parents=True, exist_ok=True)
    with template.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_database(source: Path, target: Path) -> None:
    """Copies a SQLite file that may be in use; the target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(draft)) as writer:
        reader.backup(writer)
    draft.replace(target)


@pytest.fixture(scope="session")
def prefect_template(pytestconfig: pytest.Config) -> Path:
    """A database file that Prefect has migrated, for `PrefectServer(template=…)`; the first server makes it."""
    made = Path(sys.prefix) / "prefect.db"  # by the Makefile
    if made.exists():
        return made
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    folder = cache.mkdir("prefect") if cache is not None else Path(tempfile.gettempdir())  # `-p no:cacheprovider`
    return folder / f"migrated-{prefect.__version__}.db"


@pytest.fixture(scope="session")
def prefect_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, prefect_template: Path
) -> Iterator[PrefectServer]:
    """The session's Prefect server; this process's settings point at it from here on.

    A server of ours instead of `prefect_test_harness`: other processes can be pointed at it too, and it is up in a
    third of the time, because the harness migrates a new database each time.
    """
    server = PrefectServer(tmp_path_factory.mktemp("prefect"), template=prefect_template)
    with server, temporary_settings(_settings(server)):
        pytestconfig.stash[_ADDRESS] = server.api
        yield server
        drain_services()


@pytest.fixture(scope="module")
def no_earlier_flow_runs(prefect_server: PrefectServer) -> None:
    """Deletes the flow runs of earlier tests, for tests of what reads all flow runs: their emulators have stopped."""

    # The server deletes the logs of the flow runs in the background, and answers 503 while it has locked its database.
    @stamina.retry(on=httpx.HTTPStatusError, attempts=None, timeout=300)
    def delete_some() -> list[str]:
        deleted: list[str] = http.post("/flow_runs/bulk_delete", json={}).raise_for_status().json()["deleted"]
        return deleted

    with httpx.Client(base_url=prefect_server.api, timeout=300) as http:
        while delete_some():
            pass


@pytest.fixture(autouse=True)
def _only_the_server_asked_for(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hides the session's server from tests that do not ask for it: its flow runs are those of other tests."""
    address = request.config.stash.get(_ADDRESS, None)
    outside = prefect.context.GLOBAL_SETTINGS_CONTEXT
    if "prefect_server" in request.fixturenames or address is None or PREFECT_API_URL.value() != address:
        yield
        return
    assert outside is not None
    with outside.model_copy():
        yield


@pytest.fixture(autouse=True)
def _no_client_of_another_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends Prefect's clients of a server or proxy that only this test had: later tests would use them."""
    yield
    address = request.config.stash.get(_ADDRESS, "")
    for service in list(EventsWorker._instances.values()):  # type: ignore[misc]  # of all kinds of clients
        client = getattr(service, "_client", None)
        url = getattr(client, "api_url", None) or getattr(client, "_api_url", None)
        if url is not None and str(url).rstrip("/") != address:
            service._stop()


@pytest.fixture
def prefect_worker_processes(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all that Prefect does for a process pool use the session's server.

    The settings of a test reach its tasks. Prefect's thread that takes the events of the processes, and the processes
    themselves, read the settings of the environment; without an address there, a temporary server is started, which
    outlives the test.
    """
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api)
    monkeypatch.setattr(prefect.context, "GLOBAL_SETTINGS_CONTEXT", SettingsContext.get())


def drain_services() -> None:
    """Ends Prefect's clients of a server that is still there: at exit they would try for a minute."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, drain()).result()


def _settings(server: PrefectServer) -> dict[object, object]:
    return {
        PREFECT_HOME: server.home,
        PREFECT_API_URL: server.api,
        PREFECT_RESULTS_LOCAL_STORAGE_PATH: server.home / "storage",
        PREFECT_SERVER_EPHEMERAL_ENABLED: False,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False,
        # The heart-beat's thread sleeps in whole seconds, and every attempt of a sync flow waits for it.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, PrefectServer(Path(folder), template=Path(sys.argv[1])):
        pass
