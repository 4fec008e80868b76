"""The graphs of a pipeline's workflows and apps as now saved on the site; part of their requests.

A step's graph counts without the fields that `with` sets. An app's graph cannot be read; its call example stands for
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rh_prefect.client import Client
from rh_prefect.jobs.requests.graph_request import fingerprint
from rh_prefect.pipelines.check import Checked
from rh_prefect.pipelines.values import digest


@dataclass(frozen=True, slots=True, repr=False)
class SavedGraph:
    """What the site has under one id.

    Attributes:
        nodes: Of a workflow: node id -> `class_type` and `inputs`; of an app: `<node id>.<field>` -> what it takes.
        whole: The fingerprint of all of it, as a submission records it.
    """

    nodes: Mapping[str, Any]
    whole: str


SavedGraphs: TypeAlias = Mapping[tuple[str, str], SavedGraph]
"""By `workflow` or `app`, and the id."""


def ids_in(checked: Checked) -> Iterator[tuple[str, str]]:
    """The workflows and apps that a file and those that it uses name: `workflow` or `app`, and the id.

    Args:
        checked: The file.
    """
    for _, step in checked.file.walk():
        if step.action in ("workflow", "app"):
            yield step.action, str(getattr(step, step.action))
    for used in checked.uses.values():
        yield from ids_in(used)


async def read_saved_graphs(checked: Checked, client: Client) -> dict[tuple[str, str], SavedGraph]:
    """Reads each graph once; that costs nothing.

    Args:
        checked: The file that names them.
        client: Of an account that may read them.

    Raises:
        RunningHubError: One cannot be read.
    """
    ids = list(dict.fromkeys(ids_in(checked)))
    return dict(zip(ids, await asyncio.gather(*(_read(client, *one) for one in ids)), strict=True))


async def _read(client: Client, action: str, name: str) -> SavedGraph:
    if action == "workflow":
        graph: Mapping[str, Any] = await client.workflows.json(name)
        return SavedGraph(graph, fingerprint(graph))
    nodes = [node.model_dump(mode="json") for node in (await client.apps.demo(name)).nodes]
    fields = {f"{node['node_id']}.{node['field_name']}": node for node in nodes}
    return SavedGraph(fields, fingerprint(nodes))


def node_digests(nodes: Mapping[str, Any], fields: Collection[str]) -> dict[str, str]:
    """Returns a short hash of each node's content, without the fields that a step sets.

    Args:
        nodes: See `SavedGraph`.
        fields: What the step sets, as `<node id>.<field>`.
    """
    return {node: digest(_without(node, content, fields))[:16] for node, content in nodes.items() if node not in fields}


def _without(node: str, content: Any, fields: Collection[str]) -> Any:
    """A node without its title, which counts for nothing, and without the fields that are set."""
    if not isinstance(content, Mapping) or "class_type" not in content:
        return content
    inputs = content.get("inputs") or {}
    kept = {name: value for name, value in inputs.items() if f"{node}.{name}" not in fields}
    return {"class_type": content["class_type"], "inputs": kept}
