"""Runs of pipelines without a Prefect server: the same results, records and messages as in a flow run."""

from __future__ import annotations

import asyncio
import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError
from rh_prefect.flows.local_pipeline import run_locally
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.media.media import Media
from rh_prefect.pipelines.run.interfaces import Pages, What
from rh_prefect.pipelines.run.result import NOTHING_NEW, OVER_BUDGET
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.scope import read_run
from rh_prefect.works.journal.shared_journal import default_works
from tests.support.world.pipeline_flows import PRODUCTS, run, table


async def test_a_second_run_pays_nothing_and_writes_no_notes(rh: Emulator, tmp_path: Path) -> None:
    rows = table(tmp_path, a="mug", b="vase")
    end, first = await run(PRODUCTS, products=rows)
    assert end.is_completed(), end.message
    assert (first.new, len(rh.recorder.paid), first.costs.amounts["CNY"]) == (5, 4, rh.recorder.charged)
    works = default_works(get_settings())
    (name,) = works.scopes()
    recorded = await read_run(works, name)
    assert recorded is not None
    assert (recorded.pipeline, recorded.state, recorded.jobs) == ("products", "Completed", 4)
    end, second = await run(PRODUCTS, products=rows)
    assert (end.name, second.new, len(rh.recorder.paid)) == (NOTHING_NEW, 0, 4)
    assert works.scopes() == [name]


class CountingPages(Pages):
    """Notes how many paid works a run expects."""

    def __init__(self) -> None:
        self.expected: list[int] = []

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        self.expected.append(jobs)


async def test_a_result_that_is_only_saved_is_no_job_of_the_run(rh: Emulator) -> None:
    text = """
params: {title: string}
steps:
  sign: {model: z-image/turbo, with: {prompt: a sign}, save_as: sign.png}
  other: {model: z-image/turbo, with: {prompt: $(params.title)}, save_as: other.png}
"""
    pages = CountingPages(), CountingPages()
    for title, one in zip(("a mug", "a jug"), pages, strict=True):
        await run_locally(Pipeline.from_text(text), {"title": title, "budget": 1}, pages=one)
    assert {pages[0].expected[0], pages[0].expected[-1]} == {2}
    assert {pages[1].expected[0], pages[1].expected[-1]} == {1}
    assert len(rh.recorder.paid) == 3


PAIR = """
name: pair
params: {title: string}
steps:
  sign: {model: z-image/turbo, with: {prompt: $(params.title)}}
  words: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: "A <b>line</b> about $(params.title)"}}
outputs: {sign: $(sign), both: [$(sign), $(sign)], words: $(words)}
"""


async def test_outputs_have_types_and_plan_and_result_are_shown_in_a_notebook(rh: Emulator) -> None:
    """A plan in Python counts the results that exist, as the command does."""
    pair = Pipeline.from_text(PAIR)
    assert repr(pair) == "<Pipeline pair: parameters title; 2 steps; outputs sign, both, words>"
    plan = await pair.plan(title="a mug")
    assert plan.price.most > 0
    assert "<pre>pair: " in plan._repr_html_()
    done = await pair.run(title="a mug", budget=1)
    assert repr(done).startswith("<PipelineResult of pair: Steps: 2 made; paid ")
    assert repr(done).endswith("Outputs: sign, both, words>")
    sign, both = done.output("sign", Media), done.output("both", list[Media])
    assert both == [sign, sign]
    assert done.output("words", str)
    with pytest.raises(InputError, match=r"the output both\[0\] has another type"):
        done.output("both", list[str])
    with pytest.raises(
        InputError, match=r"has no output 'clip'\. What to do: use one of its outputs: sign, both, words"
    ):
        done.output("clip", Media)
    shown = done._repr_html_()
    assert shown.count("<img src=") == 3
    assert "both[2]" in shown
    assert "<b>" not in shown
    assert (await pair.plan(title="a mug")).price.most == 0
    assert len(rh.recorder.paid) == 2


CHAIN = """
steps:
  sign: {model: z-image/turbo, with: {prompt: a sign}}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(sign), with: {prompt: turn, duration: 5, sound: false}}
"""


async def test_the_report_of_an_interrupted_run_has_all_steps(rh: Emulator) -> None:
    class Stopping(Pages):
        def tell(self, what: What, **_: Any) -> None:
            if what == "step":
                rh.clock.mode, rh.clock.factor = "real", 0

    run = asyncio.create_task(run_locally(Pipeline.from_text(CHAIN), {"budget": 10}, pages=Stopping()))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 2, seconds=300)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    (report,) = Path(get_settings().storage_url).glob("runs/*/report.csv")
    states = [(row["step"], row["state"]) for row in csv.DictReader(report.open())]
    assert states == [("sign", "made"), ("clip", "unfinished")]
    (page,) = report.parents[2].glob("gallery/*.html")
    assert (page.stem, '"label": "sign"' in page.read_text()) == (report.parent.name, True)


async def test_a_run_says_at_its_start_that_its_budget_is_below_the_expected_price(
    rh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Pipeline.from_text(SIGNS.replace(", all_runs: true", ""))
    end = await run_locally(pipeline, {})
    assert end.name == OVER_BUDGET, end.message
    said = "The expected price is 0.16 CNY, and 0.08 of the budget is left: items that do not fit will not be made."
    assert caplog.text.count(said) == 1
    await run_locally(pipeline, {})
    assert caplog.text.count("The expected price") == 1, "the rest costs as much as the budget"


SIGNS = """
budget: {amount: 0.08, whole_items: true, all_runs: true}
steps:
  each:
    matrix: {title: [mug, jug, vase, cup]}
    steps:
      sign: {model: z-image/turbo, with: {prompt: $(matrix.title)}}
"""


async def test_tasks_in_progress_of_other_runs_count_in_a_budget_of_all_runs(rh: Emulator) -> None:
    """A run that was interrupted leaves them; the next run takes their results, and pays for no more."""
    rh.clock.mode, rh.clock.factor = "real", 0
    pipeline = Pipeline.from_text(SIGNS)
    first = asyncio.create_task(run_locally(pipeline, {}))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 2)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    rh.clock.mode = "instant"
    for _ in range(2):
        end = await run_locally(pipeline, {})
        assert end.name == OVER_BUDGET, end.message
        assert len(rh.recorder.paid) == 2


async def test_lost_responses_of_other_runs_count_in_a_budget_of_all_runs(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="cut", number=1))
    pipeline = Pipeline.from_text(SIGNS)
    for _ in range(3):
        await run_locally(pipeline, {})
        assert len(rh.recorder.submissions) == 2, "what may be paid for is half of the budget"
