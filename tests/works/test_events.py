from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from rh_prefect import Result
from rh_prefect.media.media import Media
from rh_prefect.works.events import JobEvent, event_of, summary_of
from rh_prefect.works.journal.costs_and_budget import Costs

GOOD = Media(uri="file:///a.png", kind="image", mime="image/png", size=1, sha256="a" * 64)
HALF = GOOD.model_copy(update={"uri": "file:///b.png", "defect": "half a png"})
COSTS = Costs.of(Decimal(2), "CNY")


def result(**more: Any) -> Result:
    facts = {"model": "some/model", "endpoint": "some/model", "job": "run/key", "key": "key", "task_id": "1"}
    return Result(**facts, record="file:///results/1.json", run_seconds=5.0, **more)


def test_an_event_is_shown_with_the_name_of_its_job_once() -> None:
    event = JobEvent("running", "run/key", "some/model", prompt="a pier", message="task 1 runs")
    assert event.line == "some/model (a pier): task 1 runs"
    labelled = replace(event, label="the pier")
    assert labelled.line == "the pier: task 1 runs"
    assert replace(labelled, message="the pier: not started").line == "the pier: not started"
    assert not (event.is_edit or event.is_step)


@pytest.mark.parametrize(
    ("facts", "state", "output", "message"),
    [
        (
            {"outputs": (GOOD,), "cost": Decimal("0.3"), "currency": "USD"},
            "succeeded",
            GOOD.uri,
            "done: file:///a.png; 0.30 USD",
        ),
        ({"texts": ("words",), "cost": Decimal(2)}, "succeeded", None, "done: 5 characters of text; 2.00 CNY"),
        ({"outputs": (GOOD,), "cost": Decimal(0), "reused": True}, "reused", GOOD.uri, "done: file:///a.png"),
        (
            {"outputs": (GOOD, HALF)},
            "failed",
            GOOD.uri,
            r"stored, but damaged; .*: file:///a\.png, file:///b\.png \(half a png\)",
        ),
    ],
)
def test_the_event_of_a_result(facts: dict[str, Any], state: str, output: str | None, message: str) -> None:
    made = result(**facts)
    said = summary_of(made)
    assert re.fullmatch(message, said)
    event = event_of(made, message=said, prompt="a pier", costs=COSTS, sources=("file:///c.png",))
    assert (event.state, event.output) == (state, output or made.record)
    assert (event.job, event.model, event.task_id, event.message) == ("run/key", "some/model", "1", said)
    assert (event.cost, event.currency, event.costs, event.run_seconds) == (made.cost, made.currency, COSTS, 5.0)
    assert (event.files, event.sources, event.prompt) == (made.outputs, ("file:///c.png",), "a pier")
