"""The graphs of workflows and apps in a plan: what changes a work, what does not, and what a plan says of it."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.pipelines.call_builder import work_call
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.site_graphs import SavedGraph, UnreadGraph, with_used_graphs
from tests.support.samples.steps import steps
from tests.support.world.planned_works import plan_of


def workflow(text: str = "a pier", sampling: int = 20, title: str = "Sampler") -> dict[str, Any]:
    sampler = {"class_type": "KSampler", "inputs": {"steps": sampling, "model": ["4", 0]}, "_meta": {"title": title}}
    return {"3": sampler, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}}}


def app(text: str = "a pier", sampling: int = 20) -> dict[str, Any]:
    fields = (("3", "steps", f"{sampling}"), ("6", "text", text))
    return {f"{node}.{name}": {"node_id": node, "field_name": name, "field_value": one} for node, name, one in fields}


INK = "%s: 2030000000000000001, with: {6.text: %s}, assume: {kind: image, price: 1}"


async def plan(what: str, nodes: dict[str, Any] | None) -> Plan:
    saved = {} if nodes is None else {(what, "2030000000000000001"): SavedGraph(nodes, "whole")}
    return await plan_of(steps(ink=INK % (what, "x")), saved_graphs=saved)


def work(made: Plan) -> str:
    return made.instances[0].works[0].key


@pytest.mark.parametrize(
    ("what", "first", "same", "other", "named"),
    [
        ("workflow", workflow(), workflow("a ship", title="Another title"), workflow(sampling=30), "graph node 3"),
        ("app", app(), app("a ship"), app(sampling=30), "graph node 3.steps"),
    ],
)
async def test_what_else_is_in_the_graph_counts_and_is_named(
    what: str, first: dict[str, Any], same: dict[str, Any], other: dict[str, Any], named: str
) -> None:
    before, after = await plan(what, first), await plan(what, other)
    assert work(await plan(what, dict(reversed(same.items())))) == work(before) != work(after)
    compare(after, before.as_json(), {})
    (why,) = after.instances[0].why
    assert why["param"] == named


async def test_the_call_of_a_step_names_the_work_and_the_graph_of_its_plan() -> None:
    made = await plan("workflow", workflow())
    (one,) = made.instances
    call = work_call(one, one.works[0])
    assert (call.planned, call.saved_graph) == (work(made), "whole")


async def test_a_graph_that_was_not_read_is_noted_and_its_work_is_not_named() -> None:
    made = await plan("workflow", None)
    assert "the graph of workflow 2030000000000000001 was not read" in made.notes[0]
    assert "work" not in made.as_json()["steps"][0]


async def test_a_graph_that_cannot_be_read_is_not_taken_from_a_pinned_step() -> None:
    ids, ink = ("workflow", "2030000000000000001"), INK % ("workflow", "$(params.text)")
    written = {"kept": f"{ink}, pin: 0123456789abcdef0123456789abcdef", "ink": ink}
    for names in (["kept", "ink"], ["ink", "kept"]):
        text = "params: {text: {type: string, default: x}}\n" + steps(**{name: written[name] for name in names})
        of_file = Pipeline.from_text(text)
        last = await of_file.plan(saved_graphs={ids: SavedGraph(workflow(), "whole")})
        unread = with_used_graphs({ids: UnreadGraph("RunningHub is down.")}, last.as_json())
        now = await of_file.plan(saved_graphs=unread)
        graphs = [{one.path: one.request["graph"] for one in plan.instances} for plan in (last, now)]
        assert graphs[1] == graphs[0]
        assert graphs[0]["ink"] != graphs[0]["kept"]
