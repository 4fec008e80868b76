"""Provides the Prefect API for a command: the configured one, or a server that the command starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rh_prefect.errors import ConfigError


@contextlib.contextmanager
def prefect_api(*, say: bool = True) -> Iterator[None]:
    """Provides a Prefect API: the configured one, or else Prefect's own server for the length of a `with` block.

    This server's runs stay in PREFECT_HOME, where `prefect server start` finds them. Raises a `ConfigError` with
    the reason if the server does not start.
    """
    if is_configured():
        yield
        return
    from prefect.settings import PREFECT_HOME

    from rh_prefect.prefect_internals import refresh_global_settings_context

    address, log = f"http://127.0.0.1:{_free_port()}", PREFECT_HOME.value() / "server.log"
    _exclude_from_proxy("127.0.0.1,localhost")
    server = _start(address, log)
    try:
        _wait_until_up(server, address, log=log, say=say)
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        # Prefect reads its settings once, and has already read them to find that no address is set.
        refresh_global_settings_context()
        yield
    finally:
        _end(server)


@contextlib.contextmanager
def staying_server(*, say: bool = True) -> Iterator[None]:
    """Provides a Prefect API as `prefect_api` does; a server that this command starts stays until Ctrl-C."""
    is_own, code = not is_configured(), None
    with prefect_api(say=say):
        try:
            yield
        except SystemExit as end:  # the run has ended, and its report is printed
            code = end
        if is_own:
            address = os.environ["PREFECT_API_URL"].removesuffix("/api")
            with contextlib.suppress(KeyboardInterrupt):
                print(f"The dashboard stays at {address} until you press Ctrl-C.", file=sys.stderr, flush=True)
                while True:  # not `signal.pause()`, which misses a Ctrl-C that comes just before it waits
                    time.sleep(1)
        if code is not None:
            raise code


def refuse_blocks(command: str, *names: str | None) -> None:
    """Raises a `ConfigError` if a block is named and no Prefect API is configured."""
    name = next(filter(None, names), None)
    if name is not None and not is_configured():
        raise ConfigError(
            f"{command}: the block {name!r} cannot be loaded, because blocks are stored in a Prefect API and "
            "PREFECT_API_URL is not set. Nothing was sent. What to do: set PREFECT_API_URL to the address of the API; "
            "or, instead of blocks, use RH_API_KEY together with either --out or RH_STORAGE_URL."
        )


def is_configured() -> bool:
    """Returns whether a Prefect API is configured."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def prefect_failed(error: Exception) -> str:
    """Returns an error message for an httpx error in a request to the Prefect API."""
    from rh_prefect.prefect_api import api_address, failure_of

    answer, advice = failure_of(error)
    return f"The Prefect API at {api_address()}: {answer}. What to do: {advice}; {WITHOUT_SERVER}."


WITHOUT_SERVER = (
    "to work without a server, run `prefect config unset PREFECT_API_URL`, and `unset PREFECT_API_URL` in this shell"
)

PREFECT_STARTS_IN = 180.0
"""Maximum seconds for the server's start; the first start creates the database, which may be slow."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exclude_from_proxy(hosts: str) -> None:
    """Adds hosts to those that this process and its children reach without the proxy of the environment."""
    known = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    # On macOS, each of these variables replaces the proxies of the system.
    if urllib.request.getproxies_environment() and known.strip() != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (known, hosts)))


def _start(address: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            return subprocess.Popen(  # noqa: S603, the command is our own
                [*command, "--port", address.rpartition(":")[2]],
                env={**os.environ, "PREFECT_API_URL": f"{address}/api"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C is for this command, which then ends its server itself, in order.
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigError(
            f"Prefect's server cannot be started: {error}. Nothing was paid. What to do: set PREFECT_HOME to a folder "
            "that you may write to; if the error says that a program is missing, install the package again."
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children, which form a separate session."""
    # The second signal is for the rest of the group, or all of it if it did not end in time.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


def _wait_until_up(server: subprocess.Popen[bytes], address: str, *, log: Path, say: bool) -> None:
    health, began = f"{address}/api/health", time.monotonic()
    while server.poll() is None and time.monotonic() - began < PREFECT_STARTS_IN:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):  # noqa: S310, our own URL
            break
        if say and sys.stderr.isatty():
            print(
                f"\rstarting Prefect's server … {time.monotonic() - began:.0f} s", end="", flush=True, file=sys.stderr
            )
        time.sleep(0.3)
    else:
        raise _not_up(log)
    if say:
        # On stderr, because another program may read the command's data on stdout.
        print(f"\rPrefect's server is running ({time.monotonic() - began:.0f} s)        ", flush=True, file=sys.stderr)


def _not_up(log: Path) -> ConfigError:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    except OSError as error:
        lines = [str(error)]
    output = "\n".join(f"    {line}" for line in lines) or "    (no output)"
    return ConfigError(
        f"Prefect's server did not start. Its output:\n{output}\nWhat to do: correct what the output names; the whole "
        f"log is {log}."
    )
