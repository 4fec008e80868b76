"""Reads a pipeline's YAML with the place of each value, within limits; and collects problems with their places.

The text is read as a stream of PyYAML's events: nothing is built but the tree below, no call is nested as deep as the
text is, and the expansion of aliases is counted. Plain scalars follow YAML 1.2: only `true`, `false`, `null`, integers
and decimals are not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias

import yaml

from rh_prefect.errors import InputError
from rh_prefect.media.names import is_text

MOST_BYTES = 1024 * 1024
MOST_TEXT = 100_000
DEEPEST = 32
MOST_NODES = 20_000

Path: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the root of a file to a value."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_STANDARD = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something begins in a text: line and column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """One value of a file.

    Attributes:
        place: Where it begins.
        end: Where it ends, exclusively.
        value: A scalar's value; of a list the nodes, of a mapping the nodes by key.
        keys: Of a mapping: where each key begins.
        is_plain: Whether it is a scalar without quotes.
        in_flow: Whether it lies inside of braces or brackets.
        comment: The comment behind a plain scalar on its line.
        size: How many nodes it has with all of its parts, aliases expanded.
    """

    place: Place
    end: Place
    value: Any = None
    keys: dict[str, Place] = field(default_factory=dict)
    is_plain: bool = False
    in_flow: bool = False
    comment: str = ""
    size: int = 1

    @property
    def data(self) -> Any:
        """The value as plain JSON data."""
        if isinstance(self.value, dict):
            return {key: node.data for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a file, and where.

    Attributes:
        file: The file's name, as the user gave it.
        line: From 1.
        column: From 1.
        message: What is wrong, and what to do.
        excerpt: The line and a caret below the place; empty where the line may not be shown.
    """

    file: str
    line: int
    column: int
    message: str
    excerpt: str = ""

    def __str__(self) -> str:
        """Reads like `film.yaml:7:13: when takes a condition, ...`, then the line and a caret."""
        head = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{head}\n{self.excerpt}" if self.excerpt else head

    @property
    def head(self) -> str:
        """The first line alone."""
        return f"{self.file}:{self.line}:{self.column}: {self.message}"

    def as_json(self) -> dict[str, object]:
        """The problem as `--json` writes it."""
        return {"file": self.file, "line": self.line, "column": self.column, "message": self.message}


class PipelineError(InputError):
    """A pipeline's file, or what it was given, is wrong; nothing was sent.

    Attributes:
        found: Every problem, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Lists the problems.

        Args:
            problems: At least one.
        """
        self.found = tuple(problems)
        super().__init__("\n".join(map(str, self.found)), problems=tuple(one.head for one in self.found))


class Document:
    """One file that was read.

    Attributes:
        name: The file's name, as the user gave it.
        root: Its tree.
        lines: Its text.
    """

    def __init__(self, name: str, text: str, root: Node) -> None:
        """Keeps what was read."""
        self.name, self.root, self.lines = name, root, text.split("\n")

    @property
    def data(self) -> Any:
        """The whole file as plain JSON data."""
        return self.root.data

    def node(self, path: Path) -> Node:
        """The value at a path, or the nearest one above it that exists."""
        node = self.root
        for part in path:
            try:
                node = node.value[part]
            except (KeyError, IndexError, TypeError):
                break
        return node

    def place(self, path: Path, needle: str = "", *, key: bool = False) -> Place:
        """Where something is.

        Args:
            path: The value's path.
            needle: A part of the text of this value, such as one reference.
            key: Whether the key in place of its value is meant.
        """
        if key and path:
            parent = self.node(path[:-1])
            if isinstance(path[-1], str) and path[-1] in parent.keys:
                return parent.keys[path[-1]]
        node = self.node(path)
        return self._find(node, needle) if needle else node.place

    def _find(self, node: Node, needle: str) -> Place:
        for number in range(node.place.line, min(node.end.line, len(self.lines)) + 1):
            line = self.lines[number - 1]
            start = node.place.column - 1 if number == node.place.line else 0
            end = node.end.column - 1 if number == node.end.line and node.end.line > node.place.line else len(line)
            at = line.find(needle, start, max(end, start + len(needle)))
            if at >= 0:
                return Place(number, at + 1)
        return node.place

    def excerpt(self, place: Place) -> str:
        """The line of a place with a caret below it."""
        return excerpt(self.lines, place)


def excerpt(lines: Sequence[str], place: Place) -> str:
    """A line with a caret below one of its columns; a long line is cut around it.

    Args:
        lines: The text.
        place: Where the caret points.
    """
    if not 0 < place.line <= len(lines):
        return ""
    line, at = lines[place.line - 1].rstrip("\r"), place.column - 1
    start = max(0, at - 80)
    shown = visible(line[start : start + 160].replace("\t", " "))
    return f"  {shown}\n  {' ' * (at - start)}^"


