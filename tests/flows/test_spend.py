"""The flow `spend`: what a month has cost, for the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError

from rh_prefect import MediaStorage, flow, generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.charge_reader import Charges, charges_of
from rh_prefect.flows import spend
from rh_prefect.prefect_api import ask
from tests.support.world.prefect_runs import artifacts_of

pytestmark = pytest.mark.prefect


@flow
async def pictures() -> None:
    for prompt in ("a lighthouse", "a harbour"):
        await generate(models.ZImageTurbo(prompt=prompt))


@pytest.mark.parametrize("month", ["2026-13", "2026-100", "12026-11", "2026-00"])
async def test_a_month_that_does_not_exist_is_refused(month: str) -> None:
    with pytest.raises(ParameterTypeError, match="month"):
        await spend(month=month)


async def test_its_report_shows_the_month_its_days_models_and_dearest_runs(rh: Emulator) -> None:
    made: State[Any] = await pictures(return_state=True)
    state: State[Any] = await spend(budget=1.0, return_state=True)
    run = state.state_details.flow_run_id
    assert run is not None
    assert (await ask(lambda api: api.read_flow_run(run))).name.startswith("spend, ")
    (report,) = (await artifacts_of(run)).values()
    assert report.key == "spend-report"
    # Tests of damaged records leave runs on this server that cannot be read; the state names them.
    said = str(state.message).partition(" Incomplete: ")[0]
    assert report.description == said
    assert said[7:] == ": 0.08 CNY for 2 task(s); 0.92 CNY left of the budget of 1.00."
    text = str(report.data)
    assert "![by day](data:image/png;base64," in text
    assert "| z-image/turbo | 0.08 CNY |" in text
    assert f"/runs/flow-run/{made.state_details.flow_run_id}>) | 0.08 CNY |" in text
    state = await spend(month="2001-01", budget=1.0, return_state=True)
    assert str(state.message).startswith("2001-01: 0 for 0 task(s); 1.00 CNY left of the budget of 1.00.")


async def test_a_deployment_without_storage_variable_reads_the_storage_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of the current folder, which is temporary, were opened too."""
    await MediaStorage(url=str(tmp_path / "films")).asave("films", overwrite=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RH_STORAGE_URL", raising=False)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    _, found = await charges_of("films", with_prefect=False)
    assert found == Charges((), {})
