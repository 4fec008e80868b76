"""Reads the current graphs of saved workflows and apps from the site; these graphs are part of the requests.

The fields that a step sets in `with` are ignored. An app's graph cannot be read; its call example is used instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rh_prefect.errors import RunningHubError
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.planning_values import digest
from rh_prefect.workflow_inputs import unread_graph
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.runninghub.graph_request import fingerprint


@dataclass(frozen=True, slots=True, repr=False)
class SavedGraph:
    """A graph that is saved on the site under one id."""

    # Of a workflow: node id -> `class_type` and `inputs`; of an app: `<node id>.<field>` -> what it takes
    nodes: Mapping[str, Any]
    whole: str  # The fingerprint of all of it, as a submission records it


@dataclass(frozen=True, slots=True)
class UsedGraph:
    """The graph that a step of the last run used, from the run's plan."""

    fingerprint: str  # Without the fields that the step sets
    nodes: Mapping[str, str]  # See `node_digests`


@dataclass(frozen=True, slots=True)
class UnreadGraph:
    """A graph that cannot be read now."""

    reason: str  # Why, and what to do
    # The graphs of the last run, by the fields that the step sets: results of that run are still found
    used: Mapping[frozenset[str], UsedGraph] = field(default_factory=dict)


SavedGraphs: TypeAlias = Mapping[tuple[str, str], SavedGraph | UnreadGraph]
"""Graphs, by `workflow` or `app` and by id."""


def ids_in(checked: Checked) -> Iterator[tuple[str, str]]:
    """Yields the workflows and apps in a file and in used files: `workflow` or `app`, and the id."""
    for _, step in checked.walk():
        if step.action in ("workflow", "app"):
            yield step.action, str(step.get(step.action))


async def read_saved_graphs(checked: Checked, pool: Pool) -> dict[tuple[str, str], SavedGraph | UnreadGraph]:
    """Reads each graph once, at no cost. A graph that cannot be read stops only the steps that need it."""
    ids = list(dict.fromkeys(ids_in(checked)))
    return dict(zip(ids, await asyncio.gather(*(_read(pool, *one) for one in ids)), strict=True))


async def _read(pool: Pool, action: str, name: str) -> SavedGraph | UnreadGraph:
    model = f"{action}/{name}"
    try:
        if action == "workflow":
            graph = await pool.try_each(lambda account: account.provider.client.workflows.json(name), model=model)
            return SavedGraph(graph, fingerprint(graph))
        app = await pool.try_each(lambda account: account.provider.client.apps.demo(name), model=model)
    except RunningHubError as error:
        return UnreadGraph(unread_graph(f"{action} {name}", error))
    nodes = [node.model_dump(mode="json") for node in app.nodes]
    fields = {f"{node['node_id']}.{node['field_name']}": node for node in nodes}
    return SavedGraph(fields, fingerprint(nodes))


def with_used_graphs(saved: SavedGraphs, plan: Mapping[str, Any]) -> SavedGraphs:
    """Returns the graphs; adds the graphs of the last run to each graph that cannot be read."""
    used: dict[str, dict[frozenset[str], UsedGraph]] = {}
    for step in plan.get("steps", ()):
        request, nodes = step.get("request") or {}, step.get("nodes") or {}
        # A pinned graph is not the current graph of the site, which the other steps use.
        if "graph" in request and request["graph"] == digest(nodes):
            used.setdefault(step["model"], {})[frozenset(request) - {"graph"}] = UsedGraph(request["graph"], nodes)
    return {
        key: one if isinstance(one, SavedGraph) else UnreadGraph(one.reason, used.get(" ".join(key), {}))
        for key, one in saved.items()
    }


def node_digests(nodes: Mapping[str, Any], fields: Collection[str]) -> dict[str, str]:
    """Returns a short hash of each node's content, without the fields that a step sets."""
    return {node: digest(_without(node, content, fields))[:16] for node, content in nodes.items() if node not in fields}


def _without(node: str, content: Any, fields: Collection[str]) -> Any:
    """Returns a node without its title, which has no effect, and without the fields that the step sets."""
    if not isinstance(content, Mapping) or "class_type" not in content:
        return content
    inputs = content.get("inputs") or {}
    rest = {name: value for name, value in inputs.items() if f"{node}.{name}" not in fields}
    return {"class_type": content["class_type"], "inputs": rest}