def visible(text: str) -> str:
    r"""The text with control characters as `\x1b`, as it can be shown on a terminal.

    Args:
        text: From a file, a table or a model.
    """
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


class Problems:
    """Collects problems, each once."""

    def __init__(self) -> None:
        """Starts without any."""
        self._found: dict[tuple[str, int, int, str], Problem] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        """In the order of the file."""
        return iter(sorted(self._found.values()))

    def add(self, document: Document, path: Path, message: str, needle: str = "", *, key: bool = False) -> None:
        """Adds a problem.

        Args:
            document: The file.
            path: The value that is wrong.
            message: What is wrong, and what to do.
            needle: The part of the value's text that is wrong.
            key: Whether the key in place of its value is wrong.
        """
        self.add_at(document, document.place(path, needle, key=key), message)

    def add_at(self, document: Document, place: Place, message: str) -> None:
        """Adds a problem at a known place."""
        self.take(_problem(document.name, document.lines, place, message))

    def take(self, problem: Problem) -> None:
        """Adds a problem that is complete."""
        self._found.setdefault((problem.file, problem.line, problem.column, problem.message), problem)

    def refuse(self) -> None:
        """Raises all problems as one error, if there is any.

        Raises:
            PipelineError: There is.
        """
        if self._found:
            raise PipelineError(self)


def nearest(name: str, names: Iterable[str], *, none: str = "") -> str:
    """Says which of some names is most like a wrong one, as a clause.

    Args:
        name: The wrong name.
        names: Those that there are.
        none: What to say where there are none.
    """
    known = [str(one) for one in names]
    near = get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(known)}" if known else none


def read(text: str, name: str, *, loader: Any = None) -> Document:
    """Reads one file.

    Args:
        text: Its text.
        name: Its name, as it stands in messages.
        loader: A loader of PyYAML; by default the one with libyaml, where PyYAML has it.

    Raises:
        PipelineError: It is not the YAML that a pipeline may be written in.
    """
    lines = text.split("\n")
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise PipelineError([Problem(name, 1, 1, "the file has more than 1 MiB, which is the most that is read")])
    if not is_text(text):
        raise PipelineError([_problem(name, lines, Place(1, 1), "the file is not UTF-8; save it as UTF-8 text")])
    try:
        root = _Reader(lines).read(yaml.parse(text, Loader=loader or default_loader()))
    except _WrongAt as wrong:
        raise PipelineError([_problem(name, lines, wrong.place, wrong.message)]) from None
    except yaml.YAMLError as error:
        raise PipelineError([_syntax_problem(name, text, error)]) from None
    return Document(name, text, root)


