"""A network backend of httpcore in which a thread streams the body of a large response to disk.

On an event loop each piece of a body passes several layers, and all other work waits behind
it: decryption too. A thread takes a piece from the socket to the disk in two calls, which both let others run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

import httpcore
import httpx

T = TypeVar("T")

PIECE: Final = 1024 * 1024
"""Bytes that are read at once: smaller pieces make several threads wait for each other more often than for bytes."""


class ThreadedStream(httpcore.AsyncNetworkStream):
    """A network stream whose calls all run in a thread; `inner` is the blocking stream."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads the available bytes, up to a limit."""
        return await self._unless_cancelled(asyncio.to_thread(self._inner.read, max_bytes, timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes all bytes of a buffer."""
        await self._unless_cancelled(asyncio.to_thread(self._inner.write, buffer, timeout))

    async def pour(self, length: int, take: Callable[[memoryview], object], *, timeout: float | None) -> None:
        """Reads a long body in its own thread, and passes each piece to a callback in that thread.

        Args:
            length: Bytes of the body.
            take: Called with each piece, in that thread; the piece is gone when it returns.
            timeout: The longest wait for the next piece, in seconds.
        """
        try:
            await self._unless_cancelled(_in_own_thread(functools.partial(self._pour, length, take, timeout)))
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _pour(self, length: int, take: Callable[[memoryview], object], timeout: float | None) -> None:
        # One buffer for all: what is allocated for each piece has to be cleared by the system first.
        buffer, remaining = memoryview(bytearray(PIECE)), length
        self._socket.settimeout(timeout)
        while remaining:
            came = self._socket.recv_into(buffer[: min(remaining, PIECE)])
            if not came:
                raise httpx.RemoteProtocolError(f"{remaining} bytes of the body are missing")
            take(buffer[:came])
            remaining -= came

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self._inner.get_extra_info("socket")
        return found

    async def aclose(self) -> None:
        """Closes it."""
        self._inner.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> ThreadedStream:
        """Switches the connection to TLS."""
        secured = asyncio.to_thread(self._inner.start_tls, ssl_context, server_hostname, timeout)
        return ThreadedStream(await self._unless_cancelled(secured))

    def get_extra_info(self, info: str) -> Any:  # its signature
        """Returns the connection information that httpcore requests."""
        return self._inner.get_extra_info(info)

    async def _unless_cancelled(self, work: Awaitable[T]) -> T:
        """Waits for a thread; on cancellation, shuts down the socket and waits for the thread's end."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(OSError):
                # Not the method of an SSLSocket: it ends the decryption, and the thread would take encrypted bytes.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            await asyncio.wait([task])
            with suppress(Exception):  # of a connection that was just cut
                task.result()
            raise


class ThreadedBackend(httpcore.AsyncNetworkBackend):
    """A network backend that opens threaded connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> ThreadedStream:
        """Connects to a host."""
        connect = httpcore.SyncBackend().connect_tcp
        opening = asyncio.ensure_future(
            asyncio.to_thread(connect, host, port, timeout, local_address, socket_options or ())
        )
        try:
            return ThreadedStream(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


class FileTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over threaded connections."""

    def __init__(self, *, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        super().__init__(verify=verify, limits=limits)
        # httpx itself offers no choice of a backend.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=verify,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=ThreadedBackend(),
        )


def _in_own_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Runs a long call in a separate thread, not one of the loop's few; a daemon, so that the process may exit."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="rh_prefect-file", daemon=True).start()
    return asyncio.wrap_future(future)


def _close(opening: asyncio.Future[httpcore.NetworkStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
