"""Where a job of a block belongs: the scope of its caller, watched for the key that the job is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.jobs.in_flight import REQUESTED_KEYS
from rh_prefect.jobs.journal.call_registry import CallRegistry, Found
from rh_prefect.jobs.journal.identity import explicit_key
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.scope import Scope


@dataclass(slots=True)
class TrackedScope:
    """A scope that remembers which job was asked for; see `rh_prefect.jobs.journal.scope.Scope`.

    Attributes:
        key: The job's key, as soon as it is known.
        was_asked_for: Whether another call of this process had asked for it already.
    """

    journal: Journal
    run: str
    flow: str
    calls: CallRegistry = field(default_factory=CallRegistry)
    attempt: int = 1
    task_attempt: int = 1
    first_attempt: int = 1
    details: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    was_asked_for: bool = False

    @classmethod
    def of(cls, scope: Scope, *, key: str | None) -> TrackedScope:
        """Tracks a scope.

        Args:
            scope: The caller's.
            key: The caller's own idempotency key.
        """
        made = cls(
            journal=scope.journal,
            run=scope.run,
            flow=scope.flow,
            attempt=scope.attempt,
            task_attempt=scope.task_attempt,
            first_attempt=scope.first_attempt,
            details=scope.details,
        )
        made.calls = _TrackedCalls(scope.calls, made)
        if key is not None:
            made.note(explicit_key(key))
        return made

    def note(self, key: str) -> None:
        """Takes note of the job's key."""
        self.key = key
        self.was_asked_for = key in REQUESTED_KEYS.get(self.journal.scope, ())


class _TrackedCalls(CallRegistry):
    """The calls of a scope, which tell the key that one of them is given."""

    def __init__(self, calls: CallRegistry, scope: TrackedScope) -> None:
        super().__init__()
        self.number = calls.number
        self._calls = calls
        self._scope = scope

    async def find(self, *args: Any, **kwargs: Any) -> Found:
        found = await self._calls.find(*args, **kwargs)
        self._scope.note(found.key)
        return found
