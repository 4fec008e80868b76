"""Runs of pipelines without a Prefect server: the same results, records and messages as in a flow run."""

from __future__ import annotations

from pathlib import Path

from rh_prefect.emulator import Emulator
from rh_prefect.pipelines.run.result import NOTHING_NEW
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.scope import read_run
from rh_prefect.works.journal.works_journal import default_works
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
