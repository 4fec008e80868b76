from __future__ import annotations

import io
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from rh_prefect.cli.live_view import LiveView
from rh_prefect.cli.run_display import Watch
from rh_prefect.flow_runs import progress_observer
from rh_prefect.flow_runs.progress_observer import RunProgress
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs_and_budget import Costs

RUN = "6d6ba215-c5be-4f88-8824-26faa747bb74"


@pytest.mark.parametrize(
    ("state", "task", "runs"),
    [("running", "7", True), ("failed", "7", False), ("unknown", None, False), ("waiting", None, False)],
)
def test_cancelling_is_offered_only_where_a_task_runs(
    state: JobEventState, task: str | None, runs: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError), Watch(command="rh-prefect run film") as watch:
        watch.started(RUN)
        for listener in progress_observer.listeners:
            listener(JobEvent(state, "run/job", "a-model", task_id=task))
        raise RuntimeError
    said = capsys.readouterr().err
    assert ("rh-prefect run film\n" in said) is (state != "waiting"), "nothing was sent"
    assert (f"rh-prefect jobs cancel {RUN}" in said) is runs
    assert ("still running" in said) is runs


def costs(amount: str) -> Costs:
    return Costs({"CNY": Decimal(amount)})


def live_view(width: int, *, cost: str = "0.60") -> list[str]:
    """The lines of the view of a run with a queued, a running and an ended job, a local edit and a node's progress."""
    board, now = RunProgress(), [0.0]
    view = LiveView(board, clock=lambda: now[0])
    board.expect(11, estimate=costs("17.65"))

    def take(state: JobEventState, name: str, **more: Any) -> None:
        price = Costs() if more.get("is_edit") else costs("1.75")
        event = JobEvent(state, f"run/{name}", "kling-v2.6-pro", label=name, estimate=price, **more)
        view.update(event)
        if not event.is_edit:
            board.update(event)

    for n in range(3):
        take("submitted", f"shots[{n}].picture", task_id="0")
    now[0] = 45.0
    for n in range(3):
        take("succeeded", f"shots[{n}].picture", task_id="0", costs=costs(cost))
    take("queued", "shots[5].clip", message="waits for a free slot of the account")
    take("submitted", "shots[a product with a long name-77].clip", task_id="1")
    take("running", "shots[4].clip", task_id="2")
    take("running", "shots[4].clip", task_id="2", message="node 12, 40 %", is_step=True)
    take("running", "sheet", is_edit=True)
    take("succeeded", "cut", is_edit=True)
    now[0] = 135.0  # six more jobs of 45 s, and the two that run must end soon: two at a time
    console = Console(width=width, height=24, record=True, file=io.StringIO())
    console.print(view)
    return [line.rstrip() for line in console.export_text().splitlines()]


WHOLE_RUN = ["3 of 11 jobs done · 1 edit made · 2:15 · about 2:15 left", "paid 1.80 CNY · estimate 17.65 CNY"]


def test_the_live_view_has_a_row_for_each_running_step_and_the_whole_run() -> None:
    lines = live_view(120)
    assert lines.pop(4).startswith("━━━━━")
    assert lines == [
        "shots[a product with a long name-77].clip  kling-v2.6-pro  queued            1:30  ~1.75 CNY",
        "shots[4].clip                              kling-v2.6-pro  node 12, 40 %     1:30  ~1.75 CNY",
        "sheet                                      kling-v2.6-pro  made here         1:30",
        "shots[5].clip                              kling-v2.6-pro  waits for a slot  1:30  ~1.75 CNY",
        *WHOLE_RUN,
    ]


def test_the_live_view_says_which_step_runs_in_60_columns() -> None:
    lines = live_view(60)
    assert all(len(line) <= 60 for line in lines)
    assert lines[0].startswith("shots[a p")
    assert "name-77].clip" in lines[0]
    assert lines[1].split()[0] == "shots[4].clip"
    assert lines[-2:] == WHOLE_RUN


def test_the_remaining_time_is_shown_once_the_jobs_that_have_ended_are_typical() -> None:
    assert live_view(60, cost="0.04")[-2] == "3 of 11 jobs done · 1 edit made · 2:15"


def test_the_line_is_read_by_a_thread_while_another_one_updates_the_view() -> None:
    """Each moment comes from the clock, which the view reads in the middle of both."""
    actions: list[Callable[[], object]] = []

    def clock() -> float:
        if actions:
            actions.pop()()
        return 0.0

    def take(state: JobEventState, name: str) -> None:
        event = JobEvent(state, f"run/{name}", "a-model", task_id="1")
        view.update(event)
        board.update(event)

    board = RunProgress()
    view = LiveView(board, clock=clock)
    board.expect(3)
    take("submitted", "a")
    take("submitted", "b")
    take("succeeded", "a")
    lines: list[Future[str]] = []
    with ThreadPoolExecutor() as pool:

        def read() -> None:
            lines.append(pool.submit(lambda: view.line))
            wait(lines, timeout=0.2)

        actions += [read, int]
        take("submitted", "c")
        assert lines[0].result() == "1 of 3 jobs done · 0 s · about 0 s left"
    take("succeeded", "b")
    actions += [lambda: take("succeeded", "c"), int]
    assert view.line.startswith("2 of 3 jobs done · 0 s")


def test_a_terminal_shows_the_live_view_and_a_pipe_one_line_for_each_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`NO_COLOR` removes the colours, and `--quiet` everything."""
    monkeypatch.setenv("NO_COLOR", "1")
    for name, value in {"TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    said = {}
    for way in ("pipe", "terminal", "quiet"):
        monkeypatch.setenv("FORCE_COLOR" if way != "pipe" else "RH_NONE", "1")  # rich's sign of a terminal
        with Watch(command="rh-prefect run film.yaml", quiet=way == "quiet") as watch:
            watch.expect(1, estimate=costs("0.04"))
            for listener in progress_observer.listeners:
                listener(JobEvent("submitted", "run/a", "a-model", label="shot", message="submitted", task_id="7"))
                listener(JobEvent("running", "cut", "concat", label="cut", is_edit=True))
                message = f"made {'0' * 64}.mp4"
                listener(JobEvent("succeeded", "cut", "concat", label="cut", message=message, is_edit=True))
        said[way] = capsys.readouterr().out
    assert re.findall(r"s (.+)", said["pipe"]) == ["· shot: submitted", f"✓ cut: made {'0' * 64}.mp4"]
    assert "submitted" not in said["terminal"]
    assert re.search(r"shot +queued +0 s", said["terminal"])
    assert "✓ cut: made 00000000….mp4" in said["terminal"]
    assert not re.search(r"\x1b\[[0-9;]*3\dm", said["terminal"]), "a colour"
    assert said["quiet"] == ""


def test_an_error_that_begins_with_the_job_is_shown_without_a_second_name() -> None:
    failed = JobEvent("failed", "run/a", "a-model", label="mug", message="mug: task 1 failed")
    sent = JobEvent("submitted", "run/a", "a-model", label="mug", message="submitted as task 1")
    assert (failed.line, sent.line) == ("mug: task 1 failed", "mug: submitted as task 1")
