"""Steps with a graph, a saved workflow or an app: what the graph holds is a part of what is asked for."""

from __future__ import annotations

import asyncio
import copy
import json
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
from rh_prefect.flows import pipeline as public
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.site_graphs import SavedGraph
from tests.support.samples.steps import RESIZE, steps
from tests.support.world.pipeline_flows import run, states

APP = "2030000000000000101"
ASSUME = "assume: {kind: image, price: 0.30}"
PIN = "0123456789abcdef0123456789abcdef"


def ink(what: str, name: str, more: str = ASSUME) -> str:
    """A file with one step, whose text is a parameter."""
    step = f"{what}: {name}, with: {{6.text: $(params.text), 5.width: 64, 5.height: 64}}, {more}"
    return "budget: 5\nparams: {text: string}\n" + steps(ink=step) + "outputs: {ink: $(ink)}\n"


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


async def states_of(pipeline: str | Pipeline, **params: Any) -> list[str]:
    """Runs a pipeline; gives the states of its steps."""
    _, result = await run(pipeline, **params)
    return [one.state for one in result.steps]


async def test_a_graph_runs_and_only_what_it_holds_counts(rh: Emulator, tmp_path: Path) -> None:
    file, graph = tmp_path / "ink.yaml", tmp_path / "ink.json"
    file.write_text(ink("graph", "ink.json"))
    renamed = changed(n5_width=512)  # which the step sets
    renamed["3"]["_meta"]["title"] = "another title"
    written = {
        json.dumps(changed()): "made",
        json.dumps(dict(reversed(renamed.items())), indent=4): "reused",
        json.dumps(changed(n3_steps=30)): "made",
    }
    for content, state in written.items():
        graph.write_text(content)
        _, result = await run(Pipeline.from_file(file), text="a pier")
        assert (result.steps[0].state, result["ink"].kind) == (state, "image")
    assert paid(rh) == 2


def test_a_field_that_the_graph_does_not_have_is_found_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "ink.json").write_text(json.dumps(changed()))
    (tmp_path / "ink.yaml").write_text(ink("graph", "ink.json").replace("5.width", "5.widht"))
    with pytest.raises(PipelineError, match=r"ink.yaml:4:.*node 5 \(EmptyLatentImage\) has no field 'widht'"):
        Pipeline.from_file(tmp_path / "ink.yaml")


async def test_a_pinned_workflow_that_was_edited_is_not_paid_for(rh: Emulator) -> None:
    _, result = await run(ink("workflow", rh.workflows.add(changed()), f"{ASSUME}, pin: {PIN}"), text="a pier")
    assert result.steps[0].state == "failed"
    assert f"pin is {PIN}, but the graph of workflow" in result.steps[0].reason
    assert paid(rh) == 0


def two(name: str, words: str = "a pier") -> str:
    return "budget: 5\n" + steps(
        ink=f"workflow: {name}, with: {{6.text: {words}, 5.width: 64, 5.height: 64}}, {ASSUME}",
        face=f"app: {APP}, with: {{6.text: a face}}, {ASSUME}",
        large=RESIZE % "$(ink)",
    )


@pytest.mark.parametrize(
    "fault",
    [Fault("workflow", kind="code", code="380"), pytest.param(Fault("workflow", kind="html"), marks=pytest.mark.long)],
)
async def test_a_graph_that_cannot_be_read_stops_only_the_step_that_needs_it(rh: Emulator, fault: Fault) -> None:
    name = rh.workflows.add(changed())
    rh.faults.add(fault)
    _, result = await run(two(name))
    assert states(result) == {"ink": "failed", "face": "made", "large": "not run"}
    assert result.steps[0].reason.startswith(f"ink: the graph of workflow {name} cannot be read: ")
    assert "What to do: " in result.steps[0].reason
    assert result.steps[0].reason.endswith("Nothing was paid for this step.")
    assert paid(rh) == 1
    rh.faults.clear()
    assert await states_of(two(name)) == ["made", "reused", "made"]
    # The results of the last run need no graph.
    rh.faults.add(fault)
    for _ in range(2):
        assert await states_of(two(name)) == ["reused", "reused", "reused"]
    plan = await public.Pipeline.from_text(two(name)).plan()
    assert [one.state for one in plan.instances] == ["=", "=", "="], "a plan in Python did not find them"
    assert await states_of(two(name, "a ship")) == ["failed", "reused", "not run"]
    assert paid(rh) == 2


async def pool_of(rh: Emulator, *secrets: str) -> str:
    """Saves an account for each key, and a pool of them."""
    mark = uuid.uuid4().hex[:8]
    names = [f"one-{mark}-{number}" for number in range(len(secrets))]
    for name, secret in zip(names, secrets, strict=True):
        await RunningHubCredentials(api_key=SecretStr(secret), base_url=rh.url, account=name).asave(name)
    await RunningHubPool(credentials=names).asave(f"night-{mark}")
    return f"night-{mark}"


