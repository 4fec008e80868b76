"""Steps with a graph, a saved workflow or an app: what the graph holds is a part of what is asked for."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.flows.pipeline_report import PipelineResult
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

STEP = """
budget: 5
steps:
  ink:
    {what}: {name}
    with: {{6.text: $(params.text), 5.width: 64, 5.height: 64}}
    assume: {{kind: image, price: 0.30}}
    {more}
params: {{text: string}}
outputs: {{ink: $(ink)}}
"""
APP = """
budget: 5
params: {text: string}
steps:
  face: {app: 2030000000000000101, with: {6.text: $(params.text)}, assume: {kind: image, price: 0.30}}
"""


def changed(**values: Any) -> dict[str, Any]:
    """The emulator's graph with other values: `n3_steps=30` is the field `steps` of node 3."""
    graph: dict[str, Any] = copy.deepcopy(dict(TEXT_TO_IMAGE))
    for name, value in values.items():
        node, _, field = name.removeprefix("n").partition("_")
        graph[node]["inputs"][field] = value
    return graph


def paid(rh: Emulator) -> int:
    """How many tasks and native prompts were accepted."""
    return len(rh.recorder.tasks)


async def run(pipeline: Pipeline, **params: Any) -> PipelineResult:
    state = await pipeline_flow(pipeline)(**params, return_state=True)
    data = await state.aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    assert isinstance(result, PipelineResult), data
    return result


async def test_a_graph_runs_and_only_what_it_holds_counts(rh: Emulator, tmp_path: Path) -> None:
    file, graph = tmp_path / "ink.yaml", tmp_path / "ink.json"
    file.write_text(STEP.format(what="graph", name="ink.json", more=""))
    graph.write_text(json.dumps(changed()))
    first = await run(Pipeline.from_file(file), text="a pier")
    assert [one.state for one in first.steps] == ["made"]
    assert first["ink"].kind == "image"
    assert paid(rh) == 1

    renamed = changed(n5_width=512)  # which the step sets
    renamed["3"]["_meta"]["title"] = "another title"
    graph.write_text(json.dumps(dict(reversed(renamed.items())), indent=4))
    assert [one.state for one in (await run(Pipeline.from_file(file), text="a pier")).steps] == ["reused"]
    assert paid(rh) == 1

    graph.write_text(json.dumps(changed(n3_steps=30)))
    assert [one.state for one in (await run(Pipeline.from_file(file), text="a pier")).steps] == ["made"]
    assert paid(rh) == 2


def test_a_field_that_the_graph_does_not_have_is_found_by_the_check(tmp_path: Path) -> None:
    file = tmp_path / "ink.yaml"
    (tmp_path / "ink.json").write_text(json.dumps(changed()))
    file.write_text(STEP.format(what="graph", name="ink.json", more="").replace("5.width", "5.widht"))
    with pytest.raises(PipelineError, match=r"ink.yaml:6:.*node 5 \(EmptyLatentImage\) has no field 'widht'"):
        Pipeline.from_file(file)


async def test_an_edited_workflow_is_new_work_and_its_node_is_named(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    pipeline = Pipeline.from_text(STEP.format(what="workflow", name=name, more=""))
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["made"]
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["reused"]
    rh.workflows.edit(name, changed(n5_width=512))  # which the step sets
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["reused"]
    rh.workflows.edit(name, changed(n3_steps=30))
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["made"]
    assert paid(rh) == 2


async def test_a_pinned_workflow_that_was_edited_is_not_paid_for(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    pinned = Pipeline.from_text(STEP.format(what="workflow", name=name, more="pin: 0123456789abcdef0123456789abcdef"))
    result = await run(pinned, text="a pier")
    assert [one.state for one in result.steps] == ["failed"]
    assert "pin is 0123456789abcdef0123456789abcdef, and the graph of workflow" in result.steps[0].reason
    assert paid(rh) == 0


async def test_an_app_is_the_same_while_its_call_example_is(rh: Emulator) -> None:
    pipeline = Pipeline.from_text(APP)
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["made"]
    assert [one.state for one in (await run(pipeline, text="a pier")).steps] == ["reused"]
    assert paid(rh) == 1