def default_loader() -> Any:
    """The loader with libyaml where PyYAML was built with it, else the one in Python; both give equal trees."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _WrongAt(Exception):  # carries a message from where an event is looked at to where the problem is made
    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place, self.message = place, message


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Node
    is_mapping: bool
    anchor: str
    parts: list[Node] = field(default_factory=list)
    key: str | None = None


class _Reader:
    """Makes one tree of a stream of events."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._count = 0

    def read(self, events: Iterable[Any]) -> Node:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                raise _WrongAt(_place(event.start_mark), "a second document begins here; one file is one pipeline")
            self._take(event)
        if self._root is None or self._root.data is None:
            raise _WrongAt(Place(1, 1), "the file is empty; `rh-prefect init` writes one to begin with")
        return self._root

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._put(self._scalar(event), event.anchor, event.value)
            case yaml.AliasEvent():
                self._put(self._aliased(event), None, None)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end(event)

    def _scalar(self, event: Any) -> Node:
        start, end = _place(event.start_mark), _place(event.end_mark)
        _check_tag(event.tag, start)
        if len(event.value) > MOST_TEXT:
            raise _WrongAt(start, f"a text has {len(event.value)} characters; at most {MOST_TEXT} are read")
        plain, flow = event.style in (None, ""), bool(self._open) and self._open[-1].node.in_flow
        if plain and flow and "?" in event.value:
            raise _WrongAt(_question_mark(self._lines, start), _NEEDS_QUOTES)
        value = _value(event.value) if plain else event.value
        return Node(start, end, value, is_plain=plain, in_flow=flow, comment=self._comment(end) if plain else "")

    def _comment(self, end: Place) -> str:
        line = self._lines[end.line - 1] if end.line <= len(self._lines) else ""
        rest = line[end.column - 1 :]
        return rest.strip() if rest[:1].isspace() and rest.lstrip().startswith("#") else ""

    def _aliased(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise _WrongAt(_place(event.start_mark), f"*{event.anchor} names no &{event.anchor} that ends above it")
        return self._anchors[event.anchor]

    def _begin(self, event: Any) -> None:
        place, is_mapping = _place(event.start_mark), isinstance(event, yaml.MappingStartEvent)
        _check_tag(event.tag, place)
        if len(self._open) >= DEEPEST:
            raise _WrongAt(place, f"lists and mappings are nested more than {DEEPEST} deep")
        if self._open and self._open[-1].is_mapping and self._open[-1].key is None:
            raise _WrongAt(place, "a key must be a name; put a text with braces or brackets in quotes")
        in_flow = bool(event.flow_style) or (bool(self._open) and self._open[-1].node.in_flow)
        node = Node(place, place, {} if is_mapping else [], in_flow=in_flow)
        self._open.append(_Open(node, is_mapping, event.anchor or ""))

    def _end(self, event: Any) -> None:
        ended = self._open.pop()
        ended.node.end = _place(event.end_mark)
        self._put(ended.node, ended.anchor, None)

    def _put(self, node: Node, anchor: str | None, text: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        owner = self._open[-1]
        if owner.is_mapping and owner.key is None:
            owner.key = self._new_key(owner.node, node, text)
            return
        owner.node.size += node.size
        if owner.key is None:
            owner.node.value.append(node)
        else:
            owner.node.value[owner.key] = node
            owner.key = None
        if sum(one.node.size for one in self._open) > MOST_NODES:
            raise _WrongAt(node.place, f"the file has more than {MOST_NODES} values once its aliases are written out")

    @staticmethod
    def _new_key(owner: Node, node: Node, text: str | None) -> str:
        if text is None:
            raise _WrongAt(node.place, "a key must be a name, not an alias")
        if text in owner.keys:
            first = owner.keys[text]
            raise _WrongAt(node.place, f"{text} is given twice, also in line {first.line}; leave one of them out")
        owner.keys[text] = node.place
        return text


_NEEDS_QUOTES = "a text with ? needs quotes inside of braces"


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _question_mark(lines: Sequence[str], start: Place) -> Place:
    at = lines[start.line - 1].find("?", start.column - 1)
    return Place(start.line, at + 1) if at >= 0 else start


def _check_tag(tag: str | None, place: Place) -> None:
    if tag is not None:
        raise _WrongAt(place, f"{tag.replace(_STANDARD, '!!')} is a tag, and a pipeline has none; leave it out")


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= 300:
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) and len(text) <= 300 else text


def _problem(name: str, lines: Sequence[str], place: Place, message: str) -> Problem:
    return Problem(name, place.line, place.column, message, excerpt(lines, place))


def _syntax_problem(name: str, text: str, error: yaml.YAMLError) -> Problem:
    """The problem in words that do not depend on the loader: the one in Python says what it has met."""
    lines = text.split("\n")
    try:
        _Reader(lines).read(yaml.parse(text, Loader=yaml.SafeLoader))
    except _WrongAt as wrong:
        return _problem(name, lines, wrong.place, wrong.message)
    except yaml.YAMLError as own:
        error = own
    mark = getattr(error, "problem_mark", None)
    place = Place(1, 1) if mark is None else _place(mark)
    return _problem(name, lines, *_in_words(lines, place, error))


def _in_words(lines: Sequence[str], place: Place, error: yaml.YAMLError) -> tuple[Place, str]:
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if said == "mapping values are not allowed here":
        return place, "a colon and a blank begin a new key here; put the text in quotes"
    if "\t" in line[: place.column] and "cannot start any token" in said:
        return place, "a tab is no indentation in YAML; use blanks"
    if line[place.column - 1 : place.column] == "?" and "expected" in said:
        return place, _NEEDS_QUOTES
    if "special characters are not allowed" in said or "unacceptable character" in said:
        return _special_character(lines), "the file holds a control character, which YAML does not allow"
    for sign in "@`%&*!|>":
        if line[place.column - 1 : place.column] == sign and "cannot start any token" in said:
            return place, f"a text cannot begin with {sign}; put it in quotes"
    begun = getattr(error, "context_mark", None)
    if begun is not None and ("<stream end>" in said or "end of stream" in said):
        return _place(begun), "what begins here is not closed before the end of the file"
    doing = getattr(error, "context", None)
    return place, f"this is not YAML: {said}{f', {doing}' if doing else ''}".replace(
        "<block end>", "the end of this block"
    )


def _special_character(lines: Sequence[str]) -> Place:
    for number, line in enumerate(lines, 1):
        for column, char in enumerate(line, 1):
            if not char.isprintable() and char not in "\t\r":
                return Place(number, column)
    return Place(1, 1)
