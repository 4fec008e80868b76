"""`Document`: a parsed file with the line and column of each value and problem."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias

from rh_prefect.errors import InputError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the root of a file to a value."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file: line and column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """One value of a file, with its position."""

    place: Place  # Where it begins
    end: Place  # Where it ends, exclusively
    value: Any = None  # A scalar's value; of a list the nodes, of a mapping the nodes by key
    keys: dict[str, Place] = field(default_factory=dict)  # In a mapping, where each key begins
    is_plain: bool = False  # Whether it is a scalar without quotes
    comment: str = ""  # The comment behind a plain scalar on its line
    size: int = 1  # How many nodes it has with all of its parts, aliases expanded
    depth: int = 0  # How many levels of lists and mappings it has, aliases expanded

    @property
    def data(self) -> Any:
        """Returns the value as plain JSON data."""
        if isinstance(self.value, dict):
            return {key: node.data for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem in a file, with its position."""

    file: str  # The file's name, as the user gave it
    line: int  # From 1
    column: int  # From 1
    message: str  # What is wrong, and what to do
    excerpt: str = ""  # The line and a caret below the place; empty if the line may not be shown

    def __str__(self) -> str:
        """Formats the problem as `film.yaml:7:13: when takes a condition, ...`, followed by the line and a caret."""
        return f"{self.head}\n{self.excerpt}" if self.excerpt else self.head

    @property
    def head(self) -> str:
        """Returns the problem on one line, without the excerpt."""
        return f"{self.file}:{self.line}:{self.column}: {self.message}"

    def as_json(self) -> dict[str, object]:
        """Returns the problem for `--json`."""
        return {"file": self.file, "line": self.line, "column": self.column, "message": self.message}


class PipelineError(InputError):
    """A pipeline's file or one of its inputs is invalid; nothing was sent.

    Attributes:
        found: Every problem, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.found = tuple(problems)
        super().__init__("\n".join(map(str, self.found)), problems=tuple(one.head for one in self.found))


class Document:
    """A parsed file: its name as the user gave it, its tree and its lines."""

    def __init__(self, name: str, text: str, root: Node) -> None:
        self.name, self.root, self.lines = name, root, lines_of(text)

    @property
    def data(self) -> Any:
        """Returns the whole file as plain JSON data."""
        return self.root.data

    def node(self, path: Path) -> Node:
        """Returns the value at a path, or the nearest existing value above the path."""
        node = self.root
        for part in path:
            inner = self.child(node, part)
            if inner is None:
                break
            node = inner
        return node

    def child(self, node: Node, part: str | int) -> Node | None:
        """Returns the value at a key or an index, for a step also from the file's `defaults`; None without a value."""
        for one in (node, *self._defaults_of(node)):
            try:
                found: Node = one.value[part]
            except (KeyError, IndexError, TypeError):
                continue
            return found
        return None

    def _defaults_of(self, node: Node) -> list[Node]:
        if not isinstance(self.root.value, dict) or "defaults" not in self.root.value or node is self.root:
            return []
        defaults = self.root.value["defaults"].value
        return [one for name, one in defaults.items() if name in node.keys] if isinstance(defaults, dict) else []

    def place(self, path: Path, needle: str = "", *, key: bool = False) -> Place:
        """Returns the position of a value, of the string `needle` in the value, or of its key if `key` is set."""
        if key and path:
            parent = self.node(path[:-1])
            if isinstance(path[-1], str) and path[-1] in parent.keys:
                return parent.keys[path[-1]]
        node = self.node(path)
        return self._find(node, needle) if needle else node.place

    def hide(self, secret: str) -> None:
        """Replaces a secret with asterisks in all lines that are shown later."""
        self.lines = [line.replace(secret, "*" * len(secret)) for line in self.lines]

    def _find(self, node: Node, needle: str) -> Place:
        for number in range(node.place.line, min(node.end.line, len(self.lines)) + 1):
            line = self.lines[number - 1]
            start = node.place.column - 1 if number == node.place.line else 0
            end = node.end.column - 1 if number == node.end.line and node.end.line > node.place.line else len(line)
            at = line.find(needle, start, max(end, start + len(needle)))
            if at >= 0:
                return Place(number, at + 1)
        return node.place


def lines_of(text: str) -> list[str]:
    """Returns the lines of a text as YAML 1.1, and so PyYAML, counts them."""
    return re.split("\r\n|[\n\r\x85\u2028\u2029]", text)


def excerpt(lines: Sequence[str], place: Place) -> str:
    """Returns a line with a caret below one of its columns; a long line is cut around this column."""
    if not 0 < place.line <= len(lines):
        return ""
    line, at = lines[place.line - 1], place.column - 1
    start = max(0, at - 80)
    shown = visible(line[start : start + 160].replace("\t", " "))
    return f"  {shown}\n  {' ' * (at - start)}^"


def visible(text: str) -> str:
    r"""Returns a string for a terminal: control characters become escapes such as `\x1b`."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


class Problems:
    """Collects problems, each once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, int, str], Problem] = {}

    def __len__(self) -> int:
        """Returns the number of problems."""
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        """Iterates over the problems in the order of the file."""
        return iter(sorted(self._found.values()))

    def add(self, document: Document, path: Path, message: str, needle: str = "", *, key: bool = False) -> None:
        """Adds a problem at a position in a file; see `Document.place`."""
        self.add_problem(problem_at(document.name, document.lines, document.place(path, needle, key=key), message))

    def add_problem(self, problem: Problem) -> None:
        """Adds an existing `Problem` object."""
        self._found.setdefault((problem.file, problem.line, problem.column, problem.message), problem)

    def refuse(self) -> None:
        """Raises one `PipelineError` with all problems; does nothing if there are none."""
        if self._found:
            raise PipelineError(self)


def not_replaced(missing: Iterable[str], unknown: Iterable[str]) -> list[str]:
    """Returns the missing names, without those for which an unknown name is probably a misspelling."""
    remaining = list(missing)
    for name in unknown:
        for closest in get_close_matches(name, remaining, n=1, cutoff=0.6):
            remaining.remove(closest)
    return remaining


_MOST_NAMES = 30


def nearest(name: str, names: Iterable[str], *, none: str = "") -> str:
    """Returns a clause with the most similar name, or with the known names if none is similar."""
    known = [str(one) for one in names]
    near = get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    more = ", …" if len(known) > _MOST_NAMES else ""
    return f"known names: {', '.join(known[:_MOST_NAMES])}{more}" if known else none


def nearest_sentence(name: str, names: Iterable[str], *, none: str = "") -> str:
    """Returns `nearest` as the end of a sentence, with control characters escaped."""
    clause = visible(nearest(name, names, none=none))
    return clause if clause.endswith("?") else f"{clause}."


def problem_at(name: str, lines: Sequence[str], place: Place, message: str) -> Problem:
    """Returns a problem with the line in which it is, and a caret below the column."""
    return Problem(name, place.line, place.column, message, excerpt(lines, place))
