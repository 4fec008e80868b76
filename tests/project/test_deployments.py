"""`deployments/prefect.yaml`: what it says, and that Prefect takes it and a worker runs it."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import RunDeployment
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Cancelling

from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish
from rh_prefect.pipelines.run.result import NOTHING_NEW, OVER_BUDGET, WAITING
from tests.support.servers.prefect_server import PrefectServer

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


def name_of(deployment: dict[str, Any]) -> str:
    return str(deployment["entrypoint"]).rpartition("/")[2]


each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
each_that_pays = pytest.mark.parametrize(
    "deployment", [one for one in DEPLOYMENTS if one["name"] not in ("reconcile", "spend-report")], ids=name_of
)


def flow_of(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(deployment["entrypoint"])


@each_deployment
def test_its_flow_takes_what_is_set_and_what_a_person_fills_in(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = flow_of(deployment, monkeypatch)
    given = {**form_of(flow), **deployment["parameters"]}
    assert given.keys() <= flow.parameters.properties.keys()
    flow.validate_parameters(given)


@each_deployment
def test_its_form_explains_every_field(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flow_of(deployment, monkeypatch)
    assert flow.description
    assert [name for name, field in flow.parameters.properties.items() if not field.get("description")] == []


@each_that_pays
def test_it_cancels_what_it_pays_for(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flow_of(deployment, monkeypatch)
    assert cancel_remote_jobs in flow.on_cancellation_hooks
    assert finish in flow.on_completion_hooks


@each_deployment
def test_a_scheduled_deployment_has_every_required_parameter(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if deployment.get("schedules"):
        assert form_of(flow_of(deployment, monkeypatch)).keys() <= deployment["parameters"].keys()


def test_every_flow_is_deployed() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flows").glob("*.py")}
    assert files == {deployment["entrypoint"].partition(":")[0] for deployment in DEPLOYMENTS} & files
    of_the_package = {one["entrypoint"].rpartition(".")[2] for one in DEPLOYMENTS if "pull" in one}
    paying = {"film", "image_to_video", "upscale", "add_soundtrack", "product_video"}
    assert of_the_package == {*paying, "batch", "reconcile", "spend"}, "the package's own flows need no source"


def test_the_automations_know_every_end_of_a_pipeline() -> None:
    # Else a run that ended by such a name counts as one that has ended no longer, and is marked as crashed.
    automations = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    ends = {f"prefect.flow-run.{name}" for name in (NOTHING_NEW, OVER_BUDGET, WAITING)}
    for automation in automations:
        assert ends <= set(automation["trigger"]["expect"]), automation["name"]


def test_the_project_defines_no_class() -> None:
    # A file entrypoint is loaded under its bare name: what it pickled, nobody else could unpickle.
    for path in [*(ROOT / "flows").glob("*.py"), *(ROOT / "blocks").glob("*.py")]:
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)], path


@pytest.fixture(scope="module")
def worker_env(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of all that the tests below start; files and state go into separate folders."""
    return {
        **prefect_server.env,
        "RH_STORAGE_URL": str(tmp_path_factory.mktemp("out")),
        "RH_STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "RH_POLL_SECONDS": "0.1",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


@pytest.fixture(scope="module")
def deployed(worker_env: dict[str, str]) -> str:
    """Has a work pool and deploys everything; returns what `prefect deploy` said."""
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    run([*prefect, "work-pool", "create", "media", "--type", "process", "--overwrite"], worker_env)
    return run([*prefect, "deploy", "--prefect-file", "deployments/prefect.yaml", "--all"], worker_env)


@pytest.fixture(scope="module")
def worker(deployed: str, worker_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A process worker, in a folder that holds no flow; returns its log."""
    folder = tmp_path_factory.mktemp("worker")
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "media"],
            env=worker_env,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield folder / "worker.log"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def use(emulator: Emulator, env: dict[str, str]) -> None:
    """Points the blocks that the deployments name at an emulator."""
    run([sys.executable, "blocks/dev.py"], {**env, "RH_BASE_URL": emulator.url, "RH_API_KEY": emulator.key})


async def start(deployment: str, **parameters: Any) -> UUID:
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        return (await client.create_flow_run_from_deployment(found.id, parameters=parameters)).id


async def until(reached: Callable[[], Awaitable[bool]], *, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not await reached():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-6000:]
        await asyncio.sleep(0.2)


async def look(flow_run_id: UUID) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(flow_run_id)


async def has_ended(flow_run_id: UUID) -> bool:
    state = (await look(flow_run_id)).state
    return state is not None and state.is_final()


@pytest.mark.long
@pytest.mark.prefect
async def test_prefect_takes_all_of_it(deployed: str) -> None:
    async with get_client() as client:
        there = {
            f"{(await client.read_flow(found.flow_id)).name}/{found.name}": found
            for found in await client.read_deployments()
        }
    # Other tests deploy to the same server.
    assert {name.partition("/")[2] for name in there} >= {one["name"] for one in DEPLOYMENTS}
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
    async with get_client() as client:
        (trigger,) = await client.read_automations_by_name("Reconcile a cancelled run")
    assert trigger.enabled
    assert [action.deployment_id for action in trigger.actions if isinstance(action, RunDeployment)] == [looks_after.id]


@pytest.mark.long
@pytest.mark.prefect
@pytest.mark.parametrize(
    ("deployment", "parameters"),
    [
        ("film/film", {"prompt": "a lighthouse", "shots": 1}),
        ("nightly-film/nightly-film", {"shots": 1}),
    ],
)
async def test_a_worker_runs_it(
    deployment: str, parameters: dict[str, Any], worker: Path, worker_env: dict[str, str]
) -> None:
    with Emulator(**TINY) as emulator:
        use(emulator, worker_env)
        flow_run_id = await start(deployment, **parameters)
        await until(lambda: has_ended(flow_run_id), seconds=500, log=worker)
        state = (await look(flow_run_id)).state
        assert state is not None and state.is_completed(), state
        assert len(emulator.recorder.paid) == 6, "script, picture, motion, upscaled clip, speech, music"
    (film,) = (Path(worker_env["RH_STORAGE_URL"]) / "films").glob(f"20??-??-??-{flow_run_id.hex[-12:]}.mp4")
    assert film.stat().st_size > 1000


@pytest.mark.prefect
@pytest.mark.long
async def test_a_cancelled_run_cancels_its_tasks_at_runninghub(worker: Path, worker_env: dict[str, str]) -> None:
    with Emulator(clock="real", factor=0.0, **TINY) as emulator:  # nothing ever ends there by itself
        use(emulator, worker_env)
        flow_run_id = await start("film/film", prompt="a lighthouse", shots=2)

        async def all_run() -> bool:
            return len(emulator.recorder.paid) == 2  # the script and the music

        async def all_are_cancelled() -> bool:
            return sorted(emulator.recorder.cancelled) == sorted(paid.task_id for paid in emulator.recorder.paid)

        await until(all_run, seconds=500, log=worker)
        async with get_client() as client:
            await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)
        await until(all_are_cancelled, seconds=500, log=worker)
        await until(lambda: has_ended(flow_run_id), seconds=500, log=worker)
        state = (await look(flow_run_id)).state
        assert state is not None and state.is_cancelled(), state
        assert len(emulator.recorder.paid) == 2, "nothing was submitted after the cancellation"
