"""Types of values: the type of a reference, whether it can be absent, and whether it fits a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rh_prefect.catalog.model import Param as ModelParam
from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.edits import EditParam
from rh_prefect.pipelines.file_model import Param

FILES = ("image", "video", "audio", "3d", "file")
NUMBERS = ("integer", "number")
PLAIN = ("string", "integer", "number", "boolean", "enum", "handle")

SOME = "exists in each of "
"""The beginning of the guard of a field that not each of several values has; see `Type.guards`."""

_VISUAL = {"width": "integer", "height": "integer"}
_TIMED = {"seconds": "number", "milliseconds": "integer"}
_ANY_FILE = {"size": "integer", "name": "string", "stem": "string", "uri": "string", "sha256": "string"}
FACTS: Mapping[str, Mapping[str, str]] = {
    "image": {**_VISUAL, **_ANY_FILE},
    "video": {**_TIMED, **_VISUAL, "fps": "number", "has_audio": "boolean", **_ANY_FILE},
    "audio": {**_TIMED, **_ANY_FILE},
    "3d": _ANY_FILE,
    "file": {**_TIMED, **_VISUAL, **_ANY_FILE},
    "string": {"slug": "string"},
    "enum": {"slug": "string"},
}
"""The fields of each kind of file and string, with their types."""

_WORDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "enum": "one of several options",
    "image": "an image",
    "video": "a video",
    "audio": "audio",
    "3d": "a 3D model",
    "file": "a file",
    "other": "a file of another kind",
    "handle": "a RunningHub id",
    "object": "a mapping",
    "group": "a group",
}


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a value in a pipeline; it is known before the value."""

    # `string`, `integer`, `number`, `boolean`, `enum`, `handle`, a kind of file, `object`, `group`, `mixed` for one of
    # several, or `any` if that is not known
    kind: str
    many: bool = False  # Whether it is a list of such values
    options: tuple[Any, ...] = ()  # The values that are possible, if these are known
    # What can be referred to of an object or a group, and further facts of a file, such as `starts`
    fields: Mapping[str, Type] = field(default_factory=dict)
    max: int | None = None  # The most characters of a text
    guards: frozenset[str] = frozenset()  # Conditions that must hold for the value to exist
    is_result: bool = False  # Whether it is what a step makes, which has `takes` and `label`
    # For a list that is written in the file, the type of each item, in order; for `mixed`, the possible types
    members: tuple[Type, ...] = ()

    @property
    def words(self) -> str:
        """The name of the type in messages."""
        if self.many:
            return "a list"
        if self.kind == "mixed":
            return " or ".join(dict.fromkeys(one.words for one in self.possible))
        return _WORDS.get(self.kind, "a value")

    @property
    def possible(self) -> tuple[Type, ...]:
        """The types that the value, or an item of the list, can have."""
        if self.kind != "mixed":
            return (self.one,)
        return tuple(inner for one in self.members for inner in one.possible)

    @property
    def is_open(self) -> bool:
        """Whether the value, or an item of the list, can have an unknown type."""
        return any(one.kind == "any" for one in self.possible)

    @property
    def is_plain(self) -> bool:
        """Whether the value is a single one that can be inserted into a string, as far as its type is known."""
        return not self.many and all(one.kind in ("any", *PLAIN) for one in self.possible)

    @property
    def one(self) -> Type:
        """The type of one item of the list."""
        return replace(self, many=False, guards=frozenset())

    def as_list(self) -> Type:
        """Returns the type of a list of such values, without absent values."""
        return replace(self, many=True, guards=frozenset())

    def guarded(self, guards: Iterable[str]) -> Type:
        """Returns the type of a value that exists only under further conditions."""
        return replace(self, guards=self.guards | frozenset(guards))

    def known_fields(self) -> dict[str, Type]:
        """Returns the fields that references to a value can use, by name."""
        if self.kind == "group" and not self.many:
            return dict(self.fields)
        if self.many:
            inner = {} if self.kind == "any" else self.one.known_fields()
            lists = {name: one.as_list() for name, one in inner.items()}
            return {**lists, "count": Type("integer")}
        facts = {name: Type(kind) for name, kind in FACTS.get(self.kind, {}).items()}
        if self.kind == "mixed":
            facts = _common_fields([one.known_fields() for one in self.possible if one.kind != "any"])
        found = {**self.fields, **facts}
        if self.is_result:
            found |= {"takes": replace(self, many=True, guards=frozenset()), "label": Type("string")}
        return found


