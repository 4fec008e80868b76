"""Tells a repeated call for a work from a second one, which is refused before it pays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from rh_prefect.bounded_caches import LruCache
from rh_prefect.errors import EqualRequest
from rh_prefect.works.loop_thread import LOOP

Chain: TypeAlias = tuple[tuple[str, int], ...]
"""The runs around a call, outermost first: the id of each, and a number that each execution of it has alone."""

_NUMBERS = count(1)

REQUESTED_KEYS: LruCache[str, set[str]] = LruCache(500, make=set)
"""Scope -> keys of the jobs that this process has requested; other jobs of the journal are orphans. A flow run's keys
are dropped when it ends. If a scope is dropped to limit the memory, its jobs are read again from the journal."""


def is_repeat(chain: Chain, earlier: Chain) -> bool:
    """Whether a call repeats an earlier one: the outermost run in which they differ was executed again."""
    for (run, number), (other, other_number) in zip(chain, earlier, strict=False):
        if (run, number) != (other, other_number):
            return run == other
    return False


@dataclass(slots=True, eq=False)
class _Call:
    """A call for a work."""

    chain: Chain  # Where it was made
    before: _Call | None  # The call before it, which it repeats
    task: asyncio.Task[Any] | None  # The task that makes it; None when it has ended
    has_failed: bool = False  # Whether it has ended without a result

    @property
    def is_cancelled(self) -> bool:
        """Whether it is about to end without a result: its caller goes on before it has ended."""
        return self.task is not None and self.task.cancelling() > 0


_undo: ContextVar[list[Callable[[], object]] | None] = ContextVar("rh_prefect_undo", default=None)


@contextmanager
def delivered_at_end() -> Iterator[None]:
    """Has the calls of a block deliver their results at its end: if it ends with an error, none has delivered one."""
    outer, calls = _undo.get(), list[Callable[[], object]]()

    def withdraw() -> None:
        for undo in calls:
            undo()

    token = _undo.set(calls)
    try:
        yield
    except BaseException:
        LOOP.loop.call_soon_threadsafe(withdraw)  # before the caller's next call
        raise
    finally:
        _undo.reset(token)
    if outer is not None:
        outer.extend(calls)


def undo_unless_delivered(undo: Callable[[], object]) -> None:
    """Has a function called on the loop thread if the block of `delivered_at_end` around it ends with an error."""
    calls = _undo.get()
    if calls is not None:
        calls.append(undo)


class Calls:
    """The calls of one attempt of a run, by their works; used on the package's loop thread."""

    def __init__(self) -> None:
        self.number = next(_NUMBERS)  # different for each attempt in this process
        self._calls: dict[str, list[_Call]] = {}

    @contextmanager
    def asking(
        self,
        work: str,
        chain: Chain,
        *,
        job: str,
        may_repeat: bool = False,
        task: asyncio.Task[Any] | None = None,
    ) -> Iterator[None]:
        """Registers a call for the duration of a `with` block, and beyond it if the block raises nothing."""
        calls = self._calls.setdefault(work, [])
        before = next((call for call in calls if is_repeat(chain, call.chain)), None)
        if before is None and not (may_repeat or all(call.is_cancelled for call in calls)):
            raise EqualRequest(
                f"{job}: this run has asked for exactly this before: the same request with the same take. Nothing was "
                "paid for this call. What to do: for another result, pass take=2 (then 3, and so on); to use the "
                "result of the first call, pass same=True or, outside of flows, a `scope`. Then run the program again: "
                "what is paid for is kept.",
                job=job,
            )
        own = _Call(chain, before, task)
        self._replace(calls, before, own)
        try:
            yield
        except BaseException:
            self._withdraw(work, own)
            raise
        finally:
            own.task = None
        undo_unless_delivered(partial(self._withdraw, work, own))

    def _withdraw(self, work: str, own: _Call) -> None:
        """Removes a call without a result, and restores the one before it that has not failed."""
        own.has_failed, before = True, own.before
        while before is not None and before.has_failed:
            before = before.before
        calls = self._calls.get(work, [])
        if own in calls:
            self._replace(calls, own, before)
        if not calls:
            self._calls.pop(work, None)

    @staticmethod
    def _replace(calls: list[_Call], old: _Call | None, new: _Call | None) -> None:
        """Puts a call in the place of another one; adds it if there is no other one, and removes that one for None."""
        at = len(calls) if old is None else calls.index(old)
        calls[at : at + 1] = [] if new is None else [new]
