"""Workflows, apps and quick create: files and texts, and the state of the graph of a result."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import InputError
from rh_prefect.workflow_inputs import AppInput, GraphInput, QuickCreateInput, WorkflowInput
from tests.support.processes.pooled_run import PooledRun
from tests.support.samples import media as samples


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PooledRun:
    return PooledRun(rh, tmp_path, members=("main",))


def values(rh: Emulator) -> dict[str, object]:
    """The node values of the newest submission."""
    listed: Any = rh.recorder.submissions[-1].payload["nodeInfoList"]
    return {f"{one['nodeId']}.{one['fieldName']}": one["fieldValue"] for one in listed}


def restyle(rh: Emulator, image: str | Path) -> WorkflowInput:
    return WorkflowInput(id=rh.workflows.id_of("restyle"), nodes={"10.image": image})


def test_a_later_change_by_the_caller_does_not_change_an_input() -> None:
    """Three prompts in a loop over one graph are three graphs; each input is a deep copy."""
    graph: dict[str, Any] = copy.deepcopy(TEXT_TO_IMAGE)
    node = {"nodeId": "20", "fieldName": "Input", "fieldValue": "1"}
    shots: list[Any] = [{"prompt": "one", "points": [[1, 2]]}]
    model = models.ZImageTurbo(prompt="x", unchecked={"shots": shots})
    made: Any = [
        WorkflowInput(id="1", workflow=graph),
        GraphInput(graph=graph),
        QuickCreateInput(id="1", code="002", nodes=(node,)),
        model,
    ]
    before = [one.model_dump_json() for one in made]
    graph["6"]["inputs"]["text"] = "changed"
    graph["9"]["inputs"]["images"].append("changed")
    node["fieldValue"] = "changed"
    shots[0]["points"][0].append("changed")
    assert [one.model_dump_json() for one in made] == before


async def test_a_text_that_is_a_local_file_is_refused_and_its_path_is_not(
    rh: Emulator, run: PooledRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a text means does not depend on the folder in which a run is started or resumed."""
    photo = samples.png(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    for asked in (restyle(rh, "photo.png"), module(rh, str(photo))):
        with pytest.raises(InputError, match="is the path of a local file"):
            await run.pay(asked)
    assert not rh.recorder.submissions
    first = await run.pay(restyle(rh, photo))
    run.attempt = 2
    again = await run.pay(restyle(rh, photo.as_uri()))
    assert (len(rh.recorder.paid), again.task_id) == (1, first.task_id)
    await run.pay(module(rh, photo))
    assert values(rh)["20.text1"] == rh.recorder.uploads[0].file_name


def module(rh: Emulator, value: Any) -> QuickCreateInput:
    node = {"nodeId": "20", "fieldName": "text1", "fieldType": "STRING", "fieldValue": value}
    return QuickCreateInput(id=rh.apps.id_of("Quick picture"), code="002", nodes=(node,))


@pytest.mark.parametrize("kind", ["workflow", "app"])
async def test_a_result_of_another_graph_is_not_reused(rh: Emulator, run: PooledRun, kind: str) -> None:
    site: Any = rh.workflows if kind == "workflow" else rh.apps
    ident = site.add(copy.deepcopy(TEXT_TO_IMAGE))
    asked = WorkflowInput(id=ident) if kind == "workflow" else AppInput(id=ident)
    await run.pay(asked)
    assert (await run.pay(asked, reuse="always")).reused
    assert len(rh.recorder.paid) == 1
    site.find(ident).graph["6"]["inputs"]["text"] = "edited on the site"
    edited = await run.pay(asked, reuse="always")
    assert (edited.reused, len(rh.recorder.paid)) == (False, 2)
    again = await run.pay(asked, reuse="always")
    assert (again.task_id, len(rh.recorder.paid)) == (edited.task_id, 2), "this run's own"


async def test_a_job_is_not_paid_again_because_its_graph_was_edited(rh: Emulator, run: PooledRun) -> None:
    ident = rh.workflows.add(copy.deepcopy(TEXT_TO_IMAGE))
    first = await run.pay(WorkflowInput(id=ident))
    other = await run.pay(WorkflowInput(id=ident, nodes={"6.text": "in this request only"}))
    assert other.task_id != first.task_id
    site: Any = rh.workflows
    site.find(ident).graph["6"]["inputs"]["text"] = "edited on the site"
    run.attempt = 2
    assert (await run.pay(WorkflowInput(id=ident))).task_id == first.task_id
    assert len(rh.recorder.paid) == 2
