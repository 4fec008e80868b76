"""One I/O operation of a simulated process, which waits until a test ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from rh_prefect.errors import RunningHubError

Failure = Literal["before", "after", "later"]
"""An I/O that fails: it had no effect, it had its effect, or it has it after everybody has given it up."""


class Operation:
    """One I/O that a process waits for.

    Args:
        name: What it does, for people.
        effect: Does it.
        lost: The error when nobody knows whether it was done, and the one when it surely was not.
        expires: When the process itself stops waiting.
    """

    def __init__(
        self,
        name: str,
        effect: Callable[[], Any],
        *,
        lost: Callable[[], Exception],
        unsent: Callable[[], Exception] | None = None,
        expires: float | None = None,
    ) -> None:
        self.name = name
        self.is_done = False
        self.expires = expires
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._effect = effect
        self._lost = lost
        self._unsent = unsent or lost
        self._outcome: tuple[Any, Exception | None] = (None, None)

    def take_effect(self) -> None:
        if self.is_done:
            return
        self.is_done = True
        try:
            self._outcome = self._effect(), None
        except RunningHubError as error:
            self._outcome = None, error

    def deliver(self) -> None:
        """Lets the process know how it went; it is done at the latest now."""
        self.take_effect()
        value, error = self._outcome
        self._set(value, error)

    def refuse(self, error: Exception) -> None:
        """The other side says no, and has done nothing."""
        self.is_done = True
        self._set(None, error)

    def fail(self, how: Failure) -> None:
        is_unsent = how == "before" and not self.is_done
        if how == "after":
            self.take_effect()
        self._set(None, self._unsent() if is_unsent else self._lost())

    def _set(self, value: Any, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(value)
