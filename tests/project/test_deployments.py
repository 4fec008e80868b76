"""The flows and deployments of this checkout: what they say, and that Prefect takes them and a worker runs them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.context import FlowRunContext
from prefect.events.actions import RunDeployment
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Scheduled

from rh_prefect import MediaStorage, RunningHubCredentials
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish
from rh_prefect.media.probe import probe
from rh_prefect.pipelines.pipeline import Pipeline, shipped_names
from rh_prefect.prefect_api import ask
from tests.support.samples import media as samples
from tests.support.servers.deployment_server import POOL, Workplace, workplace
from tests.support.servers.emulator_env import StartEmulator
from tests.support.servers.prefect_server import PrefectServer
from tests.support.world.prefect_runs import set_states

ROOT = Path(__file__).parents[2]
YAML = ROOT / "deployments" / "prefect.yaml"
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(YAML.read_text())["deployments"]
TINY: dict[str, Any] = {"long_side": 64, "fps": 6, "max_seconds": 1.0}


def _cron(schedule: object) -> str:
    assert isinstance(schedule, CronSchedule)
    return schedule.cron


def form_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """What a person has to fill in to run a deployment of a flow by hand."""
    return {name: _example(flow.parameters.properties[name]) for name in flow.parameters.required or []}


def _example(field: dict[str, Any]) -> Any:
    kind = field.get("anyOf", [field])[0]
    return [_example(kind["items"])] if kind["type"] == "array" else "shoe.png"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["entrypoint"].rpartition("/")[2])
def test_its_flow_takes_what_is_given_explains_its_form_and_cancels_what_it_pays_for(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
    given = {**form_of(flow), **deployment["parameters"]}
    assert given.keys() <= flow.parameters.properties.keys()
    flow.validate_parameters(given)
    if deployment.get("schedules"):
        assert form_of(flow).keys() <= deployment["parameters"].keys(), "nobody fills in a form"
    assert flow.description
    assert [name for name, field in flow.parameters.properties.items() if not field.get("description")] == []
    pays = deployment["name"] not in ("reconcile", "spend-report")
    assert (cancel_remote_jobs in flow.on_cancellation_hooks) is pays
    assert (finish in flow.on_completion_hooks) is pays


def test_every_flow_is_deployed() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flows").glob("*.py")}
    assert files == {deployment["entrypoint"].partition(":")[0] for deployment in DEPLOYMENTS} & files
    of_the_package = {one["entrypoint"].rpartition(".")[2] for one in DEPLOYMENTS if "pull" in one}
    paying = {"film", "image_to_video", "upscale", "add_soundtrack", "product_video"}
    assert of_the_package == {*paying, "batch", "reconcile", "spend"}, "the package's own flows need no source"


def test_the_page_names_the_deployments_without_a_limit() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    pipelines = {name: Pipeline.shipped(name).file.budget for name in shipped_names()}
    assert not any(budget and budget.unlimited for budget in pipelines.values())
    unlimited = {one["name"] for one in DEPLOYMENTS} - pipelines.keys() - {"nightly-film", "reconcile", "spend-report"}
    film = pipelines["film"]
    assert film is not None
    (said,) = re.findall(r"\n(.*?), have no limit", page)
    assert set(re.findall(r"`([a-z-]+)`", said)) - {"budget"} == unlimited
    assert f"`nightly-film`, which pays up to {film.amount:.0f} CNY" in page


def test_the_automations_know_every_end_of_a_pipeline() -> None:
    # Else the automation that waits for heartbeats of the run acts on it, after it has ended by such a name.
    automations = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    ends = {f"prefect.flow-run.{name}" for name in ("Nothing new", "Over budget", "Waiting for review")}
    for automation in automations:
        assert ends <= set(automation["trigger"]["expect"]), automation["name"]


def test_the_project_defines_no_class() -> None:
    # A file entrypoint is loaded under its bare name: what it pickled, nobody else could unpickle.
    for path in [*(ROOT / "flows").glob("*.py"), *(ROOT / "blocks").glob("*.py")]:
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)], path


@pytest.fixture(scope="module")
def site() -> Iterator[Emulator]:
    with Emulator(**TINY) as emulator:
        yield emulator


# The session's server is started first: one that starts meanwhile loses its settings when those of this end.
@pytest.fixture(scope="module")
def place(
    site: Emulator,
    tmp_path_factory: pytest.TempPathFactory,
    prefect_template: Path,
    prefect_server: PrefectServer,
) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workplace")
    env = {"RH_STORAGE_URL": str(folder / "out"), "RH_STATE_DIR": str(folder / "state"), "RH_POLL_SECONDS": "0.1"}
    blocks = {"RH_BASE_URL": site.url, "RH_API_KEY": site.key}
    with workplace(folder, env, template=prefect_template) as made:
        made.prefect("work-pool", "create", POOL, "--type", "process")
        made.prefect("deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
        subprocess.run([sys.executable, "blocks/dev.py"], env={**made.env, **blocks}, cwd=ROOT, check=True)
        yield made


@pytest.mark.long
async def test_prefect_takes_all_of_it(place: Workplace) -> None:
    async with get_client() as client:
        there = {
            f"{(await client.read_flow(found.flow_id)).name}/{found.name}": found
            for found in await client.read_deployments()
        }
    assert {name.partition("/")[2] for name in there} == {one["name"] for one in DEPLOYMENTS}
    nightly = there["nightly-film/nightly-film"]
    assert [(one.active, _cron(one.schedule)) for one in nightly.schedules] == [(True, "0 3 * * *")]
    assert nightly.global_concurrency_limit is not None
    assert nightly.global_concurrency_limit.limit == 1
    assert nightly.tags == ["media", "nightly"]
    assert there["film/film"].pull_steps == []
    schema = there["film/film"].parameter_openapi_schema
    assert schema is not None
    assert schema["properties"]["shots"]["maximum"] == 12
    looks_after = there["reconcile/reconcile"]
    assert [(one.active, _cron(one.schedule)) for one in looks_after.schedules] == [(True, "*/15 * * * *")]
    assert "media" not in looks_after.tags, "it would be started by its own end"
    (trigger,) = await ask(lambda api: api.read_automations_by_name("Reconcile a cancelled run"))
    assert trigger.enabled
    assert [action.deployment_id for action in trigger.actions if isinstance(action, RunDeployment)] == [looks_after.id]


@pytest.mark.long
async def test_a_worker_runs_it(place: Workplace, site: Emulator) -> None:
    run = await place.start("nightly-film/nightly-film", shots=1)
    state = await place.end_of(run)
    assert state.is_completed(), state
    assert len(site.recorder.paid) == 6, "script, picture, motion, upscaled clip, speech, music"
    (film,) = (Path(place.env["RH_STORAGE_URL"]) / "films").glob(f"20??-??-??-{run.hex[-12:]}.mp4")
    assert film.stat().st_size > 1000


@pytest.fixture
def rh(start_rh: StartEmulator) -> Emulator:
    return start_rh(**TINY)


def load(name: str) -> Any:
    return load_flow_from_entrypoint(f"{ROOT}/flows/{name}.py:{name}")


def words(emulator: Emulator) -> str:
    return " ".join(str(paid.payload) for paid in emulator.recorder.paid)


@pytest.mark.long
@pytest.mark.prefect
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
    assert (await set_states(flow_run.id)).name == f"nightly-film: subject {expected}, {planned:%Y-%m-%d %H:%M}"
    assert [subject in words(rh) for subject in subjects] == [number == expected for number in range(5)]


@pytest.mark.long
@pytest.mark.prefect
async def test_a_video_gets_the_voice_that_a_model_wrote(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks only, as on a worker: the edit after three paid jobs asked for a key in the environment."""
    await RunningHubCredentials(api_key=rh.key, base_url=rh.url).asave("narrator", overwrite=True)
    await MediaStorage(url=str(tmp_path / "narrated")).asave("narrator", overwrite=True)
    for name in ("RH_API_KEY", "RH_BASE_URL", "RH_STORAGE_URL"):
        monkeypatch.delenv(name)
    clip = samples.mp4(tmp_path / "clip.mp4", audio=False)
    made = await load("narrate_video")(str(clip), style="very short", credentials="narrator", storage="narrator")
    assert probe(Path(made.uri)).has_audio
    assert "very short" in words(rh)
    assert len(rh.recorder.paid) == 3, "narration, speech and music"


@pytest.mark.prefect
def test_a_run_is_named_by_what_it_works_on() -> None:
    flow, context = load("narrate_video"), cast(Any, FlowRunContext)
    flow_run = FlowRun(flow_id=uuid4(), expected_start_time=None)
    with context.model_construct(flow=flow, flow_run=flow_run, parameters={"video": "/data/acme/clip.mp4"}):
        assert flow.flow_run_name() == "narrate-video: clip.mp4"
