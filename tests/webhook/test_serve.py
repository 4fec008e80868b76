"""`rh-prefect webhook serve`: what it shows, what it keeps to itself, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import threading
import weakref
from contextlib import suppress

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.cli.emulator_and_webhook import serve_
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.suspended_run_resumer import SuspendedRunResumer
from rh_prefect.gallery.server import listen
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.prefect_server import free_port
from tests.support.waiting import wait_until

TOKEN = "canary-token-that-is-set-already"


def serve_until_up(host: str = "127.0.0.1") -> int:
    """Serves until a request for the health is answered, and is interrupted then; the port."""
    port, seen = free_port(), list[int]()

    def is_up() -> bool:
        with suppress(httpx.TransportError):
            address = f"[{host}]" if ":" in host else host
            seen.append(httpx.get(f"http://{address}:{port}/health", trust_env=False).status_code)
        return bool(seen)

    def interrupt() -> None:
        wait_until(is_up)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        serve_(host=host, port=port)
    assert seen == [200]
    return port


@pytest.fixture(autouse=True)
def _logs(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("rh_prefect")
    for name in ("propagate", "level"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr(log, "handlers", list(log.handlers))


def test_a_token_that_is_set_is_not_shown_and_the_address_as_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", TOKEN)
    monkeypatch.setenv("RH_WEBHOOK_URL", "https://hooks.example.net")
    port = serve_until_up()
    shown = capsys.readouterr()
    assert f"received at http://127.0.0.1:{port}" in shown.out
    assert "export RH_WEBHOOK_URL=https://hooks.example.net\n" in shown.out
    assert TOKEN not in shown.out + shown.err
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{port}/health")


def test_an_empty_token_is_replaced_and_an_ipv6_address_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RH_WEBHOOK_TOKEN", "RH_WEBHOOK_URL"):
        monkeypatch.setenv(name, "")
    port = serve_until_up("::1")
    shown = capsys.readouterr().out
    assert re.search(r"^export RH_WEBHOOK_TOKEN=\S{20,}\n", shown, re.MULTILINE)
    assert f"export RH_WEBHOOK_URL=http://[::1]:{port}\n\nInstead of this address" in shown


def test_the_address_of_all_ipv6_interfaces_takes_ipv4_too() -> None:
    with listen("::", 0, what="webhook serve") as listening:
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=10).close()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            serve_(port=port)


def test_a_host_that_this_machine_does_not_have_is_said() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:.* What to do: check --host"):
        serve_(host="192.0.2.1", port=free_port())


async def test_a_watch_that_was_closed_is_not_kept(closed_port: int) -> None:
    """Each restart of the receiver's watch left a function in the list of what the process's end calls."""
    watches: list[weakref.ref[SuspendedRunResumer]] = []
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}):
        for _ in range(3):
            resumer = SuspendedRunResumer()
            for _ in range(2):
                resumer.start()
                await LOOP.call(resumer.close())
            watches.append(weakref.ref(resumer))
            del resumer
    await LOOP.call(asyncio.sleep(0))  # what the loop still had to do is done
    gc.collect()
    assert [watch() for watch in watches] == [None] * 3