def of_param(param: Param, guard: str = "") -> Type:
    """Returns the type of the value of a parameter or a column."""
    guards = frozenset([guard] if guard and param.optional and param.default is None else [])
    of_item = {"table": "object", "files": kind_of(param.of or "file"), "list": "string"}.get(param.kind)
    longest = int(param.max) if param.kind == "string" and param.max else None
    return Type(of_item or kind_of(param.kind), of_item is not None, param.options, max=longest, guards=guards)


def kind_of(name: str) -> str:
    """Returns the kind for a type in `params`, for a model's output, or for the type of a model's parameter."""
    kinds = {"model3d": "3d", "text": "string", "bool": "boolean", "int": "integer", "float": "number"}
    return kinds.get(name, name)


def negated(guard: str) -> str:
    """Returns the guard that is true if the given guard is false; see `Type.guards`."""
    return guard[1:] if guard.startswith("!") else f"!{guard}"


def of_literal(value: Any) -> Type:
    """Returns the type of a string, a number or a boolean."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    kind = next((kind for type_, kind in kinds.items() if isinstance(value, type_)), None)
    return Type("any") if kind is None else Type(kind, options=(value,))


def of_items(types: Sequence[Type]) -> Type:
    """Returns the type of a list that is written in the file."""
    return replace(merged([one.one for one in types]).as_list(), members=tuple(types))


def merged(types: Sequence[Type]) -> Type:
    """Returns the common type of several types; `mixed` if their kinds differ."""
    if not types:
        return Type("any")
    kinds = {one.kind for one in types}
    options = tuple(dict.fromkeys(option for one in types for option in one.options))
    if kinds <= {"integer", "number"}:
        return Type(types[0].kind if len(kinds) == 1 else "number", options=options)
    if any(one.many for one in types):
        return merged([one.one for one in types]).as_list() if all(one.many for one in types) else Type("any")
    if kinds == {"object"}:
        return Type("object", fields=fields_of_any(types, "these values"))
    if len(kinds) == 1 and kinds != {"mixed"}:
        return Type(types[0].kind, options=options)
    known = options if all(one.options for one in types) else ()
    return Type("mixed", options=known, members=tuple(replace(one, guards=frozenset()) for one in types))


def _common_fields(fields: Sequence[Mapping[str, Type]]) -> dict[str, Type]:
    """Returns the fields that values of all given types have."""
    first, *others = fields or ({},)
    shared = [name for name in first if all(name in other for other in others)]
    return {name: merged([one[name] for one in fields]) for name in shared if not any(one[name].many for one in fields)}


def fields_of_any(types: Sequence[Type], of: str) -> dict[str, Type]:
    """Returns the fields of a value that has one of several types; a field that not all of them have can be absent."""
    names, fields = dict.fromkeys(name for one in types for name in one.fields), dict[str, Type]()
    for name in names:
        found = [one.fields[name] for one in types if name in one.fields]
        guards = {guard for one in found for guard in one.guards}
        guards |= {f"{SOME}{of}: {name}"} if len(found) < len(types) else set()
        same = found[0] if all(one == found[0] for one in found) else merged(found)
        fields[name] = same.guarded(guards)
    return fields


def misfit(type_: Type, param: ModelParam, shown: str) -> str:
    """Returns a clause that says why a value does not fit a model's parameter; empty if it fits or is not known yet."""
    if type_.kind == "any" and not param.is_media:
        return ""
    if type_.kind == "mixed":
        return _of_members(type_, shown, lambda one: misfit(one, param, shown))
    is_one = param.multiple or not type_.many
    if is_one and param.type == "string" and _holds_no_string(type_):
        what = "has options that are not strings" if type_.kind == "enum" else f"is {type_.one.words}"
        return f"{param.name} takes a string, but {shown} {what}; write it inside a string, as in 'number {shown}'"
    if is_one and param.type == "bool" and type_.options and _spells_booleans(type_.options):
        return ""
    alike = EditParam(param.name, (kind_of(param.type),), many=param.multiple, options=param.options)
    return edit_misfit(type_, alike, shown)


