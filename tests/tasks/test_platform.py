"""Workflows, AI apps and the platform's free questions, from the call to the file in the store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import tasks
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import InputError
from rh_prefect.workflow_inputs import AppInput, QuickCreateInput, WorkflowInput
from tests.support.samples import media as samples
from tests.support.world.as_task import make


async def test_a_workflow_runs_with_its_nodes_set_and_all_its_outputs_come_home(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    given = {"10.image": photo, "6.text": "in ink"}
    result = await make(WorkflowInput(id=rh.workflows.id_of("restyle"), nodes=given, seed=5))
    assert [media.kind for media in result.outputs] == ["image", "image"]
    nodes: Any = rh.recorder.submissions[-1].payload["nodeInfoList"]
    sent = {f"{one['nodeId']}.{one['fieldName']}": one["fieldValue"] for one in nodes}
    assert sent["6.text"] == "in ink"
    assert sent["3.seed"] == 5
    assert str(sent["10.image"]).startswith("openapi/")
    assert result.cost == rh.recorder.paid[0].charged > 0
    assert result.run_seconds


async def test_a_password_goes_by_v1_and_is_in_no_record(rh: Emulator, tmp_path: Path) -> None:
    locked = rh.workflows.add(TEXT_TO_IMAGE, password="canary-password")
    app = rh.apps.add(TEXT_TO_IMAGE, password="canary-password")
    for kind, ident in ((WorkflowInput, locked), (AppInput, app)):
        await make(kind(id=ident, nodes={"6.text": "a pier"}, access_password="canary-password"))
    assert [one.endpoint for one in rh.recorder.paid] == ["/task/openapi/create", "/task/openapi/ai-app/run"]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(b"canary-password" in data for data in written)


async def test_an_app_runs_and_its_options_are_checked(rh: Emulator, tmp_path: Path) -> None:
    ident = rh.apps.id_of("Portrait restyle")
    example = await tasks.app_call_example.fn(ident)
    assert {f"{node.node_id}.{node.field_name}" for node in example.nodes} >= {"10.image", "3.sampler_name"}
    for wrong, said in (
        ({"nodes": {"3.sampler_name": "nonsense"}}, "allowed values"),
        ({"seed": 2**70}, r"3\.seed cannot be .*; it must be at most"),
    ):
        with pytest.raises(InputError, match=said):
            await make(AppInput(id=ident, **wrong))
    photo = samples.png(tmp_path / "photo.png")
    result = await make(AppInput(id=ident, nodes={"10.image": photo, "3.sampler_name": "euler"}))
    assert result.first_output.kind == "image"
    assert len(rh.recorder.paid) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": {"6text": "x"}}, "WorkflowInput: '6text' is not a field of a node"),
        ({"nodes": {"6.text": object()}}, "WorkflowInput: nodes.6.text: Expected a file, not object"),
        ({"seed": -1}, "WorkflowInput: seed: Input should be greater than or equal to 0"),
        ({"id": "x", "code": "", "nodes": ()}, "QuickCreateInput: id: .* code: .* nodes: .* Nothing was sent"),
    ],
)
def test_wrong_input_is_told_in_plain_words(given: dict[str, Any], said: str) -> None:
    kind = QuickCreateInput if "code" in given else WorkflowInput
    with pytest.raises(InputError, match=f"^{said}") as caught:
        kind(**{"id": "2030000000000000001", **given})
    assert not re.search("Value error|the call", str(caught.value))
