from __future__ import annotations

import pytest

from rh_prefect.cli.show import Watch
from rh_prefect.jobs.events import JobEvent, JobEventState
from rh_prefect.runs import observer

RUN = "6d6ba215-c5be-4f88-8824-26faa747bb74"


@pytest.mark.parametrize(
    ("state", "task", "runs"),
    [("running", "7", True), ("failed", "7", False), ("unknown", None, False), ("waiting", None, False)],
)
def test_cancelling_is_offered_only_where_a_task_runs(
    state: JobEventState, task: str | None, runs: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError), Watch(command="film") as watch:
        watch.started(RUN)
        for listener in observer.listeners:
            listener(JobEvent(state, "run/job", "a-model", task_id=task))
        raise RuntimeError
    said = capsys.readouterr().err
    assert f"rh-prefect run film --resume {RUN}" in said
    assert (f"rh-prefect jobs cancel {RUN}" in said) is runs
    assert ("still runs" in said) is runs