def _holds_no_string(type_: Type) -> bool:
    return type_.kind in (*NUMBERS, "boolean") or any(not isinstance(one, str) for one in type_.options)


def edit_misfit(type_: Type, param: EditParam, shown: str) -> str:
    """Returns a clause that says why a value does not fit an edit's parameter; empty if it fits or is not known yet."""
    is_no_file = param.takes_files and all(one.kind not in ("any", *FILES) for one in type_.possible)
    if type_.many and not param.many and not is_no_file:
        concat = "concat, or " if type_.kind == "video" and "video" in param.kinds else ""
        what = "file" if param.takes_files else "value"
        return f"{param.name} takes one {what}, but {shown} is a list; use {concat}foreach: {shown}"
    if type_.kind == "any":
        return ""
    if type_.kind == "mixed":
        return _of_members(type_, shown, lambda one: edit_misfit(one, param, shown))
    if param.takes_files:
        kinds = FILES if param.kinds == ("any",) else param.kinds
        return _wrong_file(type_.one, kinds, f"{param.name} takes {param.takes}", shown)
    if {*NUMBERS} & {*param.kinds}:
        if type_.options and {*map(str, type_.options)} <= {*param.options}:
            return ""
        return _wrong_number(type_, param.name, shown)
    if param.kinds == ("enum",):
        return _wrong_option(type_, param.options, param.name, shown)
    if param.kinds == ("boolean",):
        return "" if type_.kind == "boolean" else f"{param.name} takes true or false, but {shown} is {type_.words}"
    return "" if type_.kind in PLAIN else f"{param.name} takes a string, but {shown} is {type_.one.words}"


def _of_members(type_: Type, shown: str, fault_of: Callable[[Type], str]) -> str:
    """Returns the fault of the first type that does not fit."""
    members = (replace(one, many=type_.many) for one in type_.possible)
    fault = next(filter(None, map(fault_of, members)), "")
    return fault.replace(f"{shown} is ", f"{shown} can be ", 1)


def _wrong_file(type_: Type, kinds: tuple[str, ...], takes: str, shown: str) -> str:
    if type_.kind in ("file", *kinds):
        return ""
    never = "; a string is not read as a link to a file" if type_.kind in ("string", "enum", "handle") else ""
    return f"{takes}, but {shown} is {type_.one.words}{never}"


def _wrong_option(type_: Type, options: tuple[str, ...], name: str, shown: str) -> str:
    wrong = [one for one in type_.options if text_of(one) not in options]
    if wrong:
        texts = ", ".join(text_of(one) for one in wrong)
        one = len(wrong) == 1
        among = f"the option{'' if one else 's'} {texts} of {shown} {'is' if one else 'are'} not among them"
        which = among if type_.kind == "enum" else f"not {texts}"
        return f"{name} takes {_listed(options)}, {'but ' if type_.kind == 'enum' else ''}{which}"
    return "" if type_.kind in PLAIN else f"{name} takes {_listed(options)}, but {shown} is {type_.words}"


def _wrong_number(type_: Type, name: str, shown: str) -> str:
    if type_.kind in NUMBERS:
        return ""
    if type_.options and all(_is_number(one) for one in type_.options):
        return ""
    return f"{name} takes a number, but {shown} is {type_.one.words}"


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) is not None
    except (TypeError, ValueError):
        return False


def may_be_number(type_: Type) -> bool:
    """Returns whether a value of a type can be a number, or a string that is written like a number."""
    if type_.many or all(one.kind not in ("string", "enum", *NUMBERS, "any") for one in type_.possible):
        return False
    return not type_.options or any(map(_is_number, type_.options))


def _spells_booleans(options: tuple[Any, ...]) -> bool:
    return all(text_of(one) in ("true", "false") for one in options)


def _listed(options: tuple[str, ...]) -> str:
    return f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else "".join(options)
