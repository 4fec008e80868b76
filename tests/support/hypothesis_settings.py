"""Settings of hypothesis for properties and state machines."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def search(examples: int) -> settings:
    """So many examples, or courses of events, the same ones each time; whatever goes wrong is made small."""
    return settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