@pytest.mark.prefect
async def test_a_graph_is_read_from_an_account_of_a_pool_that_has_it(rh: Emulator, tmp_path: Path) -> None:
    file, printed = tmp_path / "two.yaml", tmp_path / "plan.json"
    file.write_text(two(rh.workflows.add(changed())))
    pool = await pool_of(rh, "f" * 32, rh.key)
    words = ["plan", str(file), "--credentials", pool, "--out", str(printed)]
    await asyncio.to_thread(app, words, exit_on_error=False, result_action="return_value")
    plan = json.loads(printed.read_text())
    assert not [note for note in plan["notes"] if "were not read" in note]
    assert all(step["state"] in "+>" for step in plan["steps"])
    assert await states_of(Pipeline.from_file(file), credentials=pool) == ["made"] * 3


async def test_a_pinned_graph_that_cannot_be_read_keeps_its_result(rh: Emulator) -> None:
    name = rh.workflows.add(changed())
    await run(ink("workflow", name), text="a pier")
    saved = {("workflow", name): SavedGraph(changed(), "")}
    plan = await Pipeline.from_text(ink("workflow", name)).plan(text="a pier", saved_graphs=saved)
    pin = plan.instances[0].request["graph"]
    pinned = "name: another\n" + ink("workflow", name, f"{ASSUME}, pin: {pin}")
    rh.faults.add(Fault("workflow", kind="code", code="380"))
    assert await states_of(pinned, text="a pier") == ["reused"]
    assert await states_of(pinned, text="a ship") == ["failed"]
    assert paid(rh) == 1


SIZES: Any = IMAGE_TO_VIDEO["50"]["inputs"]
WITH_PREVIEW: dict[str, Any] = {
    "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "preview", "images": ["8", 0]}},
    **{name: node for name, node in IMAGE_TO_VIDEO.items() if name != "50"},
    "50": {**IMAGE_TO_VIDEO["50"], "inputs": {**SIZES, "width": 64, "height": 64, "length": 9}},
}


def film(name: str, kind: str, *, edit: str, ending: str) -> str:
    assumed = f"assume: {{kind: {kind}, price: 0.30{', seconds: 0.5' if kind == 'video' else ''}}}"
    return "budget: 5\n" + steps(
        film=f"workflow: {name}, with: {{6.text: waves}}, {assumed}, save_as: film.{ending}", short=edit
    )


TRIM = "edit: trim, with: {file: $(film), seconds: 0.2}"


async def test_the_result_of_a_workflow_is_its_first_file_of_the_assumed_kind(rh: Emulator) -> None:
    """The preview that it saves before is no result, in no place where results are used."""
    name = rh.workflows.add(WITH_PREVIEW)
    text = film(name, "video", edit=TRIM, ending="mp4") + "outputs: {film: $(film), short: $(short)}\n"
    for state in ("made", "reused"):
        _, done = await run(text)
        assert [one.state for one in done.steps] == [state, state], done.steps
        assert [done["film"].kind, done["short"].kind] == ["video", "video"]
        assert done["film"].uri.endswith("/film.mp4")
    assert paid(rh) == 1


async def test_a_workflow_without_a_result_of_the_assumed_kind_fails_and_its_files_stay(rh: Emulator) -> None:
    """The error says what came; the corrected kind gets it without a payment."""
    name = rh.workflows.add(changed(n5_width=64, n5_height=64))
    short = film(name, "video", edit=TRIM, ending="mp4")
    told = "budget: 5\n" + steps(told=f"workflow: {name}, with: {{6.text: waves}}, assume: {{kind: text, price: 1}}")
    for text in (short, told, short):
        first = (await run(text))[1].steps[0]
        assert first.state == "failed"
        assert f"{first.step}: its task made a file of kind image, but no " in first.reason
        assert len(first.files) == 1
    assert await states_of(film(name, "image", edit=RESIZE % "$(film)", ending="png")) == ["reused", "made"]
    assert paid(rh) == 1


async def test_a_step_without_a_known_price_is_told_to_have_one(rh: Emulator) -> None:
    text = ink("workflow", rh.workflows.add(changed()), "assume: {kind: image}")
    with pytest.raises(BudgetExceeded, match=r"write its price into the file, as in `assume: {price: 0\.50}`"):
        await run(text.replace("budget: 5\n", ""), text="a pier")
    _, result = await run(text, text="a pier")
    advice = "give the step a price in the file, as in assume: {price: 0.50} (a batch: leave out the budget)"
    assert advice in result.steps[0].reason
    assert paid(rh) == 0
