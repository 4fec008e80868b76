"""Where a job of a block belongs: the scope of its caller, watched for the key that the job is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rh_prefect.jobs.ledger.identity import explicit_key, job_key
from rh_prefect.jobs.ledger.journal import Journal
from rh_prefect.jobs.ledger.scope import Scope
from rh_prefect.jobs.sharing import ASKED


@dataclass(slots=True)
class Place:
    """A scope that remembers which job was asked for; see `rh_prefect.jobs.ledger.scope.Scope`.

    Attributes:
        key: The job's key, as soon as it is known.
        was_asked_for: Whether another call of this process had asked for it already.
    """

    journal: Journal
    run: str
    flow: str
    count: Callable[[str], int]
    attempt: int = 1
    task_attempt: int = 1
    details: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    was_asked_for: bool = False

    @classmethod
    def of(cls, scope: Scope, *, key: str | None) -> Place:
        """Watches a scope.

        Args:
            scope: The caller's.
            key: The caller's own idempotency key.
        """
        made = cls(
            journal=scope.journal,
            run=scope.run,
            flow=scope.flow,
            count=scope.ordinal,
            attempt=scope.attempt,
            task_attempt=scope.task_attempt,
            details=scope.details,
        )
        if key is not None:
            made._saw(explicit_key(key))
        return made

    def ordinal(self, base: str) -> int:
        """Counts equal calls; see `Scope.ordinal`."""
        number = self.count(base)
        self._saw(job_key(base, number))
        return number

    def _saw(self, key: str) -> None:
        self.key = key
        self.was_asked_for = key in ASKED.get(self.journal.scope, ())
