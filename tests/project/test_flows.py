"""The flows of this checkout, run against the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Scheduled

from rh_prefect.emulator import Emulator
from rh_prefect.media.probe import probe
from tests.support.samples import media as samples

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(long_side=64, fps=6, max_seconds=1.0) as emulator:
        for name, value in {
            "RH_BASE_URL": emulator.url,
            "RH_API_KEY": emulator.key,
            "RH_STORAGE_URL": str(tmp_path / "out"),
            "RH_STATE_DIR": str(tmp_path / "state"),
            "RH_POLL_SECONDS": "0.05",
        }.items():
            monkeypatch.setenv(name, value)
        yield emulator


def load(name: str) -> Any:
    return load_flow_from_entrypoint(f"{ROOT}/flows/{name}.py:{name}")


def words(emulator: Emulator) -> str:
    return " ".join(str(paid.payload) for paid in emulator.recorder.paid)


async def test_the_nightly_film_takes_the_subject_of_the_day_that_it_was_planned_for(rh: Emulator) -> None:
    flow = load("nightly_film")
    subjects = [f"subject {number}" for number in range(5)]
    planned = datetime.now(UTC) - timedelta(days=3)
    async with get_client() as client:
        flow_run = await client.create_flow_run(
            flow, parameters={"subjects": subjects, "shots": 1}, state=Scheduled(scheduled_time=planned)
        )
    ran: Any = run_flow(flow, flow_run=flow_run, parameters={"subjects": subjects, "shots": 1})
    made = await ran
    assert probe(Path(made)).has_audio
    expected = planned.toordinal() % 5
    async with get_client() as client:
        name = (await client.read_flow_run(flow_run.id)).name
    assert name == f"nightly-film: subject {expected}, {planned:%Y-%m-%d %H:%M}"
    assert [subject in words(rh) for subject in subjects] == [number == expected for number in range(5)]


async def test_a_video_gets_the_voice_that_a_model_wrote(rh: Emulator, tmp_path: Path) -> None:
    clip = samples.mp4(tmp_path / "clip.mp4", audio=False)
    made = await load("narrate_video")(str(clip), style="very short")
    assert probe(Path(made.uri)).has_audio
    assert "very short" in words(rh)
    assert len(rh.recorder.paid) == 3, "narration, speech and music"


def test_a_run_is_named_by_what_it_works_on() -> None:
    flow, context = load("narrate_video"), cast(Any, FlowRunContext)
    flow_run = FlowRun(flow_id=uuid4(), expected_start_time=None)
    with context.model_construct(flow=flow, flow_run=flow_run, parameters={"video": "/data/acme/clip.mp4"}):
        assert flow.flow_run_name() == "narrate-video: clip.mp4"
