"""The package's event loop: one daemon thread per process, which runs clients, pollers, slots and journals.

A Prefect task may run on any loop, in any thread, and may be cancelled at any await. But a submission must not be
cancelled, so submissions run on this loop, and their callers wait.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

JOIN_SECONDS = 20.0
"""Maximum seconds to wait for submissions in flight at process exit; Prefect kills the process 30 s after SIGTERM."""

WORKERS = 32
"""Maximum number of threads for blocking calls: records, small files, DNS."""

FILE_WORKERS = 16
"""Maximum number of separate threads for the contents of inputs and outputs, which may take minutes each."""

ANSWER_WORKERS = 4
"""Maximum number of separate threads that write RunningHub's answers to this machine's disk.

The record of a paid task waits for no other call, even if the storage or the place of the records is slow.
"""


class _Workers(concurrent.futures.ThreadPoolExecutor):
    """The loop's threads for blocking calls; they accept calls until the process exits.

    The standard library's executor accepts no calls after the main thread has ended. But a submission in flight at that
    moment needs threads for DNS and for the record of its answer.

    The number of threads is the highest number of concurrent calls plus one, because Python 3.12 starts no thread at
    process exit. More threads would cost memory, because each thread gets a heap from glibc, which keeps freed memory.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._work: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._counts = threading.Lock()
        self._started = 0
        self._pending = 0
        self._start_missing()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._counts:
            self._pending += 1
            self._work.put((future, functools.partial(fn, *args, **kwargs)))
            with contextlib.suppress(RuntimeError):  # at process exit, the existing threads run the call
                self._start_missing()
        return future

    def _start_missing(self) -> None:
        if self._started < min(self._pending + 1, self._max_workers):
            threading.Thread(target=self._run, name="rh_prefect-worker", daemon=True).start()
            self._started += 1

    def _run(self) -> None:
        while True:
            future, call = self._work.get()
            if future.set_running_or_notify_cancel():
                self._settle(future, call)
            else:
                self._end_call()
            del future, call

    def _settle(self, future: concurrent.futures.Future[Any], call: Callable[[], Any]) -> None:
        settle: Callable[[Any], None]
        try:
            outcome, settle = call(), future.set_result
        except BaseException as error:
            outcome, settle = error, future.set_exception
        # Counted as ended before the result is set: the caller's next call takes this thread.
        self._end_call()
        settle(outcome)
        del outcome, settle, future  # the traceback of an error refers to this frame

    def _end_call(self) -> None:
        with self._counts:
            self._pending -= 1


class LoopThread:
    """An event loop on a daemon thread, started on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._critical: set[asyncio.Task[Any]] = set()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._workers: dict[str, _Workers] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    @property
    def is_submitting(self) -> bool:
        """Whether critical sections, such as submissions, are running."""
        return bool(self._critical)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Starts a coroutine on the loop, in a copy of the caller's context variables."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Starts a coroutine on the loop, and returns a future that the caller awaits on its own loop.

        If the caller is cancelled, the coroutine is cancelled outside of its critical sections.
        """
        return asyncio.wrap_future(self.submit(coroutine))

    def call_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop, and blocks until it has ended."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "A blocking call on the package's own loop thread would wait for itself. Nothing was sent. What to do: "
                "await the asynchronous form, such as fetch_result_async, or call in another thread."
            )
        return self.submit(coroutine).result()

    async def in_file_thread(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Runs a call for the contents of files like `asyncio.to_thread`, but in one of `FILE_WORKERS` threads."""
        return await self._in_thread_of("files", FILE_WORKERS, functools.partial(function, *args, **options))

    async def in_answer_thread(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Runs a call that writes an answer like `asyncio.to_thread`, but in one of `ANSWER_WORKERS` threads."""
        return await self._in_thread_of("answers", ANSWER_WORKERS, functools.partial(function, *args, **options))

    def _in_thread_of(self, kind: str, most: int, call: Callable[[], T]) -> asyncio.Future[T]:
        with self._lock:
            if kind not in self._workers:
                self._workers[kind] = _Workers(most)
        return asyncio.get_running_loop().run_in_executor(self._workers[kind], contextvars.copy_context().run, call)

    def critical(
        self, coroutine: Coroutine[Any, Any, T], *, then: Callable[[], object] = lambda: None
    ) -> asyncio.Future[T]:
        """Runs a coroutine to its end, even if the caller is cancelled; process exit also waits for it.

        If the process is exiting, the coroutine is not started and the future is cancelled. `then` is called when the
        coroutine has ended, or is not started.
        """
        if self._is_ending:
            coroutine.close()
            then()
            refused: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            refused.cancel("the process is ending")
            return refused
        self._critical.add(task := asyncio.ensure_future(coroutine))
        task.add_done_callback(self._critical.discard)
        task.add_done_callback(lambda _: then())
        return asyncio.shield(task)

    async def settle(self, seconds: float) -> None:
        """Waits until the current critical sections have ended, for at most the given seconds; call it on the loop."""
        if self._critical:
            await asyncio.wait(set(self._critical), timeout=seconds)

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Registers a coroutine function to run on the loop at process exit; registering twice has no effect."""
        if closer not in self._closers:
            self._closers.append(closer)

    def forget_closer(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Unregisters a coroutine function that has run already or is not needed at process exit."""
        if closer in self._closers:
            self._closers.remove(closer)

    def _start(self) -> asyncio.AbstractEventLoop:
        atexit.register(self._join)
        loop = asyncio.new_event_loop()
        loop.set_default_executor(_Workers(WORKERS))
        self._thread = threading.Thread(target=loop.run_forever, name="rh_prefect", daemon=True)
        self._thread.start()
        return loop

    def _join(self) -> None:
        # A forked child inherits its parent's atexit registration and adds its own, so this can run twice.
        if self._loop is None or self._thread is None or self._is_ending:
            return
        loop, closing = self._loop, asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        self._thread.join(JOIN_SECONDS)

    async def _close(self) -> None:
        self._is_ending = True
        await asyncio.gather(*self._critical, return_exceptions=True)
        for closer in self._closers:
            with contextlib.suppress(Exception):  # at process exit, no handler is left
                await closer()


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancels a task, repeatedly, until it has ended.

    A library may lose a cancellation, for example while a connection fails.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)


LOOP = LoopThread()
"""This process's loop."""


def _after_fork() -> None:
    # The child has the parent's loop object but not its thread; it starts its own on first use. A method closes an
    # object of the parent; the modules, which have registered functions, are not imported again.
    closers = [closer for closer in LOOP._closers if not inspect.ismethod(closer)]
    LOOP.__init__()  # type: ignore[misc]
    LOOP._closers = closers


os.register_at_fork(after_in_child=_after_fork)
