"""Reads a pipeline's YAML with the position of each value, within limits.

The file is read as a stream of PyYAML's events. So only the tree of the document is built, deep nesting needs no deep
recursion, and the expansion of aliases is counted. Plain scalars follow YAML 1.2: all except `true`, `false`, `null`,
integers, and decimals, such as 0.5, 1.0e-05, and in a JSON file 1e-05, are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rh_prefect.json_snapshot import is_text
from rh_prefect.pipelines.parsed_document import Document, Node, PipelineError, Place, Problem, lines_of, problem_at

MOST_BYTES = 1024 * 1024
MOST_TEXT = 100_000
DEEPEST = 32
MOST_NODES = 20_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+|[-+]?[1-9]\.[0-9]+e[-+][0-9]{1,2}")
_JSON = re.compile(r'\s*\{\s*"')
_JSON_DECIMAL = re.compile(r"-?[1-9]e[-+][0-9]{1,2}")  # In YAML a string, which PyYAML writes without quotes
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_STANDARD = "tag:yaml.org,2002:"
_TOO_DEEP = f"lists and mappings are nested more than {DEEPEST} levels deep"


def read(text: str, name: str, *, is_data: bool = False) -> Document:
    """Parses the text of a file; raises `PipelineError` with the position of the first mistake.

    Data, such as takes or parameters, may be empty or large.
    """
    lines = lines_of(text)
    if not is_data and len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise PipelineError([Problem(name, 1, 1, "the file is larger than 1 MiB, the maximum size")])
    if not is_text(text):
        raise PipelineError([problem_at(name, lines, Place(1, 1), "the file is not UTF-8; save it as UTF-8 text")])
    try:
        reader = _Reader(lines, is_data=is_data, is_json=_JSON.match(text) is not None)
        root = reader.read(yaml.parse(text, Loader=yaml.SafeLoader))
    except _WrongAt as wrong:
        raise PipelineError([problem_at(name, lines, wrong.place, wrong.message)]) from None
    except yaml.YAMLError as error:
        raise PipelineError([problem_at(name, lines, *_in_words(text, lines, error))]) from None
    return Document(name, text, root)


class _WrongAt(Exception):  # carries a message from the reading of an event to the creation of the problem
    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place, self.message = place, message


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read yet."""

    node: Node
    is_mapping: bool
    anchor: str
    parts: list[Node] = field(default_factory=list)
    key: str | None = None


