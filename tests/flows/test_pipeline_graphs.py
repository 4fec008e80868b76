"""Steps with a graph, a saved workflow or an app: what the graph holds is a part of what is asked for."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rh_prefect.blocks import RunningHubCredentials, RunningHubPool
from rh_prefect.cli import app
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import IMAGE_TO_VIDEO, TEXT_TO_IMAGE
from rh_prefect.errors import BudgetExceeded
from rh_prefect.flows.local_pipeline import run_locally
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.run.result import PipelineResult
from rh_prefect.pipelines.site_graphs import SavedGraph
from tests.support.servers.emulator_env import environment
from tests.support.world.pipeline_flows import in_flow_run

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
    return (await run_locally(pipeline, params)).result


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


@pytest.mark.parametrize("then", ["edited", "removed"])
async def test_a_graph_that_changes_after_the_plan_is_not_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The step waits for a text; meanwhile a person saves another graph on the site, or deletes the workflow."""
    with Emulator(long_side=96, fps=6, clock="real") as rh:
        for key, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(key, value)
        name = rh.workflows.add(changed())
        text = f"""
budget: 5
steps:
  words: {{model: rhart-text-g-3-flash-preview/text-to-text, with: {{prompt: A pier}}, parse: {{text: {{max: 9000}}}}}}
  ink: {{workflow: {name}, with: {{6.text: $(words), 5.width: 64, 5.height: 64}}, assume: {{kind: image, price: 0.30}}}}
outputs: {{ink: $(ink)}}
"""
        running = asyncio.ensure_future(run(Pipeline.from_text(text)))
        assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: bool(recorder.paid))
        if then == "edited":
            rh.workflows.edit(name, changed(n3_steps=30))
        else:
            rh.faults.add(Fault("workflow", kind="code", code="380"))
        result = await running
        assert [one.state for one in result.steps] == ["made", "failed"]
        reason = {
            "edited": f"ink: the graph of workflow.{name} was edited on the site after this run was planned",
            "removed": f"ink: the graph of workflow.{name} cannot be read: .* What to do: check the workflow id",
        }[then]
        assert re.match(reason, result.steps[1].reason), result.steps[1].reason
        assert len(rh.recorder.tasks) == 1
        if then == "edited":
            again = await run(Pipeline.from_text(text))
            assert [one.state for one in again.steps] == ["reused", "made"]
            assert len(rh.recorder.tasks) == 2


TWO = """
budget: 5
steps:
  ink: {workflow: NAME, with: {6.text: a pier, 5.width: 64, 5.height: 64}, assume: {kind: image, price: 0.30}}
  face: {app: 2030000000000000101, with: {6.text: a face}, assume: {kind: image, price: 0.30}}
  large: {edit: resize, with: {file: $(ink), width: 32, height: 32}}
outputs: {ink: $(ink), face: $(face)}
"""


@pytest.mark.parametrize(
    "fault",
    [Fault("workflow", kind="code", code="380"), pytest.param(Fault("workflow", kind="html"), marks=pytest.mark.long)],
)
async def test_a_graph_that_cannot_be_read_stops_only_the_step_that_needs_it(rh: Emulator, fault: Fault) -> None:
    name = rh.workflows.add(changed())
    pipeline = Pipeline.from_text(TWO.replace("NAME", name))
    rh.faults.add(fault)
    result = await run(pipeline)
    assert {one.step: one.state for one in result.steps} == {"ink": "failed", "face": "made", "large": "not run"}
    assert result.steps[0].reason.startswith(f"ink: the graph of workflow {name} cannot be read: ")
    assert "What to do: " in result.steps[0].reason
    assert result.steps[0].reason.endswith("Nothing was paid for it.")
    assert paid(rh) == 1
    rh.faults.clear()
    assert [one.state for one in (await run(pipeline)).steps] == ["made", "reused", "made"]
    # The results of the last run need no graph.
    rh.faults.add(fault)
    for _ in range(2):
        again = await run(pipeline)
        assert [one.state for one in again.steps] == ["reused", "reused", "reused"]
    other = await run(Pipeline.from_text(TWO.replace("NAME", name).replace("a pier", "a ship")))
    assert [one.state for one in other.steps] == ["failed", "reused", "not run"]
    assert paid(rh) == 2


async def pool_of(rh: Emulator, *secrets: str) -> str:
    """Saves an account for each key, and a pool of them."""
    mark = uuid.uuid4().hex[:8]
    names = [f"one-{mark}-{number}" for number in range(len(secrets))]
    for name, secret in zip(names, secrets, strict=True):
        await RunningHubCredentials(api_key=SecretStr(secret), base_url=rh.url, account=name).asave(name)
    await RunningHubPool(credentials=names).asave(f"night-{mark}")
    return f"night-{mark}"


