"""Runs of pipelines without a Prefect server: the same results, records and messages as in a flow run."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, JournalError
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.flows.pipeline_run import run_here
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.run.interfaces import Pages, What
from rh_prefect.pipelines.run.step_scheduler import listeners
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.scope import FolderScope, new_run
from rh_prefect.works.journal.works_journal import WorksJournal, open_works
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, group, steps
from tests.support.world.pipeline_flows import complete, prompts, run, until_paid


class CountingPages(Pages):
    """Notes how many paid works a run expects."""

    def __init__(self) -> None:
        self.expected: list[int] = []

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        self.expected.append(jobs)


class DatedPages(Pages):
    """Notes the date of a run's plans."""

    async def show_plan(self, plan: Plan) -> None:
        self.date = plan.planner and plan.planner.planning.options.date


async def test_all_plans_of_a_run_have_the_date_of_its_start(rh: Emulator) -> None:
    """After midnight, a plan with the date of its own time would pay for all requests with a date again."""
    pages, today = DatedPages(), datetime.now(UTC).date().isoformat()
    await run_here(Pipeline.from_text(steps(sign=PICTURE % '"$(run.date)"')), {"budget": 1}, pages=pages)
    assert [pages.date] == [today] == prompts(rh)


async def test_a_result_that_is_only_saved_is_no_job_of_the_run(rh: Emulator) -> None:
    text = "name: saved\nparams: {title: string}\n" + steps(
        sign=PICTURE % "a sign" + ", save_as: sign.png", other=PICTURE % "$(params.title)" + ", save_as: other.png"
    )
    for title, jobs in {"a mug": 2, "a jug": 1}.items():
        pages = CountingPages()
        await run_here(Pipeline.from_text(text), {"title": title, "budget": 1}, pages=pages)
        assert {pages.expected[0], pages.expected[-1]} == {jobs}
    assert len(rh.recorder.paid) == 3


@pytest.mark.parametrize("key", ["save_as: x.png", "reuse: never", "reuse: 2h"])
async def test_a_pipeline_whose_rounds_or_files_have_its_name_needs_one(rh: Emulator, key: str) -> None:
    """Two pipelines without a name closed each other's rounds, and replaced each other's files."""
    data = {"steps": {"sign": {"model": "z-image/turbo", "with": {"prompt": "a"}, **dict([key.split(": ")])}}}
    for pipeline in (Pipeline.from_dict(data), Pipeline.from_text(steps(sign=PICTURE % "a" + f", {key}"))):
        with pytest.raises(
            InputError, match=r"no name.* Nothing was paid\. What to do: add a line such as `name: film`"
        ):
            await run_here(pipeline, {"budget": 1})
    assert not rh.recorder.submissions
    await run_here(Pipeline.from_dict({"name": "sign", **data}), {"budget": 1})


async def test_the_files_that_a_pipeline_saves_are_no_inputs_of_its_next_run(rh: Emulator, tmp_path: Path) -> None:
    """A folder of the storage had more pictures after each run, and each run paid for the new ones."""
    folder = tmp_path / "out" / "photos"
    folder.mkdir(parents=True)
    photo(folder / "a.png")
    each = group("foreach: $(params.photos)", big="model: hypir-ultra, from: $(item), save_as: photos/$(id)-big.png")
    text = "params: {photos: {type: files, of: image}}\n" + steps(each=each)
    for _ in range(2):
        await complete(text, photos=str(folder), budget=9)
    assert sorted(one.name for one in folder.iterdir()) == ["a-big.png", "a.png"]
    assert len(rh.recorder.paid) == 1
    planned = await Pipeline.from_text(f"name: pipeline\n{text}").plan(photos=str(folder))
    assert [(one.address, one.state) for one in planned.instances] == [("each[a].big", "=")]
    other = "name: other\n" + text.replace("-big", "-other")
    assert len((await complete(other, photos=str(folder), budget=9)).steps) == 2, "another pipeline may use them"


