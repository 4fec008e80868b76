"""The result of checking a file, and functions that read the files named in that file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from rh_prefect.pipelines.file_model import PipelineFile, Step
from rh_prefect.pipelines.parsed_document import Document, Path, Problems, visible
from rh_prefect.pipelines.types import Type
from rh_prefect.pipelines.yaml_reader import MOST_BYTES

SHIPPED = FilePath(__file__).parent.with_name("shipped")
_MOST_GRAPH = 8 * 1024 * 1024


@dataclass
class Checked:
    """A file that was read and checked."""

    document: Document  # Its text and places
    file: PipelineFile  # Its model
    folder: FilePath | None  # Where it lies; None for a text
    types: dict[Path, Type] = field(default_factory=dict)  # What each step makes, by its path
    uses: dict[Path, Checked] = field(default_factory=dict)  # The files that steps use, by the step's path
    outputs: dict[str, Type] = field(default_factory=dict)  # The type of each output
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)  # The graphs of nodes, by the names of their files
    notes: list[str] = field(default_factory=list)  # What is worth knowing, one sentence each

    @cached_property
    def strict(self) -> set[Path]:
        """The paths of the steps whose failure prevents the start of further steps."""
        return {path for path, step in self.file.walk() if step.on_error == "fail"}

    def walk(self, before: str = "") -> Iterator[tuple[str, Step]]:
        """Yields all steps of the file and of used files, in order, with their names in a plan, as in `each.clip`."""
        for at, step in self.file.walk():
            name = before + ".".join(map(str, at[1::2]))
            yield name, step
            if at in self.uses:
                yield from self.uses[at].walk(f"{name}.")


def read_text(file: FilePath) -> str:
    """Reads the text of a file, but at most one byte more than a pipeline file may have, so that excess is noticed."""
    if not file.is_file():  # a pipe or a device would never end
        raise FileNotFoundError(2, "there is no such file")
    with file.open("rb") as reader:
        return reader.read(MOST_BYTES + 1).decode("utf-8", "surrogateescape")


def read_graph(file: FilePath) -> dict[str, Any] | None:
    """Reads the graph in a file; returns None if the file does not contain a graph."""
    try:
        if file.stat().st_size > _MOST_GRAPH:
            return None
        graph = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    nodes = graph.values() if isinstance(graph, dict) else ()
    return graph if nodes and all(isinstance(node, dict) and "class_type" in node for node in nodes) else None


ItemProblem: TypeAlias = tuple[Checked, Path, str, str]
"""A problem of one item: the file, the place in it, a clause, and the item's address or row."""


def report_items(problems: Problems, found: Iterable[ItemProblem], *, of_rows: bool = False) -> None:
    """Reports problems of items, each once, with the first item and the number of other items."""
    distinct: dict[tuple[str, Path, str], tuple[Checked, list[str]]] = {}
    for checked, at, clause, address in found:
        distinct.setdefault((checked.document.name, at, clause), (checked, []))[1].append(address)
    for (_, at, clause), (checked, addresses) in distinct.items():
        first = f"{visible(addresses[0])}: " if addresses[0] else ""
        what = "rows" if of_rows else "items"
        more = f" (and {len(addresses) - 1} further {what})" if len(addresses) > 1 else ""
        problems.add(checked.document, at, f"{first}{visible(clause)}{more}", key=of_rows)
