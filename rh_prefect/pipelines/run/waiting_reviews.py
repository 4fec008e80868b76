"""The reviews for which a run waits, their candidates, and the takes that would make other candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rh_prefect.pipelines.plan.planned_steps import PlannedStep, paid_steps


def waiting_reviews(instances: Sequence[PlannedStep]) -> list[PlannedStep]:
    """Returns the reviews whose candidates are all ready and that have no choice yet."""
    reviews = (one for one in instances if one.model == "review" and one.state == "r")
    return [one for one in reviews if all(need.state == "=" for need in (*one.needs, *one.waits_for))]


def candidates(review: PlannedStep) -> Iterator[tuple[str, Any]]:
    """Yields the candidates of a review, each with the argument of `rh-prefect choose` that chooses it."""
    for number, one in enumerate(review.candidates, 1):
        yield f"{review.address}={number}", one


def next_takes(review: PlannedStep) -> dict[str, int]:
    """Returns, for each paid step that made the current candidates, the take that makes other candidates."""
    return {one.address: one.works[-1].take + 1 for one in paid_steps(review.needs) if one.works}