async def test_a_users_file_with_the_name_of_a_result_is_an_input(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that replaced a result, or had its name in another storage, was silently left out."""
    each = group("foreach: $(params.photos)", big="model: hypir-ultra, from: $(item), save_as: small/$(id).png")
    text = "params: {photos: {type: files, of: image}}\n" + steps(each=each)
    await complete(text, photos=[photo(tmp_path / "a.png")], budget=9)
    small, other = tmp_path / "out" / "small", tmp_path / "other" / "small"
    with pytest.raises(
        PipelineError, match=r"this pipeline has saved all files of kind image in .*pass a list of file"
    ):
        await run(text, photos=str(small), budget=9)
    photo(small / "b.png", 1)
    assert [one.step for one in (await run(text, photos=str(small), budget=9))[1].steps] == ["each[b].big"]
    photo(small / "a.png", 2)
    both = (await run(text, photos=str(small), budget=9))[1].steps
    assert [one.step for one in both] == ["each[a].big", "each[b].big"]

    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "out"))
    monkeypatch.setenv("RH_STORAGE_URL", str(other.parent))
    other.mkdir(parents=True)
    photo(other / "a.png", 3)
    assert [one.step for one in (await run(text, photos=str(other), budget=9))[1].steps] == ["each[a].big"]


PAIR = "name: pair\nparams: {title: string}\n" + steps(
    sign=PICTURE % "$(params.title)", words=ANSWER % '"A <b>line</b> about $(params.title)"'
)
PAIR += "outputs: {sign: $(sign), both: [$(sign), $(sign)], words: $(words)}\n"


async def test_outputs_have_types_and_plan_and_result_are_shown_in_a_notebook(rh: Emulator) -> None:
    """A plan in Python counts the results that exist, as the command does."""
    pair = Pipeline.from_text(PAIR)
    assert repr(pair) == "<Pipeline pair: parameters title; 2 steps; outputs sign, both, words>"
    plan = await pair.plan(title="a mug")
    assert plan.price.most > 0
    assert "<pre>pair: " in plan._repr_html_()
    done = await pair.run(title="a mug", budget=1)
    assert repr(done).startswith("<PipelineResult of pair: Steps: 2 made; paid ")
    assert all(one.seconds is not None for one in done.steps)
    assert repr(done).endswith("Outputs: sign, both, words>")
    sign, both = done.output("sign", Media), done.output("both", list[Media])
    assert both == [sign, sign]
    assert done.output("words", str)
    with pytest.raises(InputError, match=r"the output both\[0\] does not have the requested type"):
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


async def interrupted(rh: Emulator, running: asyncio.Task[Any], paid: int) -> None:
    await until_paid(rh, paid)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


CHAIN = Pipeline.from_text(steps(sign=PICTURE % "a sign", clip=CLIP % "$(sign)"))


def hold(rh: Emulator) -> None:
    """Lets no further task end."""
    rh.clock.mode, rh.clock.factor = "real", 0


class At(Pages):
    """Calls a function when a run tells something."""

    def __init__(self, what: What, do: Callable[[], object]) -> None:
        self._what, self._do = what, do

    def tell(self, what: What, **_: Any) -> None:
        if what == self._what:
            self._do()


def begun(rh: Emulator, **more: Any) -> asyncio.Task[Any]:
    """A run whose second task does not end."""
    return asyncio.create_task(run_here(CHAIN, {"budget": 10}, pages=At("step", lambda: hold(rh)), **more))


def report_file() -> Path:
    (report,) = Path(get_settings().storage_url).glob("runs/*/report.csv")
    return report


def rows(*columns: str) -> list[tuple[str, ...]]:
    """The report of the only run."""
    return [tuple(row[name] for name in columns) for row in csv.DictReader(report_file().open())]


def block(folder: Path) -> None:
    """Makes a folder of the storage one that cannot be used."""
    if folder.exists():
        folder.rename(folder.with_name("before"))
    folder.write_text("a file in place of the folder")


async def test_the_report_of_an_interrupted_run_has_all_steps(rh: Emulator) -> None:
    await interrupted(rh, begun(rh), 2)
    assert rows("step", "state") == [("sign", "made"), ("clip", "unfinished")]
    (page,) = report_file().parents[2].glob("gallery/*.html")
    assert (page.stem, '"label": "sign"' in page.read_text()) == (report_file().parent.name, True)


async def test_a_run_that_ends_because_its_records_are_lost_has_a_report_and_says_what_it_paid(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    losing = At("step", lambda: block(tmp_path / "records" / "works"))
    with pytest.raises(JournalError, match=r"Steps: 1 made, 1 unfinished; paid 0\.04 CNY\. The next run pays for"):
        await run_here(CHAIN, {"budget": 10}, pages=losing)
    assert len(rh.recorder.paid) == 1
    assert rows("step", "state", "cost") == [("sign", "made", "0.04 CNY"), ("clip", "unfinished", "")]


async def test_a_run_that_is_interrupted_while_all_is_planned_writes_no_report_without_steps(rh: Emulator) -> None:
    ended = list[int]()

    def stop(_: Plan) -> None:
        if len(ended) == 2:  # only the plan of the whole file is left
            running.cancel()

    listeners.append(stop)
    try:
        running = asyncio.create_task(run_here(CHAIN, {"budget": 10}, pages=At("step", lambda: ended.append(1))))
        with pytest.raises(asyncio.CancelledError):
            await running
    finally:
        listeners.remove(stop)
    assert (len(rh.recorder.paid), list(Path(get_settings().storage_url).glob("runs/*/report.csv"))) == (2, [])


async def test_an_interruption_is_not_replaced_by_the_error_of_its_report(
    rh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    running = begun(rh)
    await until_paid(rh, 2)
    block(Path(get_settings().storage_url) / "runs")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "The report of this run could not be written: " in caplog.text


async def opened() -> WorksJournal:
    settings = get_settings()
    return await LOOP.call(open_works(MediaStore(settings.storage_url), settings))


async def test_the_report_of_an_interrupted_attempt_has_the_costs_of_the_earlier_ones(rh: Emulator) -> None:
    works = await opened()
    first = new_run(works, "chain")
    await interrupted(rh, begun(rh, scope=first), 2)
    second = FolderScope(works.notes_of(first.journal.scope), works, attempt=2, pipeline="chain")
    planned = asyncio.Event()
    running = asyncio.create_task(run_here(CHAIN, {"budget": 10}, pages=At("planned", planned.set), scope=second))
    await planned.wait()
    await interrupted(rh, running, 2)
    assert rows("step", "state", "cost") == [("sign", "made", "0.04 CNY"), ("clip", "unfinished", "")]


async def test_a_pipeline_that_makes_nothing_says_so_although_another_one_of_the_run_has_paid(rh: Emulator) -> None:
    first, second = (Pipeline.from_text(steps(sign=PICTURE % title)) for title in ("a mug", "a jug"))
    await run_here(second, {})
    scope = new_run(await opened(), "both")
    ends = [await run_here(one, {"require_new": True}, scope=scope, is_part=True) for one in (first, second)]
    assert [(end.name, end.is_failed) for end in ends] == [("Completed", False), ("Nothing new", True)]
    assert ends[1].message.startswith("Nothing was made and nothing was paid for its steps: the results exist already")


async def test_pipelines_without_budgets_at_once_in_a_flow_run_may_each_cost_their_highest_price(rh: Emulator) -> None:
    scope = new_run(await opened(), "both")
    pair = [Pipeline.from_text(steps(**{f"s{n}": PICTURE % f"{title} {n}" for n in range(3)})) for title in "ab"]
    ends = await asyncio.gather(*(run_here(one, {}, scope=scope, is_part=True) for one in pair))
    assert [end.name for end in ends] == ["Completed", "Completed"]
    assert len(rh.recorder.paid) == 6


async def test_a_run_waits_only_for_the_reviews_that_it_selects(rh: Emulator) -> None:
    each = group("matrix: {title: [mug, jug]}", sign=PICTURE % "$(matrix.title)" + ", takes: 2", best="review: $(sign)")
    pipeline = Pipeline.from_text(steps(each=each))
    first = await run_here(pipeline, {"items": ["mug"]})
    assert first.message.startswith("Choose a candidate for each[mug].best:")
    await run_here(pipeline, {})
    (review,) = (one for one in (await pipeline.plan()).instances if one.address == "each[mug].best")
    choices = {review.address: {"of": review.request["of"], "take": 2}}
    ends = [await run_here(pipeline, {"choices": choices, **part}) for part in ({"items": ["mug"]}, {})]
    assert [end.name for end in ends] == ["Nothing new", "Waiting for review"]
    assert len(rh.recorder.paid) == 4


async def test_the_page_of_a_run_has_the_time_of_each_result(rh: Emulator) -> None:
    """Not that of the end of the run, which may be hours later."""
    await run_here(Pipeline.from_text(steps(sign=PICTURE % "a sign")), {}, pages=At("step", lambda: time.sleep(1)))
    out = Path(get_settings().storage_url)
    (record,), (page,) = out.glob("works/*/result.json"), out.glob("gallery/*.html")
    at = json.loads(record.read_text())["at"]
    assert re.findall('"at": "([^"]*)"', page.read_text()) == [f"{at[:19]}Z"]


async def test_a_run_of_some_steps_waits_for_the_review_between_them(rh: Emulator) -> None:
    chosen = steps(sign=PICTURE % "a sign" + ", takes: 2", best="review: $(sign)", clip=CLIP % "$(best)")
    parts: tuple[dict[str, Any], ...] = ({}, {"only": ["clip"], "require_new": True}, {"only": ["sign"]})
    ends = [await run_here(Pipeline.from_text(chosen), part) for part in parts]
    assert [end.name for end in ends] == ["Waiting for review"] * 3
    assert len(rh.recorder.paid) == 2


SIGNS = "budget: {amount: 0.08, whole_items: true, all_runs: true}\n" + steps(
    each=group("matrix: {title: [mug, jug, vase, cup]}", sign=PICTURE % "$(matrix.title)")
)


async def test_a_budget_below_the_expected_price_is_said_first(rh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    text = SIGNS.replace(", all_runs: true", "")
    end, _ = await run(text)
    assert end.name == "Over budget", end.message
    said = "The expected price is 0.16 CNY, and 0.08 of the budget is left: items that do not fit will not be made."
    assert caplog.text.count(said) == 1
    await run(text)
    assert caplog.text.count("The expected price") == 1, "the rest costs as much as the budget"


async def test_tasks_in_progress_of_other_runs_count_in_a_budget_of_all_runs(rh: Emulator) -> None:
    """A run that was interrupted leaves them; the next run takes their results, and pays for no more."""
    rh.clock.mode, rh.clock.factor = "real", 0
    await interrupted(rh, asyncio.create_task(run(SIGNS)), 2)
    rh.clock.mode = "instant"
    for _ in range(2):
        end, _ = await run(SIGNS)
        assert end.name == "Over budget", end.message
        assert len(rh.recorder.paid) == 2


async def test_a_run_without_a_budget_pays_again_if_a_task_of_an_interrupted_run_fails(rh: Emulator) -> None:
    text = steps(sign=PICTURE % "a sign" + ", attempts: 2")
    rh.faults.add(Fault("submit", kind="fail", code="1504", times=1))
    rh.clock.mode, rh.clock.factor = "real", 0
    await interrupted(rh, asyncio.create_task(run(text)), 1)
    rh.clock.mode = "instant"
    assert [one.state for one in (await complete(text)).steps] == ["made"]
    assert len(rh.recorder.submissions) == 2


async def test_lost_responses_of_other_runs_count_in_a_budget_of_all_runs(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="cut", number=1))
    for _ in range(3):
        await run(SIGNS)
        assert len(rh.recorder.submissions) == 2, "what may be paid for is half of the budget"
