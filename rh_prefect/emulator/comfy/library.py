"""The workflows that are saved on the site, under ids of 19 digits."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rh_prefect.emulator.comfy.builtin import WORKFLOWS
from rh_prefect.emulator.comfy.graph import Graph, class_type, parse
from rh_prefect.emulator.comfy.nodes import CLASSES
from rh_prefect.errors import InputError


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow.

    Attributes:
        id: 19 digits.
        name: What the emulator calls it.
        graph: In API format.
        password: Its `accessPassword`, if it has one.
        saved: Whether it was saved and run once, as the API wants it.
    """

    id: str
    name: str
    graph: Graph
    password: str = field(default="", repr=False)
    saved: bool = True


class Workflows:
    """All workflows of the site."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        start = 2_040_000_000_000_000_000 + secrets.randbelow(10**15)
        self._ids = itertools.count(start, 7_654_321)
        built_in = [Workflow(number, name, graph) for name, (number, graph) in WORKFLOWS.items()]
        self._known = {workflow.id: workflow for workflow in built_in}

    def add(self, graph: Mapping[str, object] | str, *, name: str = "", password: str = "", saved: bool = True) -> str:
        """Saves a workflow; classes of nodes that the emulator does not know are known from here on.

        Args:
            graph: In API format, as an object or as JSON text; it may be broken in any way that ComfyUI can tell.
            name: What `id_of` finds it by.
            password: What a start must send as `accessPassword`.
            saved: Whether it was saved and run once.

        Returns:
            Its id.

        Raises:
            InputError: It is no object of nodes.
        """
        read = parse(graph)
        if read is None:
            raise InputError("A workflow in API format is a JSON object of nodes.")
        with self._lock:
            workflow = Workflow(str(next(self._ids)), name, read, password, saved)
            self._known[workflow.id] = workflow
        return workflow.id

    def id_of(self, name: str) -> str:
        """Finds the id of a workflow by its name, such as `text-to-image`."""
        for workflow in self:
            if name == workflow.name:
                return workflow.id
        raise KeyError(name)

    def find(self, workflow_id: object) -> Workflow | None:
        """Finds a workflow by its id, text or number."""
        return self._known.get(str(workflow_id))

    @property
    def foreign(self) -> frozenset[str]:
        """The classes of nodes that only added graphs have."""
        names = {class_type(node) for workflow in self for node in workflow.graph.values()}
        return frozenset(names - set(CLASSES) - {""})

    def __iter__(self) -> Iterator[Workflow]:
        return iter(list(self._known.values()))
