"""The table of states names every word that a job, its events and a row can have."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from rh_prefect.client.wire.task import TaskStatus
from rh_prefect.flows.batch.report import STATES, RowState
from rh_prefect.works.events import JobEventState
from rh_prefect.works.journal.job_records import JobState


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (TaskStatus, {state.remote for state in STATES} - {None}),
        (JobState, {state.job for state in STATES}),
        (JobEventState, {event for state in STATES for event in state.events}),
        (RowState, {state.row for state in STATES}),
    ],
)
def test_every_word_is_in_the_table(words: Any, named: set[str]) -> None:
    assert named == set(get_args(words))


def test_a_state_with_a_task_is_a_ticket_or_has_ended() -> None:
    assert {(state.remote is None, state.job in ("ticket", "ended")) for state in STATES} == {
        (True, False),
        (False, True),
    }
