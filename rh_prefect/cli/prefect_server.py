"""Provides the Prefect API for a command: the configured one, or a server that the command starts."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from rh_prefect.cli.argument_checks import is_flow_run_id
from rh_prefect.errors import ConfigError
from rh_prefect.settings import get_settings

_SERVICES = ("APILogWorker", "EventsWorker")
"""Loggers of Prefect that would print counts of unsent events among a command's lines."""


_own_home: list[Path] = []
"""The folder of the server that this command runs, if it runs one."""


def later_dashboard() -> str:
    """Returns how to see this command's runs after its own server has ended; empty for another server."""
    return f"PREFECT_HOME={shlex.quote(str(_own_home[-1]))} prefect server start" if _own_home else ""


@contextlib.contextmanager
def prefect_api(*, say: bool = True) -> Iterator[None]:
    """Provides a Prefect API: the configured one, or else a server that this command starts."""
    if is_configured():
        yield
        return
    with prefect_server(_home(), say=say) as url:
        os.environ["PREFECT_API_URL"] = url
        from rh_prefect.flow_runs.prefect_internals import refresh_global_settings_context

        # Prefect reads its settings once, and has already read them to find that no address is set.
        refresh_global_settings_context()
        yield


@contextlib.contextmanager
def staying_server(*, say: bool = True) -> Iterator[None]:
    """Provides a Prefect API as `prefect_api` does; a server that this command starts stays until Ctrl-C."""
    is_own, code = not is_configured(), None
    with prefect_api(say=say):
        if is_own:
            _own_home.clear()  # this server outlives the run, so no command to see its dashboard later is printed
        try:
            yield
        except SystemExit as end:  # the run has ended, and its report is printed
            code = end
        if is_own:
            address = os.environ["PREFECT_API_URL"].removesuffix("/api")
            print(f"The dashboard stays at {address} until you press Ctrl-C.", file=sys.stderr, flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        if code is not None:
            raise code


def refuse_blocks(command: str, *names: str | None) -> None:
    """Raises a `ConfigError` if a block is named and no Prefect API is configured."""
    name = next(filter(None, names), None)
    if name is not None and not is_configured():
        raise ConfigError(
            f"{command}: the block {name!r} is named, and blocks are stored in a Prefect API, but PREFECT_API_URL is "
            "not set. Nothing was sent. What to do: set it to the address of the API; or use RH_API_KEY and --out or "
            "RH_STORAGE_URL in place of blocks."
        )


@contextlib.contextmanager
def api_of_earlier_runs(run: str | None = None, *, of: str = "") -> Iterator[None]:
    """Provides an API as `prefect_api` does, for commands that read runs; starts a server only if needed.

    `run` is a flow run's id, or a scope outside of flows, which does not need Prefect. None means all runs with
    records, or with records of the kind `of`.
    """
    is_flow_run, database = run is not None and is_flow_run_id(run), _home() / "prefect.db"
    is_here = database.exists() if is_flow_run else has_journals(database, of)
    if is_flow_run and not is_here and not is_configured():
        raise ConfigError(
            f"The records of flow run {run} are in the Prefect API that it ran on, but PREFECT_API_URL is not set, "
            "and this machine has no records of flows that ran without it. What to do: set PREFECT_API_URL to the "
            "address of that API, as in `export PREFECT_API_URL=http://127.0.0.1:4200/api`."
        )
    is_needed = (run is None or is_flow_run) and is_here
    with prefect_api() if is_needed or is_configured() else contextlib.nullcontext():
        yield


def has_journals(database: Path, of: str = "") -> bool:
    """Returns whether flow runs in a Prefect database have records of jobs; True if it cannot be read.

    This avoids starting a server, which takes 20 seconds, only to find none.
    """
    if not database.exists():
        return False
    question = "SELECT 1 FROM flow_run_input WHERE key LIKE 'rh-%' AND value LIKE ? LIMIT 1"
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as reader:
            return reader.execute(question, (f"%{of}%",)).fetchone() is not None
    except sqlite3.Error:
        return True


def unread_flow_runs() -> list[str]:
    """Returns notes about flow runs that were not read, because no API is configured for them."""
    if is_configured():
        return []
    from prefect.settings import PREFECT_HOME

    notes, own = ["flow runs are not included, because PREFECT_API_URL is not set"], PREFECT_HOME.value() / "prefect.db"
    if own.exists() and has_journals(own):
        notes.append(
            f"flows with paid jobs that ran without it are in {own}: run `prefect server start`, and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    return notes


def _home() -> Path:
    return get_settings().state_dir / "prefect"


def is_configured() -> bool:
    """Returns whether a Prefect API is configured; stops all other output to the terminal."""
    # Before Prefect is imported, which sets its logging up then.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for service in _SERVICES:
        logging.getLogger(service).setLevel(logging.ERROR)
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def prefect_failed(error: Exception) -> str:
    """Returns an error message for an error of httpx in a request to the Prefect API."""
    from rh_prefect.prefect_api import api_address, failure_of

    answer, advice = failure_of(error)
    return f"The Prefect API at {api_address()}: {answer}. What to do: {advice}; {WITHOUT_SERVER}."


WITHOUT_SERVER = (
    "to work without a server, `prefect config unset PREFECT_API_URL`, and `unset PREFECT_API_URL` in this shell"
)

PREFECT_STARTS_IN = 180.0
"""Maximum seconds for the server's start; the first one creates the database, which may be slow."""

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    # The run's log is in the dashboard; the terminal gets this command's own lines.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}


def free_port() -> int:
    """Returns a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def prefect_server(home: Path, *, say: bool = True) -> Iterator[str]:
    """Runs Prefect's own server on SQLite for the length of a `with` block, and yields its API's address.

    Its folder `home` keeps its runs. Raises a `ConfigError` with the reason if it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = {**QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    log = home / "server.log"
    server = _start(command, env, log)
    try:
        _wait_until_up(server, f"http://127.0.0.1:{port}/api/health", log=log, say=say)
        _own_home.append(home)
        yield env["PREFECT_API_URL"]
    finally:
        _own_home.clear()
        _end(server)


def _start(command: list[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            return subprocess.Popen(  # noqa: S603, the command is our own
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C is for this command, which then ends its server itself, in order.
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigError(
            f"Prefect's server cannot write its files, or cannot be started: {error}. What to do: choose another "
            "folder, or install the package again."
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children, which form a separate session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            break
    # The leader has ended; the rest of its group is also ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _wait_until_up(server: subprocess.Popen[bytes], url: str, *, log: Path, say: bool) -> None:
    began = time.monotonic()
    while time.monotonic() - began < PREFECT_STARTS_IN:
        if server.poll() is not None:
            raise _not_up(log)
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310, our own URL
            break
        if say and sys.stderr.isatty():
            print(
                f"\rstarting Prefect's server … {time.monotonic() - began:.0f} s", end="", flush=True, file=sys.stderr
            )
        time.sleep(0.3)
    else:
        raise _not_up(log)
    if say:
        # Beside the data of a command, which another program may read.
        print(f"\rPrefect's server is running ({time.monotonic() - began:.0f} s)        ", flush=True, file=sys.stderr)


def _not_up(log: Path) -> ConfigError:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    except OSError as error:
        lines = [str(error)]
    output = "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"
    return ConfigError(
        f"Prefect's server did not start. It said:\n{output}\nWhat to do: repair what it names; the whole log is {log}."
    )
