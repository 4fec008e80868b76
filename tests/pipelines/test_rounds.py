"""Rounds: steps with `reuse: never` or an age are paid for once, however often the run is killed and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.errors import SubmissionUnknown
from rh_prefect.jobs.manual_repair import adopt, mark_refused
from rh_prefect.pipelines.plan import Plan
from tests.support.forkserver import FORKS
from tests.support.pipeline_runs import PipelineRun, run_pipeline_and_be_killed

CHAIN = """
name: chain
params: {{idea: {{type: string, default: a mug}}}}
steps:
  picture: {{model: z-image/turbo, with: {{prompt: $(params.idea)}}, reuse: {reuse}}}
  clip: {{model: kling-v2.6-pro-image-to-video, from: $(picture), with: {{prompt: a turn, duration: 5, sound: false}}}}
  large: {{model: rh-video-upscaler, from: $(clip), assume: {{price: 1}}}}
outputs: {{large: $(large)}}
"""
NEVER, AN_HOUR = CHAIN.format(reuse="never"), CHAIN.format(reuse="1h")
STEPS = 3


@pytest.fixture
def rh() -> Iterator[Emulator]:
    with Emulator(long_side=96, fps=6) as emulator:
        yield emulator


@dataclass
class Runs:
    """Runs of one pipeline on one machine, with a table of what each wanted to pay and has paid."""

    rh: Emulator
    folder: Path
    text: str = NEVER
    rows: list[tuple[str, int, int]] = field(default_factory=list)

    def given(self, name: str, **more: Any) -> dict[str, Any]:
        store = str(self.folder / "store")
        return {"url": self.rh.url, "key": self.rh.key, "folder": self.folder, "store_url": store, "name": name, **more}

    async def run(self, name: str, *, pays: int, rounds: Mapping[str, Any] | None = None, **more: Any) -> Plan:
        """Runs it to its end; `pays` is what the run must pay."""
        before = len(self.rh.recorder.paid)
        process = PipelineRun(**self.given(name))
        try:
            plan = await process.run(self.text, rounds=rounds, **more)
        except SubmissionUnknown as error:  # a person looks into the call log
            works, key = await process.works(), str(error.job).rpartition("/")[2]
            found = {submit.task_id async for view in _views(works) for submit in view.submits}
            new = [one.task_id for one in self.rh.recorder.paid if one.task_id not in found]
            await (adopt(works, key, new[0]) if new else mark_refused(works, key))
            plan = await process.run(self.text, rounds=rounds, **more)
        self.rows.append((name, pays, len(self.rh.recorder.paid) - before))
        assert self.rows[-1][1] == self.rows[-1][2], self.table()
        return plan

    async def killed(self, name: str, number: int, rounds: Mapping[str, Any] | None = None) -> bool:
        """Runs it in a process that is killed before it creates a record; returns whether it was killed."""
        before = len(self.rh.recorder.paid)
        process = FORKS.Process(
            target=run_pipeline_and_be_killed, args=(self.given(name), self.text, number, rounds or {})
        )
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode in (0, 9), f"{name}: {process.exitcode}"
        paid = len(self.rh.recorder.paid) - before
        self.rows.append((f"{name}, killed before record {number}", paid, paid))
        return process.exitcode == 9

    def table(self) -> str:
        lines = [f"{name:45} wanted {wanted} paid {paid}" for name, wanted, paid in self.rows]
        return "\n".join(["payments:", *lines])


async def _views(works: Any) -> Any:
    from rh_prefect.jobs.journal.job_records import jobs_of

    async for view in jobs_of(works):
        yield view


@pytest.mark.parametrize("text", [NEVER, AN_HOUR], ids=["never", "an age"])
async def test_a_run_that_was_killed_at_any_step_is_continued_without_a_second_payment(
    rh: Emulator, tmp_path: Path, text: str
) -> None:
    number, tables = 0, list[str]()
    while True:
        number += 1
        runs = Runs(rh, tmp_path / str(number), text)
        was_killed = await runs.killed("first", number)
        paid = runs.rows[0][1]
        if not was_killed:
            break
        is_closed = bool(list((tmp_path / str(number) / "store").glob("rounds/*/*-closed-1.json")))
        await runs.run("second", pays=STEPS if is_closed and text == NEVER else STEPS - paid)
        tables.append(runs.table())
    print("\n".join(tables))
    assert number > 6 * STEPS, "the run was killed before each record"
    assert paid == STEPS