@in_flow_run
async def test_a_graph_is_read_from_an_account_of_a_pool_that_has_it(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    pool = await pool_of(rh, "f" * 32, rh.key)
    result = await run(Pipeline.from_text(TWO.replace("NAME", name)), credentials=pool)
    assert [one.state for one in result.steps] == ["made"] * 3, [one.reason for one in result.steps]


@in_flow_run
async def test_a_plan_reads_the_graphs_with_a_pool(rh: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO.replace("NAME", rh.workflows.add(changed())))
    pool, printed = await pool_of(rh, "f" * 32, rh.key), tmp_path / "plan.json"
    words = ["plan", str(file), "--credentials", pool, "--out", str(printed)]
    await asyncio.to_thread(app, words, exit_on_error=False, result_action="return_value")
    plan = json.loads(printed.read_text())
    assert not [note for note in plan["notes"] if "were not read" in note]
    assert all(step["state"] in "+>" for step in plan["steps"])


async def test_a_pinned_graph_that_cannot_be_read_keeps_its_result(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    await run(Pipeline.from_text(STEP.format(what="workflow", name=name, more="")), text="a pier")
    plan = await Pipeline.from_text(STEP.format(what="workflow", name=name, more="")).plan(
        text="a pier", saved_graphs={("workflow", name): SavedGraph(changed(), "")}
    )
    pin = plan.instances[0].request["graph"]
    pinned = Pipeline.from_text("name: another\n" + STEP.format(what="workflow", name=name, more=f"pin: {pin}"))
    rh.faults.add(Fault("workflow", kind="code", code="380"))
    assert [one.state for one in (await run(pinned, text="a pier")).steps] == ["reused"]
    assert [one.state for one in (await run(pinned, text="a ship")).steps] == ["failed"]
    assert paid(rh) == 1


SIZES: Any = IMAGE_TO_VIDEO["50"]["inputs"]
WITH_PREVIEW: dict[str, Any] = {
    "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "preview", "images": ["8", 0]}},
    **{name: node for name, node in IMAGE_TO_VIDEO.items() if name != "50"},
    "50": {**IMAGE_TO_VIDEO["50"], "inputs": {**SIZES, "width": 64, "height": 64, "length": 9}},
}
FILM = """
budget: 5
steps:
  film:
    workflow: {name}
    with: {{6.text: waves}}
    assume: {{kind: {kind}, price: 0.30, seconds: 0.5}}
    save_as: film.mp4
  short: {{edit: trim, with: {{file: $(film), seconds: 0.2}}}}
outputs: {{film: $(film), short: $(short)}}
"""


async def test_the_result_of_a_workflow_is_its_first_file_of_the_assumed_kind(rh: Emulator) -> None:
    """The preview that it saves before is no result, in no place where results are used."""
    name = rh.workflows.add(WITH_PREVIEW)
    for states in (["made", "made"], ["reused", "reused"]):
        done = await run(Pipeline.from_text(FILM.format(name=name, kind="video")))
        assert [one.state for one in done.steps] == states, done.steps
        assert [done["film"].kind, done["short"].kind] == ["video", "video"]
        assert done["film"].uri.endswith("/film.mp4")
    assert paid(rh) == 1


async def test_a_workflow_without_a_result_of_the_assumed_kind_fails_and_its_files_stay(rh: Emulator) -> None:
    """The error says what came; the corrected kind gets it without a payment."""
    name = rh.workflows.add(changed(n5_width=64, n5_height=64))
    short = FILM.format(name=name, kind="video")
    told = f"budget: 5\nsteps:\n  told: {{workflow: {name}, with: {{6.text: waves}}, assume: {{kind: text, price: 1}}}}"
    for pipeline in (short, told, short):
        first = (await run(Pipeline.from_text(pipeline))).steps[0]
        assert first.state == "failed"
        assert f"{first.step}: its task made a file of kind image and no " in first.reason
        assert len(first.files) == 1
    picture = short.replace("video", "image", 1).replace("film.mp4", "film.png").replace("edit: trim", "edit: resize")
    picture = picture.replace("seconds: 0.2", "width: 32, height: 32").replace(", seconds: 0.5", "")
    done = await run(Pipeline.from_text(picture))
    assert [one.state for one in done.steps] == ["reused", "made"]
    assert paid(rh) == 1


async def test_a_step_without_a_known_price_is_told_to_have_one(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    text = STEP.format(what="workflow", name=name, more="").replace(", price: 0.30", "")
    with pytest.raises(BudgetExceeded, match=r"write its price into the file, as in `assume: {price: 0\.50}`"):
        await run(Pipeline.from_text(text.replace("budget: 5\n", "")), text="a pier")
    result = await run(Pipeline.from_text(text), text="a pier")
    assert "What to do: give the step a price in the file, as in assume: {price: 0.50}" in result.steps[0].reason
    assert paid(rh) == 0