class _Reader:
    """Builds a tree from a stream of events."""

    def __init__(self, lines: Sequence[str], *, is_data: bool, is_json: bool) -> None:
        self._lines, self._is_data, self._is_json = lines, is_data, is_json
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._written = 0  # How many nodes there are without the expansion of aliases

    def read(self, events: Iterable[Any]) -> Node:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                wrong = "a second document begins here; a file can contain only one pipeline"
                raise _WrongAt(_place(event.start_mark), wrong)
            self._take(event)
        if self._is_data and (self._root is None or self._root.value is None):
            return Node(Place(1, 1), Place(1, 1), {})
        if self._root is None or self._root.data is None:
            raise _WrongAt(Place(1, 1), "the file is empty; `rh-prefect init` writes a file to start from")
        return self._root

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                event.value = _joined(event.value)
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
            raise _WrongAt(start, f"a string has {len(event.value)} characters; at most {MOST_TEXT} are allowed")
        plain = event.style in (None, "")
        value = plain_value(event.value, is_json=self._is_json) if plain else event.value
        return Node(start, end, value, is_plain=plain, comment=self._comment(end) if plain else "")

    def _comment(self, end: Place) -> str:
        line = self._lines[end.line - 1] if end.line <= len(self._lines) else ""
        rest = line[end.column - 1 :]
        return rest.strip() if rest[:1].isspace() and rest.lstrip().startswith("#") else ""

    def _aliased(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            message = f"*{event.anchor} needs an anchor &{event.anchor} that ends before it"
            raise _WrongAt(_place(event.start_mark), message)
        node = self._anchors[event.anchor]
        if len(self._open) + node.depth > DEEPEST:
            raise _WrongAt(_place(event.start_mark), _TOO_DEEP)
        return node

    def _begin(self, event: Any) -> None:
        place, is_mapping = _place(event.start_mark), isinstance(event, yaml.MappingStartEvent)
        _check_tag(event.tag, place)
        if len(self._open) >= DEEPEST:
            raise _WrongAt(place, _TOO_DEEP)
        if self._open and self._open[-1].is_mapping and self._open[-1].key is None:
            raise _WrongAt(place, "a key must be a name; put a string with braces or brackets in quotes")
        node = Node(place, place, {} if is_mapping else [])
        self._open.append(_Open(node, is_mapping, event.anchor or ""))

    def _end(self, event: Any) -> None:
        ended = self._open.pop()
        ended.node.end = _place(event.end_mark)
        if ended.is_mapping and "<<" in ended.node.value:
            _merge(ended.node)
        self._put(ended.node, ended.anchor, None)

    def _put(self, node: Node, anchor: str | None, text: str | None) -> None:
        self._written += 1
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
        owner.node.depth = max(owner.node.depth, node.depth + 1)
        if owner.key is None:
            owner.node.value.append(node)
        else:
            owner.node.value[owner.key] = node
            owner.key = None
        most = MOST_NODES + (self._written if self._is_data else 0)
        if sum(one.node.size for one in self._open) > most:
            raise _WrongAt(node.place, f"the file has more than {most} values after its aliases are expanded")

    @staticmethod
    def _new_key(owner: Node, node: Node, text: str | None) -> str:
        if text is None:
            raise _WrongAt(node.place, "a key must be a name, not an alias")
        if text in owner.keys:
            first = owner.keys[text]
            raise _WrongAt(node.place, f"{text} was already given on line {first.line}; remove one of the two")
        owner.keys[text] = node.place
        return text


def _merge(node: Node) -> None:
    """Puts the keys that a mapping lacks in place of `<<`; the first of the mappings below `<<` has priority."""
    own, merged = node.value, dict[str, Node]()
    place, below = node.keys.pop("<<"), own["<<"]
    for one in below.value if isinstance(below.value, list) else [below]:
        if not isinstance(one.value, dict):
            raise _WrongAt(place, "<< takes a mapping, or a list of mappings, as in <<: *name")
        for key, value in one.value.items():
            if key not in own:
                merged.setdefault(key, value)
                node.keys.setdefault(key, one.keys[key])
    node.value = {}
    for key, value in own.items():
        node.value |= merged if key == "<<" else {key: value}
    node.depth = max((one.depth + 1 for one in node.value.values()), default=0)


def _joined(text: str) -> str:
    """Returns a string with its surrogate pairs, such as JSON has for an emoji, as one character each."""
    return text if is_text(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _check_tag(tag: str | None, place: Place) -> None:
    if tag is not None:
        raise _WrongAt(place, f"{tag.replace(_STANDARD, '!!')} is a tag, which a pipeline cannot contain; leave it out")


def plain_value(text: str, *, is_json: bool = False) -> Any:
    """Returns the value of a scalar without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= 300:
        return int(text)
    is_decimal = _DECIMAL.fullmatch(text) or (is_json and _JSON_DECIMAL.fullmatch(text))
    return float(text) if is_decimal and len(text) <= 300 else text


_LITERAL_IN_QUOTES = re.compile(r"""(["'])[^"']*\$\(([\w.\- ]+ or) +\1([^"'\n]*)\1\)""")


def _in_words(text: str, lines: Sequence[str], error: yaml.YAMLError) -> tuple[Place, str]:
    if isinstance(error, yaml.reader.ReaderError):
        before = lines_of(text[: error.position])
        place = Place(len(before), len(before[-1]) + 1)
        return place, "the file contains a control character, which YAML does not allow; remove it"
    mark = getattr(error, "problem_mark", None)
    place = Place(1, 1) if mark is None else _place(mark)
    problem = str(getattr(error, "problem", None) or error)
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if problem == "mapping values are not allowed here":
        return place, "a colon and a space begin a new key here; put the value in quotes"
    if "\t" in line[: place.column] and "cannot start any token" in problem:
        return place, "YAML does not allow tabs as indentation; use spaces"
    if line[place.column - 1 : place.column] == "?" and "expected" in problem:
        return place, "a string with ? needs quotes inside braces"
    for sign in "@`%&*!|>":
        if line[place.column - 1 : place.column] == sign and "cannot start any token" in problem:
            return place, f"a string cannot begin with {sign}; put it in quotes"
    if quote := _LITERAL_IN_QUOTES.search(line):
        other = "'" if quote[1] == '"' else '"'
        literal = f"$({quote[2]} {other}{quote[3]}{other})"
        return place, f"the quotes of the literal end the string around it; write {literal}"
    begun = getattr(error, "context_mark", None)
    if begun is not None and ("<stream end>" in problem or "end of stream" in problem):
        return _place(begun), "the value that begins here is not closed before the end of the file"
    context = getattr(error, "context", None)
    found = f"{problem}, {context}" if context else problem
    return place, f"this is not YAML: {found}".replace("<block end>", "the end of this block")
