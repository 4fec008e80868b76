from __future__ import annotations

from decimal import Decimal

import pytest

from rh_prefect.cli.run_display import Watch
from rh_prefect.flow_runs import job_progress
from rh_prefect.media.media import Media
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.outputs.result import Result

RUN = "6d6ba215-c5be-4f88-8824-26faa747bb74"


@pytest.mark.parametrize(
    ("state", "task", "runs"),
    [("running", "7", True), ("failed", "7", False), ("unknown", None, False), ("waiting", None, False)],
)
def test_cancelling_is_offered_only_where_a_task_runs(
    state: JobEventState, task: str | None, runs: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError), Watch(command="run film") as watch:
        watch.started(RUN)
        for listener in job_progress.listeners:
            listener(JobEvent(state, "run/job", "a-model", task_id=task))
        raise RuntimeError
    said = capsys.readouterr().err
    assert (f"rh-prefect run film --resume {RUN}" in said) is (state != "waiting"), "nothing was sent"
    assert (f"rh-prefect jobs cancel {RUN}" in said) is runs
    assert ("still running" in said) is runs


def test_what_was_paid_is_a_sum_for_each_unit_and_counts_failed_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    """Coins are not added to money, and a failed task is not left out."""
    costs = {"a": Costs({"CNY": Decimal("0.04")}), "b": Costs({"coins": Decimal(7)}), "c": Costs(unknown=1)}
    with Watch(command="run film") as watch:
        for listener in job_progress.listeners:
            for job, cost in costs.items():
                listener(JobEvent("submitted", f"run/{job}", "a-model", task_id=job))
                listener(JobEvent("failed", f"run/{job}", "a-model", task_id=job, costs=cost))
            listener(JobEvent("succeeded", "run/d", "a-model", task_id="d", costs=Costs({"CNY": Decimal(2)})))
        watch.summary(None)
    assert "paid 0.04 CNY, 7 coins, 1 task of unknown cost now; 2.00 CNY was already paid" in capsys.readouterr().out


def test_a_failed_task_of_now_is_paid_now_and_one_of_an_earlier_attempt_was_already(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, each = "run/a", Decimal("0.04")
    with Watch(command="run film") as watch:
        for listener in job_progress.listeners:
            listener(JobEvent("submitted", job, "a-model", task_id="2", costs=Costs({"CNY": each})))
            listener(JobEvent("failed", job, "a-model", costs=Costs({"CNY": 2 * each})))
            listener(JobEvent("submitted", job, "a-model", task_id="3", costs=Costs({"CNY": 2 * each})))
            listener(JobEvent("running", job, "a-model", task_id="3"))
        assert watch._total() == "paid 0.04 CNY now; 0.04 CNY was already paid"
        for listener in job_progress.listeners:
            costs = Costs({"CNY": 3 * each})
            listener(JobEvent("succeeded", job, "a-model", task_id="3", cost=each, currency="CNY", costs=costs))
        watch.summary(None)
    assert "paid 0.08 CNY now; 0.04 CNY was already paid" in capsys.readouterr().out


def test_a_damaged_output_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """The summary of a run does not show half a picture as any other."""
    files = [Media(uri=f"/out/{n}.png", kind="image", mime="image/png", size=1, sha256="0" * 64) for n in (1, 2)]
    damaged = files[1].model_copy(update={"defect": "a broken png"})
    result = Result(model="m", endpoint="m", job="run/job", key="k", task_id="7", outputs=(files[0], damaged))
    with Watch(command="run film") as watch:
        watch.summary(result)
    said = capsys.readouterr().out
    assert "output: /out/1.png" in said
    assert "output, a broken png: /out/2.png" in said


def test_an_error_that_begins_with_the_job_is_shown_without_a_second_name() -> None:
    assert JobEvent(
        "failed", "run/a", "a-model", label="each[mug].clip", message="each[mug].clip: task 1 failed"
    ).line == ("each[mug].clip: task 1 failed")
    assert JobEvent("submitted", "run/a", "a-model", label="mug", message="submitted as task 1").line == (
        "mug: submitted as task 1"
    )
