from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rh_prefect.works.loop_thread import JOIN_SECONDS, LOOP, WORKERS, LoopThread, end_task
from tests.support.world.virtual_time import now

T = TypeVar("T")
NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


async def where() -> tuple[str, str]:
    return NAME.get(), threading.current_thread().name


async def critical(section: Coroutine[Any, Any, T]) -> T:
    return await LOOP.critical(section)


async def from_another_loop() -> tuple[str, str]:
    return await LOOP.call(where())


async def test_calls_get_the_context_variables_and_run_on_one_thread() -> None:
    NAME.set("caller")
    names = [await LOOP.call(where()), LOOP.call_sync(where()), LOOP.submit(where()).result()]
    names += await asyncio.gather(
        *(asyncio.to_thread(LOOP.call_sync, where()) for _ in range(4)),
        *(asyncio.to_thread(asyncio.run, from_another_loop()) for _ in range(4)),
    )
    assert names == [("caller", "rh_prefect")] * 11


def worker_threads() -> int:
    return sum(thread.name == "rh_prefect-worker" for thread in threading.enumerate())


def test_one_thread_more_than_blocking_calls_at_a_time_is_started() -> None:
    """Each thread has a heap of its own: 32 of them held over 100 MB after short calls, one after the other."""
    loop, before = LoopThread(), worker_threads()

    async def one_after_the_other() -> None:
        for _ in range(100):
            await asyncio.to_thread(int)

    async def cancel() -> None:
        for _ in range(WORKERS):
            call = asyncio.ensure_future(asyncio.to_thread(int))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.to_thread(int)

    async def all_together() -> None:
        barrier = threading.Barrier(WORKERS)
        await asyncio.gather(*(asyncio.to_thread(barrier.wait, 60) for _ in range(WORKERS)))

    async def fail() -> None:
        for _ in range(100):
            with suppress(ZeroDivisionError):
                await asyncio.to_thread(divmod, 1, 0)

    loop.call_sync(asyncio.sleep(0))
    assert worker_threads() - before == 1, "at process exit, none can be started"
    loop.call_sync(one_after_the_other())
    loop.call_sync(fail())
    assert worker_threads() - before == 2
    loop.call_sync(cancel())
    assert worker_threads() - before <= 4, "a call that is cancelled at once has ended"
    loop.call_sync(all_together())
    assert worker_threads() - before == WORKERS
    loop._join()
    loop.loop.close()


