"""A flow for one model: its form is exact, and it can be deployed and run without a file of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ParameterTypeError, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint

from rh_prefect import catalog
from rh_prefect.catalog import Model
from rh_prefect.emulator import Emulator
from rh_prefect.errors import UnknownModelError
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish
from rh_prefect.flows import for_model
from rh_prefect.flows import models as module
from rh_prefect.flows.models import flow_name
from rh_prefect.tasks import endpoints
from rh_prefect.works.outputs.result import Result
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer


def form(name: str) -> dict[str, dict[str, Any]]:
    schema = for_model(name).parameters.model_dump()
    assert schema["definitions"] == {}
    fields: dict[str, dict[str, Any]] = schema["properties"]
    kept = ("type", "enum", "default", "minimum", "maximum", "maxLength", "maxItems", "items", "anyOf")
    return {name: {key: field[key] for key in kept if key in field} for name, field in fields.items()}


def required(name: str) -> set[str]:
    return set(for_model(name).parameters.model_dump()["required"])


NULL = {"type": "null"}


def test_the_form_of_a_video_model() -> None:
    shown = form("kling-v2.6-pro-image-to-video")
    assert shown["duration"] == {"type": "string", "enum": ["5", "10"], "default": "5"}
    assert shown["sound"] == {"type": "string", "enum": ["true", "false"], "default": "true"}
    assert shown["prompt"] == {"type": "string", "maxLength": 2000}
    assert shown["image_url"] == {"type": "string"}
    assert shown["negative_prompt"] == {"anyOf": [{"type": "string", "maxLength": 2500}, NULL], "default": None}
    assert shown["reuse"] == {"type": "string", "enum": ["never", "always"], "default": "never"}
    assert list(shown)[-4:] == ["label", "reuse", "credentials", "storage"]
    assert required("kling-v2.6-pro-image-to-video") == {"prompt", "image_url"}


def test_the_form_of_a_model_with_lists_and_switches() -> None:
    shown = form("seedance-2.0-global/multimodal-video")
    files = {"type": "array", "items": {"type": "string"}, "maxItems": 9}
    assert shown["image_urls"] == {"anyOf": [files, NULL], "default": None}
    assert shown["generate_audio"] == {"type": "boolean", "default": True}
    assert shown["conversion_slots"]["default"] == ["all"]
    assert "image3" in shown["conversion_slots"]["items"]["enum"]


def test_the_form_of_a_model_with_numbers_and_objects() -> None:
    shown = form("kling-v3.0-pro-image-to-video")
    assert shown["cfg_scale"] == {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
    objects = {"type": "array", "items": {"type": "object", "additionalProperties": True}}
    assert shown["multi_prompt"] == {"anyOf": [objects, NULL], "default": None}


def test_the_form_of_a_model_with_a_single_choice_is_a_list_of_one() -> None:
    shown = form("google/veo3.1-fast/image-to-video-channel-low-price")
    assert shown["duration"] == {"type": "string", "enum": ["8"], "default": "8"}


def test_the_form_of_an_audio_model() -> None:
    shown = form("minimax/speech-2.8-hd")
    assert (shown["speed"]["minimum"], shown["speed"]["maximum"]) == (0.5, 2)
    assert shown["text"]["type"] == "string"


@pytest.mark.parametrize("model", catalog.models()[::8], ids=lambda model: model.name)
def test_every_form_says_what_each_field_takes(model: Model) -> None:
    made = for_model(model.name)
    schema = made.parameters.model_dump()
    fields = schema["properties"]
    assert list(fields) == [*(param.name for param in model.params), "label", "reuse", "credentials", "storage"]
    for param in model.params:
        assert param.note.lower() in fields[param.name]["description"].lower()
        assert fields[param.name].get("default") == param.wire_default
    assert set(schema.get("required", ())) == {p.name for p in model.params if p.required and p.default is None}
    assert model.endpoint in (made.description or "")
    assert (made.name, made.on_cancellation_hooks, made.on_completion_hooks) == (
        flow_name(model), [cancel_remote_jobs], [finish]
    )  # fmt: skip


def test_every_flow_has_a_name_of_its_own_that_prefect_takes() -> None:
    names = {flow_name(model) for model in catalog.models()}
    assert len(names) == len(catalog.models())
    assert not [name for name in names if set("/%&<>") & set(name)]


def test_a_flow_is_found_by_any_name_and_by_its_entrypoint() -> None:
    made = for_model("z-image/turbo")
    assert made is for_model("ZImageTurbo") is module.z_image_turbo
    for entrypoint in ("rh_prefect.flows.models.z_image_turbo", "rh_prefect.flows.models:z_image_turbo"):
        assert load_flow_from_entrypoint(entrypoint) is made
    assert made._entrypoint == "rh_prefect.flows.models:z_image_turbo"
    assert len(dir(module)) == len(catalog.models())
    with pytest.raises(UnknownModelError, match="z-image/turbo"):
        for_model("z-image/turb")
    with pytest.raises(AttributeError, match="z_image_turbo"):
        module.z_image_turb  # noqa: B018  # the access is the test


@pytest.mark.prefect
async def test_it_runs_and_takes_a_result_of_another_flow(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    photo: Result = await for_model("z-image/turbo")(prompt="a lighthouse", aspect_ratio="1:1", label="photo")
    clip: Result = await for_model("kling-v2.6-pro-image-to-video")(image_url=photo, prompt="waves", sound="false")
    assert (photo.first_output.kind, clip.first_output.kind) == ("image", "video")
    # What the form shows is what is sent.
    assert rh.recorder.paid[1].payload["duration"] == "5"
    with pytest.raises(ParameterTypeError, match="duration"):
        await for_model("kling-v2.6-pro-image-to-video")(image_url=photo, prompt="waves", duration="7")
    assert len(rh.recorder.paid) == 2


async def _deployment_run(name: str, parameters: dict[str, Any]) -> str:
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(name)
        return str((await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id)


@pytest.mark.long  # each of Prefect's commands takes seconds
@pytest.mark.prefect
async def test_it_is_deployed_by_its_name_and_run_by_a_worker(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr

    task = endpoints.kling_v2_6_pro_image_to_video
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name="models", type="process"))
    prefect("deploy", f"rh_prefect.flows.models.{task.fn.__name__}", "--name", "desk", "--pool", "models")
    photo = str(samples.png(tmp_path / "photo.png"))
    name = "kling-v2.6-pro-image-to-video/desk"
    for wrong in ({"duration": "7"}, {"prompt": "x" * 2001}):
        with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
            await _deployment_run(name, {"image_url": photo, "prompt": "waves", **wrong})
    run = await _deployment_run(name, {"image_url": photo, "prompt": "waves", "duration": "10"})
    prefect("flow-run", "execute", run)  # what a worker starts for each run
    (paid,) = rh.recorder.paid
    assert (paid.payload["duration"], paid.payload["prompt"]) == ("10", "waves")
    assert list((tmp_path / "out").rglob("*.mp4"))
