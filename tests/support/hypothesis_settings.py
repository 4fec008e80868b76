"""Settings of hypothesis for properties and state machines."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


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


def first_finding(examples: int) -> settings:
    """The same, for a world in which something must go wrong: the first find is enough."""
    return settings(search(examples), phases=[Phase.generate], report_multiple_bugs=False)
