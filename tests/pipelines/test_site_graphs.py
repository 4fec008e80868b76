"""The graphs of workflows and apps in a plan: what changes a work, what does not, and what a plan says of it."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.pipelines.call_builder import work_call
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.site_graphs import SavedGraph, UnreadGraph, with_used_graphs

WORKFLOW = {
    "3": {"class_type": "KSampler", "inputs": {"steps": 20, "model": ["4", 0]}, "_meta": {"title": "Sampler"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a pier", "clip": ["4", 1]}},
}
APP = {
    "3.steps": {"node_id": "3", "field_name": "steps", "field_value": "20"},
    "6.text": {"node_id": "6", "field_name": "text", "field_value": "a pier"},
}


def pipeline(what: str) -> Pipeline:
    step = f"{{{what}: 2030000000000000001, with: {{6.text: x}}, assume: {{kind: image, price: 1}}}}"
    return Pipeline.from_text(f"steps: {{ink: {step}}}")


async def plan(what: str, nodes: dict[str, Any] | None) -> Plan:
    saved = {} if nodes is None else {(what, "2030000000000000001"): SavedGraph(nodes, "whole")}
    made = await pipeline(what).plan(saved_graphs=saved)
    assert not made.problems
    return made


def work(made: Plan) -> str:
    return made.instances[0].works[0].key


@pytest.mark.parametrize(
    ("what", "saved", "same", "other"),
    [
        (
            "workflow",
            WORKFLOW,
            {
                "6": {"inputs": {"clip": ["4", 1], "text": "a ship"}, "class_type": "CLIPTextEncode"},
                "3": {**WORKFLOW["3"], "_meta": {"title": "Another title"}},
            },
            {**WORKFLOW, "3": {"class_type": "KSampler", "inputs": {"steps": 30, "model": ["4", 0]}}},
        ),
        (
            "app",
            APP,
            {"6.text": {**APP["6.text"], "field_value": "a ship"}, "3.steps": APP["3.steps"]},
            {**APP, "3.steps": {**APP["3.steps"], "field_value": "30"}},
        ),
    ],
)
async def test_what_else_is_in_the_graph_counts_and_is_named(
    what: str, saved: dict[str, Any], same: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = await plan(what, saved), await plan(what, other)
    assert work(await plan(what, same)) == work(first) != work(second)
    compare(second, first.as_json(), {})
    (why,) = second.instances[0].why
    assert why["param"] == ("graph node 3" if what == "workflow" else "graph node 3.steps")


async def test_the_call_of_a_step_names_the_work_and_the_graph_of_its_plan() -> None:
    made = await plan("workflow", WORKFLOW)
    (one,) = made.instances
    call = work_call(one, one.works[0])
    assert (call.planned, call.saved_graph) == (work(made), "whole")


async def test_a_graph_that_was_not_read_is_noted_and_its_work_is_not_named() -> None:
    made = await plan("workflow", None)
    assert "the graph of workflow 2030000000000000001 was not read" in made.notes[0]
    assert "work" not in made.as_json()["steps"][0]


async def test_a_graph_that_cannot_be_read_is_not_taken_from_a_pinned_step() -> None:
    ids = ("workflow", "2030000000000000001")
    step = "{workflow: 2030000000000000001, with: {6.text: $(params.text)}, assume: {kind: image, price: 1}%s}"
    steps = {"kept": step % ", pin: 0123456789abcdef0123456789abcdef", "ink": step % ""}
    for names in (["kept", "ink"], ["ink", "kept"]):
        text = "\n".join(
            ["params: {text: {type: string, default: x}}", "steps:", *(f"  {n}: {steps[n]}" for n in names)]
        )
        of_file = Pipeline.from_text(text)
        last = await of_file.plan(saved_graphs={ids: SavedGraph(WORKFLOW, "whole")})
        unread = with_used_graphs({ids: UnreadGraph("RunningHub is down.")}, last.as_json())
        now = await of_file.plan(saved_graphs=unread)
        graphs = [{one.path: one.request["graph"] for one in plan.instances} for plan in (last, now)]
        assert graphs[1] == graphs[0]
        assert graphs[0]["ink"] != graphs[0]["kept"]
