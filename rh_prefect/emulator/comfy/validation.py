"""Validates a graph as ComfyUI does before a run, and returns ComfyUI's response."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from rh_prefect.emulator.comfy.graph import Graph, Node, class_type, inputs_of, link_of
from rh_prefect.emulator.comfy.nodes import Field, NodeClass, class_of

Error = dict[str, object]

_TYPES: dict[str, Callable[[object], object]] = {
    "INT": lambda value: int(str(value)) if not isinstance(value, float) else int(value),
    "FLOAT": lambda value: float(str(value)),
    "STRING": str,
    "BOOLEAN": lambda value: value if isinstance(value, bool) else _truth(str(value)),
    "COMBO": str,
}


@dataclass(frozen=True, slots=True)
class Files:
    """The files that a graph may name."""

    has_media: Callable[[str], bool]
    has_lora: Callable[[str], bool]
    foreign: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of validation.

    Attributes:
        error: The error of the whole graph; None if the graph runs.
        outputs: The saving nodes that run.
        node_errors: The errors of nodes, by node id.
    """

    error: Error | None
    outputs: tuple[str, ...] = ()
    node_errors: dict[str, Error] = field(default_factory=dict)

    @property
    def is_hopeless(self) -> bool:
        """Whether ComfyUI refuses the graph as a whole."""
        return self.error is not None and not self.node_errors

    def tips(self) -> str:
        """Returns the JSON string for `promptTips`."""
        return json.dumps(
            {
                "result": self.error is None,
                "error": self.error,
                "outputs_to_execute": list(self.outputs),
                "node_errors": self.node_errors,
            }
        )

    def first(self) -> tuple[str, str, str]:
        """Returns the first invalid node: id, class and error."""
        node_id, found = next(iter(self.node_errors.items()))
        errors = found["errors"]
        first = errors[0] if isinstance(errors, list) else {}
        return node_id, str(found["class_type"]), f"{first['message']}: {first['details']}"


def validate(graph: Graph, files: Files) -> Verdict:
    """Checks a graph and converts its values to the types of the nodes.

    Args:
        graph: The graph, in which strings that contain numbers become numbers.
        files: The files that the graph may name.
    """
    saving = []
    for node_id, node in graph.items():
        known = class_of(class_type(node), foreign=files.foreign)
        if known is None:
            return Verdict(_no_class(node_id, node))
        if known.saves:
            saving.append(node_id)
    if not saving:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs"))
    check = _Check(graph, files)
    try:
        good = tuple(node_id for node_id in saving if check.is_good(node_id))
    except RecursionError:  # a chain of some 300 nodes; ComfyUI's own limit is higher
        return Verdict(
            _error("exception_during_validation", "Exception when validating node", "too many nodes in a row")
        )
    errors = {node_id: check.told(node_id, saving) for node_id in graph if check.errors.get(node_id)}
    if good:
        return Verdict(None, good, errors)
    first = next(iter(errors.values()))["errors"]
    details = "\n".join(str(error["details"]) for error in first) if isinstance(first, list) else ""
    return Verdict(_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details), (), errors)


def _no_class(node_id: str, node: Node) -> Error:
    name = class_type(node)
    if not name:
        words = "Cannot execute because a node is missing the class_type property."
        return _error("invalid_prompt", words, f"Node ID '#{node_id}'")
    words = f"Cannot execute because node {name} does not exist."
    return _error("invalid_prompt", words, f"Node ID '#{node_id}'")


def _error(kind: str, message: str, details: str = "", **extra: object) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


