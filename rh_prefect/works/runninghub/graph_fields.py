"""The fields of a graph or an AI app that can be set, and their valid values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from rh_prefect.client import App, AppNode
from rh_prefect.errors import InputError

Graph = Mapping[str, Mapping[str, Any]]
"""A workflow in ComfyUI's API format: node id -> {class_type, inputs}."""

SEEDS = ("seed", "noise_seed", "rand_seed")
"""The fields that RunningHub sets to a random number in each run unless the request sets them."""

_LOADERS = {"image": ("image",), "video": ("video",), "audio": ("audio",), "upload": ("image",)}
"""Fields of loader nodes that take the name of a file at RunningHub."""

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

_NUMBERS = ("INT", "FLOAT")
"""The types of an app's fields that take a number."""


class GraphFields:
    """The fields of a workflow's graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = {node_id: node for node_id, node in graph.items() if isinstance(node, Mapping)}
        self._name = name

    def check(self, node_id: str, field: str, value: object) -> object:
        """Rejects a node or a field that does not exist, and a field that is connected to another node."""
        if node_id not in self._graph:
            raise InputError(
                f"{self._name} has no node {node_id!r}. {self._suggestions(node_id, field)} Nothing was sent."
            )
        inputs = self._inputs(node_id)
        if field not in inputs:
            raise InputError(
                f"{self._name}: node {node_id} ({self._class(node_id)}) has no field {field!r}; it has "
                f"{', '.join(inputs) or 'none'}. Nothing was sent."
            )
        if _is_link(inputs[field]):
            source = inputs[field][0]
            raise InputError(
                f"{self._name}: {node_id}.{field} is connected to the output of node {source} ("
                f"{self._class(source)}) and cannot be set. Set a field of node {source} instead; nothing "
                "was sent."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Whether the field is the file of a loader node."""
        return field in _LOADERS and "load" in self._class(node_id).lower()

    def seeds(self) -> Iterator[tuple[str, str]]:
        """The seed fields that are not connected to another node."""
        for node_id in self._graph:
            for field, value in self._inputs(node_id).items():
                if field in SEEDS and not _is_link(value):
                    yield node_id, field

    def node_names(self) -> dict[str, str]:
        """The classes of all nodes."""
        return {node_id: self._class(node_id) for node_id in self._graph}

    def _inputs(self, node_id: str) -> Mapping[str, Any]:
        inputs = self._graph[node_id].get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def _class(self, node_id: str) -> str:
        return str(self._graph.get(str(node_id), {}).get("class_type", "?"))

    def _suggestions(self, node_id: str, field: str) -> str:
        """Up to three nodes: those with that field, then those with similar ids."""
        similar = difflib.get_close_matches(node_id, list(self._graph), n=3, cutoff=0.4)
        with_field = [node_id for node_id in self._graph if field in self._inputs(node_id)]
        node_ids = list(dict.fromkeys([*with_field, *similar]))[:3] or list(self._graph)[:3]
        return f"Similar names: {', '.join(f'{node_id} ({self._class(node_id)})' for node_id in node_ids)}."


class AppFields:
    """The fields of an AI app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._nodes: dict[tuple[str, str], AppNode] = {(node.node_id, node.field_name): node for node in app.nodes}

    def check(self, node_id: str, field: str, value: object) -> object:
        """Rejects a field that does not exist, and a value that the field does not allow."""
        node = self._nodes.get((node_id, field))
        if node is None:
            fields = ", ".join(f"{node_id}.{name}" for node_id, name in self._nodes)
            raise InputError(
                f"app {self._app.webapp_id} has no field {node_id}.{field}; it has {fields}. Nothing was sent."
            )
        allowed = [option.value for option in node.options]
        if allowed and node.media is None and str(value) not in allowed:
            raise InputError(
                f"app {self._app.webapp_id}: {node_id}.{field} cannot be {value!r}; allowed values: "
                f"{', '.join(allowed)}. Nothing was sent."
            )
        requirement = "" if allowed else _unmet_requirement(node, value)
        if requirement:
            raise InputError(
                f"app {self._app.webapp_id}: {node_id}.{field} cannot be {value!r}; it must be {requirement}. "
                "Nothing was sent."
            )
        return value

    def takes_file(self, node_id: str, field: str) -> bool:
        """Whether the field takes a picture, a video or a sound."""
        node = self._nodes.get((node_id, field))
        return node is not None and node.media is not None

    def seeds(self) -> Iterator[tuple[str, str]]:
        """The seed fields of the app."""
        return (key for key in self._nodes if key[1] in SEEDS)

    def node_names(self) -> dict[str, str]:
        """The classes of the app's nodes."""
        return {node.node_id: node.node_name for node in self._app.nodes if node.node_name}


def is_link_text(value: object) -> bool:
    """Returns whether a value is a text that cannot be the name of a file at RunningHub, but is a link or a URI."""
    return isinstance(value, str) and _LINK.match(value) is not None


def _unmet_requirement(node: AppNode, value: object) -> str:
    """The requirement of a number field that a value does not meet; empty if there is none."""
    if node.field_type not in _NUMBERS:
        return ""
    number = _number(value)
    if number is None:
        return "a number"
    if node.field_type == "INT" and number != number.to_integral_value():
        return "a whole number"
    if node.minimum is not None and number < node.minimum:
        return f"at least {node.minimum}"
    return f"at most {node.maximum}" if node.maximum is not None and number > node.maximum else ""


def _number(value: object) -> Decimal | None:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _is_link(value: object) -> bool:
    """Whether a graph's value is the output of another node: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
