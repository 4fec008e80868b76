"""Connections that send nothing, or nearly nothing, and a delivery among them."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rh_prefect.webhook.server import BoundedProtocol
from tests.support.servers.webhook_receiver import TOKEN, ReceiverProcess, receiver

SILENT = 500


class Hasty(BoundedProtocol):
    head_seconds = 0.5


class Narrow(BoundedProtocol):
    most_waiting = 3


def deliver(url: str, *, client: httpx.Client) -> int:
    told = {"taskId": "2031112223334445057"}
    return client.post(f"{url}/hook/{TOKEN}/run/0123456789abcdef/1", json=told).status_code


def connect(url: str) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=300)
    found.settimeout(30)
    return found


def is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_silent_connections_do_not_keep_a_delivery_out(tmp_path: Path) -> None:
    env = {"RH_WEBHOOK_TOKEN": TOKEN, "RH_STATE_DIR": str(tmp_path / "state")}
    process = ReceiverProcess(env, log=tmp_path / "log")
    try:
        process.start()
        with ExitStack() as stack:
            for _ in range(SILENT):
                stack.enter_context(connect(process.url))
            client = stack.enter_context(httpx.Client(trust_env=False, timeout=300))
            assert [deliver(process.url, client=client) for _ in range(3)] == [200] * 3
    finally:
        process.end()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /hook/x HTTP/1.1\r\nHost: x\r\n",
        b"POST /hook/x/run/a1/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n",
    ],
    ids=["silent", "half a head", "a body that never ends"],
)
def test_a_connection_that_sends_no_whole_request_is_closed(beginning: bytes) -> None:
    """However slowly something comes, the time for a head is limited."""
    with receiver(protocol=Hasty) as callback, connect(callback.url) as slow:
        slow.sendall(beginning)
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.1):
                try:
                    slow.sendall(b"x" if beginning else b"")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert is_closed(slow)
        finally:
            ended.set()
            thread.join()


def test_for_one_too_many_the_oldest_silent_one_is_closed() -> None:
    """Idle connections do not count against others."""
    with receiver(protocol=Narrow) as callback, ExitStack() as stack:
        silent = [stack.enter_context(connect(callback.url)) for _ in range(6)]
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=300))
        assert deliver(callback.url, client=client) == 200
        assert all(is_closed(one) for one in silent[:3])