async def test_cancelling_the_wait_cancels_the_coroutine_on_the_loop() -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    caller = asyncio.ensure_future(LOOP.call(wait()))
    await asyncio.to_thread(began.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(cancelled.wait, 10)


async def test_a_critical_section_completes_when_its_caller_is_cancelled() -> None:
    began, go_on, ended = threading.Event(), asyncio.Event(), threading.Event()

    async def pay() -> None:
        began.set()
        await go_on.wait()
        ended.set()

    caller = asyncio.ensure_future(LOOP.call(critical(pay())))
    await asyncio.to_thread(began.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not ended.is_set()
    LOOP.loop.call_soon_threadsafe(go_on.set)
    assert await asyncio.to_thread(ended.wait, 10)


async def test_settle_waits_for_critical_sections_until_its_limit() -> None:
    answered = threading.Event()
    paid: list[str] = []

    async def pay() -> None:
        await asyncio.to_thread(answered.wait)
        paid.append("yes")

    LOOP.submit(critical(pay()))
    await LOOP.call(LOOP.settle(0.01))
    assert (paid, LOOP.is_submitting) == ([], True)
    settled = asyncio.ensure_future(LOOP.call(LOOP.settle(60)))
    answered.set()
    await settled
    assert (paid, LOOP.is_submitting) == (["yes"], False)


async def test_a_blocking_call_on_the_loop_s_own_thread_is_refused() -> None:
    async def block() -> None:
        LOOP.call_sync(where())

    with pytest.raises(RuntimeError, match="wait for itself"):
        await LOOP.call(block())


def test_another_thread_with_the_same_name_may_block() -> None:
    names: list[tuple[str, str]] = []
    other = threading.Thread(target=lambda: names.append(LOOP.call_sync(where())), name="rh_prefect")
    other.start()
    other.join()
    assert names == [("nobody", "rh_prefect")]


def runs(script: str, *, tmp_path: Path) -> str:
    """Runs a script and returns its output."""
    head = "import asyncio, os, sys, threading\nfrom rh_prefect.works.loop_thread import LOOP\n"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", head + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        # Whoever has to be stopped by the loop's own patience fails.
        out, errors = process.communicate(timeout=JOIN_SECONDS - 5)
    assert (process.returncode, errors.decode()) == (0, "")
    return out.decode()


def test_process_exit_waits_for_a_critical_section_that_uses_threads(tmp_path: Path) -> None:
    assert 15 < JOIN_SECONDS < 30, "Prefect kills the process 30 s after its SIGTERM"
    script = """
began = threading.Semaphore(0)
async def exit():
    began.release()
    while threading.main_thread().is_alive():
        await asyncio.sleep(0.001)
async def fail():
    await exit()
    raise OSError
async def pay():
    await exit()
    await asyncio.to_thread(print, "recorded")
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    print("resolved")
async def critical(section):
    await LOOP.critical(section)

for section in (fail(), pay()):
    LOOP.submit(critical(section))
    began.acquire()
"""
    assert runs(script, tmp_path=tmp_path) == "recorded\nresolved\n"


SCRIPTS = {
    "no critical section starts during process exit": (
        """
began = threading.Event()
async def first():
    began.set()
    while not LOOP._is_ending:
        await asyncio.sleep(0.001)
    print("first")
async def second():
    print("second")
async def job():
    await LOOP.critical(first())
    try:
        await LOOP.critical(second())
    except asyncio.CancelledError:
        print("cancelled")
LOOP.submit(job())
began.wait()
""",
        "first\ncancelled\n",
    ),
    "connections are closed at process exit": (
        """
async def fail(): raise OSError
async def close(): print("closed")
async def gone(): print("gone")
LOOP.on_close(fail)
for closer in (close, gone):
    for _ in range(2):
        LOOP.on_close(closer)
for _ in range(2):
    LOOP.forget_closer(gone)
LOOP.call_sync(asyncio.sleep(0))
""",
        "closed\n",
    ),
    "a thread that runs longer than the main thread can call the loop": (
        """
async def give(): return await asyncio.to_thread(lambda: "given")
LOOP.call_sync(give())
def late():
    threading.main_thread().join()
    print(LOOP.call_sync(give()))
threading.Thread(target=late).start()
""",
        "given\n",
    ),
    "a forked child has its own loop and both processes exit": (
        """
async def pid(): return os.getpid()
parent = LOOP.call_sync(pid())
child = os.fork()
if not child:
    assert LOOP.call_sync(pid()) == os.getpid() != parent
    print("child", flush=True)
    sys.exit(0)
os.waitpid(child, 0)
assert LOOP.call_sync(pid()) == parent
print("parent")
""",
        "child\nparent\n",
    ),
    "a forked child closes what modules open, and not what its parent has opened": (
        """
class Client:
    async def aclose(self): print("client closed")
async def close(): print("closed", flush=True)
LOOP.on_close(close)
LOOP.on_close(Client().aclose)
LOOP.call_sync(asyncio.sleep(0))
child = os.fork()
LOOP.call_sync(asyncio.sleep(0))
if not child:
    sys.exit(0)
os.waitpid(child, 0)
""",
        "closed\nclosed\nclient closed\n",
    ),
    "a process without calls has no loop": ("print(threading.active_count())", "1\n"),
}
"""What a process does, and what it prints."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_process(name: str, tmp_path: Path) -> None:
    script, printed = SCRIPTS[name]
    assert runs(script, tmp_path=tmp_path) == printed


@pytest.mark.virtual_time
async def test_a_task_whose_cancellation_is_lost_is_ended() -> None:
    async def loses_one() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    task = asyncio.ensure_future(loses_one())
    await asyncio.sleep(0)
    await end_task(task)
    assert task.cancelled()
    assert now() == pytest.approx(1.0, abs=0.1), "a second after the first cancellation"