class _Check:
    """Checks every node once, upstream from the nodes that save files."""

    def __init__(self, graph: Graph, files: Files) -> None:
        self.errors: dict[str, list[Error]] = {}
        self._graph = graph
        self._files = files
        self._good: dict[str, bool] = {}
        self._needs: dict[str, set[str]] = {}
        self._open: set[str] = set()

    def told(self, node_id: str, saving: list[str]) -> Error:
        """Returns the errors of a node in ComfyUI's format, with the saving nodes that depend on it."""
        hurt = [save for save in saving if save == node_id or node_id in self._needs.get(save, set())]
        return {
            "errors": self.errors[node_id],
            "dependent_outputs": hurt,
            "class_type": class_type(self._graph[node_id]),
        }

    def is_good(self, node_id: str) -> bool:
        """Returns whether a node and its dependencies are valid."""
        if node_id not in self._good:
            self._good[node_id] = False
            self._open.add(node_id)
            node = self._graph[node_id]
            known = class_of(class_type(node), foreign=self._files.foreign) or NodeClass("")
            self.errors[node_id] = [error for name in known.fields for error in self._missing(node, known, name)]
            follow = [self._input(node_id, known, name) for name in inputs_of(node)]
            self._good[node_id] = all(follow) and not self.errors[node_id]
            self._open.discard(node_id)
        return self._good[node_id]

    def _missing(self, node: Node, known: NodeClass, name: str) -> list[Error]:
        if known.fields[name].optional or name in inputs_of(node):
            return []
        return [_error("required_input_missing", "Required input is missing", name, input_name=name)]

    def _input(self, node_id: str, known: NodeClass, name: str) -> bool:
        value, expected = inputs_of(self._graph[node_id])[name], known.fields.get(name)
        link = link_of(value)
        error = self._link(name, link, expected) if link else self._value(node_id, name, expected)
        if error is not None:
            self.errors[node_id].append(error)
            return False
        if link is None:
            return True
        good = self.is_good(link[0])
        self._needs.setdefault(node_id, set()).update({link[0]}, self._needs.get(link[0], set()))
        return good

    def _link(self, name: str, link: tuple[str, int], expected: Field | None) -> Error | None:
        other = self._graph.get(link[0])
        if other is None:
            details = f"{name}, node {link[0]} does not exist"
            return _error("bad_linked_input", "Bad linked input", details, input_name=name)
        if link[0] in self._open:
            details = f"{name}, node {link[0]} leads back to itself"
            return _error("exception_during_validation", "Exception when validating node", details, input_name=name)
        known = class_of(class_type(other), foreign=self._files.foreign)
        if known is None or not known.fields or expected is None:
            return None
        carried = known.outputs[link[1]] if 0 <= link[1] < len(known.outputs) else "nothing"
        if carried == expected.kind:
            return None
        details = f"{name}, received_type({carried}) mismatch input_type({expected.kind})"
        return _error("return_type_mismatch", "Return type mismatch between linked nodes", details, input_name=name)

    def _value(self, node_id: str, name: str, expected: Field | None) -> Error | None:
        if expected is None:
            return None
        inputs = inputs_of(self._graph[node_id])
        convert = _TYPES.get(expected.kind)
        if convert is None:
            details = f"{name}, {inputs[name]!r} is no link to a node that gives {expected.kind}"
            return _error("bad_linked_input", "Bad linked input", details, input_name=name)
        try:
            inputs[name] = convert(inputs[name])
        except (ValueError, OverflowError):
            details = f"{name}, {inputs[name]}"
            message = f"Failed to convert an input value to a {expected.kind} value"
            return _error("invalid_input_type", message, details, input_name=name)
        return self._content(name, inputs[name], expected)

    def _content(self, name: str, value: object, expected: Field) -> Error | None:
        if isinstance(value, int | float) and expected.least is not None and value < expected.least:
            words = f"Value {value} smaller than min of {expected.least}"
            return _error("value_smaller_than_min", words, name, input_name=name)
        if isinstance(value, int | float) and expected.most is not None and value > expected.most:
            words = f"Value {value} bigger than max of {expected.most}"
            return _error("value_bigger_than_max", words, name, input_name=name)
        if expected.media and not self._files.has_media(str(value)):
            words, details = "Custom validation failed for node", f"{name} - Invalid {expected.media} file: {value}"
            return _error("custom_validation_failed", words, details, input_name=name)
        absent = expected.is_lora and not self._files.has_lora(str(value))
        if absent or (expected.options and value not in expected.options):
            details = f"{name}: '{value}' not in {list(expected.options)[:20]}"
            return _error("value_not_in_list", "Value not in list", details, input_name=name)
        return None


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")
