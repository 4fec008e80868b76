"""Tells a repeated call for a work from a second one, which is refused before it pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from rh_prefect.caches_and_locks import LruCache
from rh_prefect.errors import EqualRequest

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
    """A call for a work.

    Attributes:
        chain: Where it was made.
        before: The call before it, which it repeats.
        has_failed: Whether it has ended without a result.
    """

    chain: Chain
    before: _Call | None
    has_failed: bool = False


class Calls:
    """The calls of one attempt of a run, by their works; used on the package's loop thread.

    Attributes:
        number: Different for each attempt in this process.
    """

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self._calls: dict[str, list[_Call]] = {}

    @contextmanager
    def asking(self, work: str, chain: Chain, *, job: str, may_repeat: bool = False) -> Iterator[None]:
        """Registers a call for the duration of a `with` block, and beyond it if the block raises nothing.

        Args:
            work: The work's key.
            chain: The runs around the call.
            job: The job's full name, for the message.
            may_repeat: Whether another call may have asked for the same work.

        Raises:
            EqualRequest: Another call of this attempt has asked for the same work.
        """
        calls = self._calls.setdefault(work, [])
        before = next((call for call in calls if is_repeat(chain, call.chain)), None)
        if before is None and calls and not may_repeat:
            raise EqualRequest(
                f"{job}: this run has asked for exactly this before: the same request with the same take. Nothing was "
                "paid for this call. What to do: for another result, pass take=2 (then 3, and so on); to use the "
                "result of the first call, pass same=True. Then run the flow again, which pays for nothing twice.",
                job=job,
            )
        own = _Call(chain, before)
        self._replace(calls, before, own)
        try:
            yield
        except BaseException:
            own.has_failed = True
            while before is not None and before.has_failed:
                before = before.before
            if own in calls:
                self._replace(calls, own, before)
            if not calls and self._calls.get(work) is calls:
                del self._calls[work]
            raise

    @staticmethod
    def _replace(calls: list[_Call], old: _Call | None, new: _Call | None) -> None:
        """Puts a call in the place of another one; adds it if there is no other one, and removes that one for None."""
        at = len(calls) if old is None else calls.index(old)
        calls[at : at + 1] = [] if new is None else [new]
