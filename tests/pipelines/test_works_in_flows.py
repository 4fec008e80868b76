"""Works in real flow runs: the ledger is in Prefect's journal of the run, the works are in the store."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rh_prefect import flow
from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, RunningHubError
from rh_prefect.flow_runs.call_scope import current_scope
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.works_journal import open_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options
from rh_prefect.works.run_ledger import RecordsLocation, note_location
from rh_prefect.works.work_runner import WorkResult, WorkRunner
from tests.support.world.pipeline_runs import picture

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


async def make(*words: str, **options: Any) -> list[WorkResult]:
    """The pictures of a flow run, one after another."""
    engine, store, scope, settings = await load_pool_context(), await load_storage(), current_scope(), get_settings()
    assert scope is not None

    async def work() -> list[WorkResult]:
        works = await open_works(store, settings)
        await note_location(scope.journal, RecordsLocation(url=works.url))
        runner = WorkRunner(engine, scope, store, works, Options(**options))
        return [await runner.make(picture(one)) for one in words]

    return await LOOP.call(work())


@flow
async def pictures(words: list[str], budget: float | None = None) -> list[str]:
    return [one.record.task_id for one in await make(*words, budget=budget)]


async def test_a_new_flow_run_pays_only_for_what_is_new(rh: Emulator) -> None:
    first = await pictures(["one", "two"])
    assert await pictures(["one", "two"]) == first
    assert len(rh.recorder.paid) == 2
    assert (await pictures(["two", "three"]))[0] == first[1]
    assert len(rh.recorder.paid) == 3


async def test_the_budget_of_a_resumed_run_counts_what_its_journal_says(rh: Emulator) -> None:
    await pictures(["the price"])
    price = rh.recorder.paid[0].charged
    rh.faults.add(Fault("submit", prompt="broken", kind="fail", code="1504", times=1))
    run = await create(pictures, {"words": ["one", "broken", "two"], "budget": float(price * 2)})
    with pytest.raises(RunningHubError):
        await rerun(pictures, run)
    assert len(rh.recorder.paid) == 3
    # The failed task keeps its estimate, so that a new task does not fit.
    with pytest.raises(BudgetExceeded):
        await rerun(pictures, run)
    assert len(rh.recorder.paid) == 3
    # Another run pays only for its own works.
    assert len(await pictures(["one", "broken", "two"], budget=float(price * 2))) == 3
    assert sum((one.charged for one in rh.recorder.paid), Decimal(0)) == price * 5
