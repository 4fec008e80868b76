from __future__ import annotations

from rh_prefect.works.journal.scope import REQUESTED_KEYS
from rh_prefect.works.lifecycle_steps import UNPOSTED


def test_the_requested_keys_of_runs_are_limited() -> None:
    """The requested keys of the oldest runs are dropped if there are many runs."""
    names = [f"a25-{number}" for number in range(4000)]
    for name in names:
        REQUESTED_KEYS[name].add("key")
    kept = [name for name in names if name in REQUESTED_KEYS]
    assert 0 < len(kept) < 1000
    assert kept[-1] == names[-1]
    for name in kept:
        del REQUESTED_KEYS[name]


def test_the_abandoned_submissions_are_limited() -> None:
    """The oldest tokens of abandoned submissions are dropped if there are many."""
    tokens = [f"a25-{number}" for number in range(40_000)]
    for token in tokens:
        UNPOSTED.add(token)
    kept = [token for token in tokens if token in UNPOSTED]
    assert 1000 < len(kept) < 20_000
    assert kept[-1] == tokens[-1]
    for token in kept:
        del UNPOSTED[token]
