"""Settings and strategies of hypothesis for properties and state machines."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


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


ODD: list[Any] = [None, True, "", " ", "0", 0, -1, 1e400, 0.1, "NaN", "1e999", 10**30, {}, [], [[]], {"a": {}}]
ODD += ["{", '"{}"', "\ud800"]

json_values = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)

statuses = st.sampled_from([200, 201, 302, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503])

DEEP = 100_000
