"""Graphs in ComfyUI's API format: reads them, applies node lists, and walks along the links."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

Node = dict[str, object]
Graph = dict[str, Node]

_SEEDS: Final = ("seed", "noise_seed")
_SEED_END: Final = 2**50


class BadNodeInfo(Exception):
    """A node list does not match its graph; the message says why."""


def parse(text: str | Mapping[str, object]) -> Graph | None:
    """Reads a graph from JSON text or from an object; None if the value is not an object of nodes."""
    try:
        raw = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, Mapping):
        return None
    nodes = {str(key): dict(copy.deepcopy(node)) for key, node in raw.items() if isinstance(node, Mapping)}
    return nodes if len(nodes) == len(raw) else None


def inputs_of(node: Mapping[str, object]) -> dict[str, object]:
    """Returns a node's own dictionary of inputs, not a copy."""
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def class_type(node: Mapping[str, object]) -> str:
    """Returns the class of a node; empty if the node has none."""
    return str(node.get("class_type") or "")


def link_of(value: object) -> tuple[str, int] | None:
    """Reads a link: a node, and the number of the node's output; None if the value is no link."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int) and not isinstance(value[1], bool):
        return str(value[0]), value[1]
    return None


def apply(graph: Graph, items: object) -> set[tuple[str, str]]:
    """Sets the values in a node list, and returns the fields that were set; raises `BadNodeInfo`."""
    if not isinstance(items, list):
        raise BadNodeInfo("nodeInfoList must be an array")
    return {_set(graph, item) for item in items}


def _set(graph: Graph, item: object) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        raise BadNodeInfo("each item must be an object with nodeId, fieldName and fieldValue")
    node_id, name = str(item.get("nodeId", "")), str(item.get("fieldName") or "")
    node = graph.get(node_id)
    if node is None:
        raise BadNodeInfo(f"node_not_found_in_workflow, nodeId {node_id or '(none)'}")
    inputs = inputs_of(node)
    where = f"node {node_id} ({class_type(node)})"
    if name not in inputs:
        raise BadNodeInfo(f"{where} has no field {name!r}")
    if link_of(inputs[name]) is not None:
        raise BadNodeInfo(f"{where}: {name} is a link to another node and cannot be set")
    if item.get("fieldValue") is None:
        raise BadNodeInfo(f"{where}: fieldValue of {name} is missing")
    inputs[name] = item["fieldValue"]
    return node_id, name


def shake(graph: Graph, *, kept: set[tuple[str, str]], draw: Callable[[int], int]) -> None:
    """Draws a new value for every seed but the kept ones; `draw` returns a random number below the given one."""
    for node_id, node in graph.items():
        inputs = inputs_of(node)
        for name in _SEEDS:
            if isinstance(inputs.get(name), int) and (node_id, name) not in kept:
                inputs[name] = draw(_SEED_END)


def upstream(graph: Graph, node_id: str, *, without: Sequence[str] = ()) -> Iterator[tuple[str, Node]]:
    """Yields a node and its dependencies, the nearest first, without those of the inputs in `without`."""
    todo, seen = [node_id], {node_id}
    while todo:
        here = todo.pop(0)
        node = graph.get(here)
        if node is None:
            continue
        yield here, node
        for name, value in inputs_of(node).items():
            link = link_of(value)
            if link is not None and name not in without and link[0] not in seen:
                seen.add(link[0])
                todo.append(link[0])


def in_order(graph: Graph) -> list[str]:
    """Lists the nodes in ComfyUI's execution order: each after its dependencies."""
    done: dict[str, None] = {}
    todo = list(reversed(graph))
    seen: set[str] = set()
    while todo:
        here = todo[-1]
        links = [link_of(value) for value in inputs_of(graph[here]).values()]
        needs = [link[0] for link in links if link and link[0] in graph and link[0] not in seen]
        if here not in seen and needs:
            todo += needs
        else:
            done[todo.pop()] = None
        seen.add(here)
    return list(done)
