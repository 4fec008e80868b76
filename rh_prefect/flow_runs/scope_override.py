"""A scope that is another flow run's: a batch that is run again finds what the run that began it has paid for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from rh_prefect.flow_runs.queries import RecordedScope
from rh_prefect.flow_runs.scope import current_scope

_borrowed: ContextVar[RecordedScope | None] = ContextVar("rh_prefect_borrowed_scope", default=None)


@contextmanager
def borrow(scope: RecordedScope) -> Iterator[None]:
    """Has every paid call of a `with` block belong to a scope, whatever flow run it is made in.

    Each of these calls needs a `key` of its own: a scope that is looked at from outside counts no equal calls.

    Args:
        scope: The scope, with the attempt that the calls shall count as.
    """
    token = _borrowed.set(scope)
    try:
        yield
    finally:
        _borrowed.reset(token)


def borrowed_scope() -> RecordedScope | None:
    """The scope that the caller's jobs belong to in place of their own flow run's; None where it is that one."""
    scope = _borrowed.get()
    if scope is None:
        return None
    inside = current_scope()
    return replace(scope, task_attempt=inside.task_attempt) if inside else scope
