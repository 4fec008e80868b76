"""Pipelines that `prefect deploy` put on Prefect's server, run by a process worker through a review and a choice."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from rh_prefect.emulator import Emulator, Fault
from tests.support.servers.deployment_server import POOL, Workplace, workplace
from tests.support.servers.emulator_env import environment
from tests.support.world.prefect_runs import artifacts_of

# Five processes start one after another; on a busy machine each takes half a minute.
pytestmark = [pytest.mark.long]

PICK = """
name: pick
params:
  products: {type: table, columns: {sku: string, title: string}, default: products.csv}
  look: {enum: [studio, outdoors], default: studio, description: The light}
budget: 20
steps:
  each:
    foreach: $(params.products)
    id: $(item.sku)
    steps:
      picture: {model: z-image/turbo, takes: 2, with: {prompt: "$(item.title), $(params.look) light"}}
      chosen: {review: $(picture), ask: Which picture is animated}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: a turn, duration: 5, sound: false}}
outputs: {clips: $(each.clip)}
"""


@pytest.fixture(scope="module")
def rh() -> Iterator[Emulator]:
    with Emulator(long_side=96, fps=6) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a team has it: a pipeline, its table and a `prefect.yaml`."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "pick.yaml").write_text(PICK)
    (folder / "products.csv").write_text("sku,title\nA-1,a cup\nA-2,a bowl\n")
    entrypoints = ("rh_prefect.flows.folder_pipelines.pick", "rh_prefect.flows.film")
    deployments = [{"name": "test", "entrypoint": one, "work_pool": {"name": POOL}} for one in entrypoints]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": deployments}))
    return folder


@pytest.fixture(scope="module")
def place(
    rh: Emulator, project: Path, tmp_path_factory: pytest.TempPathFactory, prefect_template: Path
) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workplace")
    with workplace(folder, environment(rh, folder), template=prefect_template) as made:
        made.prefect("work-pool", "create", POOL, "--type", "process")
        made.prefect("deploy", "--all", folder=project)
        yield made


async def ends(place: Workplace, run: UUID, name: str) -> State[Any]:
    state = await place.end_of(run)
    assert state.name == name, state.message
    return state


async def test_a_worker_runs_pipelines_through_a_review_and_a_choice(place: Workplace, rh: Emulator) -> None:
    async with get_client() as client:
        schema = (await client.read_deployment_by_name("pick/test")).parameter_openapi_schema
    assert schema is not None
    form = schema["properties"]
    assert list(form)[:3] == ["products", "look", "budget"]
    assert form["look"]["enum"] == ["studio", "outdoors"]
    assert form["look"]["description"] == "The light. One of: studio, outdoors. Default: studio."
    run = await place.start("pick/test")
    await ends(place, run, "Waiting for review")
    # What a person copies from the run's review into the form, with the number of a candidate.
    (review,) = (str(one.data) for key, one in (await artifacts_of(run)).items() if key.endswith("-report"))
    copied = json.loads(review.partition("```json\n")[2].partition("```")[0])
    choices = {address: {**one, "take": 2} for address, one in copied.items()}
    await ends(place, await place.start("pick/test", choices=choices), "Completed")
    assert len(rh.recorder.paid) == 6, "each request was paid once, over both runs"
    again = await place.start("pick/test", require_new=True, choices=choices)
    assert (await ends(place, again, "Nothing new")).is_failed()
    assert len(rh.recorder.paid) == 6


async def test_a_killed_film_is_continued_by_the_next_run_and_a_further_run_makes_another_film(
    place: Workplace, rh: Emulator
) -> None:
    """Run is pressed three times: the first run is killed, the second one completes its film, the third is new."""
    asked: dict[str, Any] = {"prompt": "a harbour", "shots": 1}
    works, before = place.folder / "out" / "works", len(rh.recorder.paid)

    def done() -> int:
        return len({file.parent for file in works.rglob("result*")})

    results = done()
    rh.faults.add(Fault("query", endpoint="kling-v2.6-pro/image-to-video", number=1, kind="hold"))
    run = await place.start("film/test", **asked)
    held = await asyncio.to_thread(rh.held.wait, 1, seconds=600)
    assert held, place.said()

    async def others_are_done() -> bool:
        return done() == results + 4

    await place.until(others_are_done)  # the script, the picture, the line and the music
    place.signal(run, signal.SIGKILL)
    rh.held.release()
    await ends(place, run, "Crashed")
    for _ in range(2):
        await ends(place, await place.start("film/test", **asked), "Completed")
    paid = Counter(one.endpoint for one in rh.recorder.paid[before:])
    assert set(paid.values()) == {2}, "two films of three runs"
    assert sum(paid.values()) == 12
