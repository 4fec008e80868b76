"""Builds a review of one item: its question and its candidates, and the result that a person has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.evaluation import evaluate, follow, lookup, maker_of, results
from rh_prefect.pipelines.file_model import ReviewStep
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.step_drafts import planned
from rh_prefect.pipelines.plan.work_identity import candidates_id, mark
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Items, certain, makers
from rh_prefect.pipelines.references import parse


def draft_review(step: ReviewStep, at: Path, path: str, frame: Frame) -> PlannedStep:
    """Returns a review with its candidates."""
    instance = planned(step, at, path, frame, "review")
    shown = [(value, maker) for text in step.sources for value, maker in _candidates(text, frame)]
    instance.candidates = [value for value, _ in shown]
    question = certain(evaluate(step.ask, frame))
    instance.ask = text_of(question) if isinstance(question, str | int | float) else step.ask
    needs = (maker for value, maker in shown for maker in (maker, *makers(value)) if maker is not None)
    instance.needs = tuple(dict.fromkeys(needs))
    instance.request = {"of": candidates_id([str(mark(value)) for value in instance.candidates])}
    return instance


def _candidates(text: str, frame: Frame) -> list[tuple[Any, PlannedStep | None]]:
    """Returns the results that a reference means, each with the step that made it; None for a parameter."""
    # Each take of a step is a candidate; `a or b` means one value.
    [reference] = parse(text).references
    is_one = len(reference.options) == 1 and reference.fallback is None
    takes = certain(follow((*reference.options[0], "takes"), frame)) if is_one else ABSENT
    values = [certain(one) for one in results(takes)] if isinstance(takes, Items) else []
    one = certain(lookup(reference, frame))
    values = values or ([] if one is ABSENT else [one])
    maker = maker_of(reference, frame)
    return [(value, next(makers(value), maker)) for value in values]


def chosen_result(review: PlannedStep, choice: Mapping[str, Any] | None) -> tuple[Any, str]:
    """Returns the result that a choice selects, or None; for a choice that is not valid, also returns the reason."""
    if choice is None:
        return None, ""
    if choice.get("of") != review.request["of"]:
        return None, "the choice was made for other candidates; choose again"
    if isinstance(choice.get("text"), str):
        if review.shows_texts:
            return choice["text"], ""
        return None, "the choice is text, but the candidates are not; choose a candidate by its number"
    take = choice.get("take")
    if type(take) is int and 1 <= take <= len(review.candidates):  # a bool is also an int
        return review.candidates[take - 1], ""
    return None, review.no_candidate(take)
