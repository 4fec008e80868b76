"""The names that references can use at one position in a file, and the errors for unknown names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from rh_prefect.pipelines.references import Names, Reference, WrongReferenceError, in_quotes
from rh_prefect.pipelines.types import Type, fields_of_any, negated, of_literal

UNKNOWN_GUARD = "?"
"""The guard for a condition with a problem: it is not known which values exist if the condition is true."""


@dataclass(slots=True)
class NameScope:
    """The names that references can use at one position."""

    outer: NameScope | None = None  # The scope around it
    names: dict[str, Type] = field(default_factory=dict)  # The values by name
    below: dict[str, int] = field(default_factory=dict)  # The lines of steps that are defined further down
    guards: frozenset[str] = frozenset()  # Conditions that hold here
    own: str = ""  # The name of the step that is looked at

    def __iter__(self) -> Iterator[NameScope]:
        """Yields this scope and all scopes around it."""
        scope: NameScope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def find(self, name: str) -> Type | None:
        """Returns the type of a name; None if the name is not visible here."""
        return next((scope.names[name] for scope in self if name in scope.names), None)

    @property
    def holding(self) -> frozenset[str]:
        """Returns all conditions that are true in this scope."""
        return frozenset(guard for scope in self for guard in scope.guards)

    def known(self) -> list[str]:
        """Returns all names, the nearest first."""
        return list(dict.fromkeys(name for scope in self for name in scope.names))

    def within(self, guards: Iterable[str]) -> NameScope:
        """Returns a scope with the same names, and with further guards that hold."""
        return NameScope(outer=self, guards=frozenset(guards), own=self.own)


def resolve(reference: Reference, scope: NameScope) -> Type:
    """Returns the type of a reference; the `guards` are further conditions under which the value exists."""
    found = [_follow(option, reference, scope) for option in reference.options]
    if reference.fallback is not None:
        literal = of_literal(reference.fallback)
        found.append(replace(literal, kind="enum") if found[0].kind == "enum" else literal)
    first = found[0]
    for other in found[1:]:
        if not _alike(first, other):
            wrong = f"{reference.text} can be {first.words} or {other.words}; 'or' needs values of one kind"
            raise WrongReferenceError(wrong, reference.text)
    options = tuple(dict.fromkeys(option for one in found for option in one.options))
    longest = [one.max for one in found if one.max is not None]
    return Type(
        first.kind if first.kind != "any" else found[-1].kind,
        first.many,
        options if all(one.options for one in found) else (),
        fields_of_any([one for one in found if one.kind != "any"], reference.text),
        max(longest) if len(longest) == len(found) else None,
        _missing(found, scope.holding, f"or:{reference.options}"),
        first.is_result and len(found) == 1,
        tuple(inner for one in found for inner in one.possible) if first.kind == "mixed" else (),
    )


def _alike(one: Type, other: Type) -> bool:
    if "any" in (one.kind, other.kind):
        return True
    texts = ("string", "enum", "handle")
    same = one.kind == other.kind or (one.kind in texts and other.kind in texts)
    return one.many == other.many and (same or {one.kind, other.kind} <= {"integer", "number"})


def _missing(types: list[Type], holding: frozenset[str], any_exists: str) -> frozenset[str]:
    """Returns the conditions under which one of several alternatives exists; empty if one always exists."""
    remaining = [one.guards - holding for one in types]
    if UNKNOWN_GUARD in holding or any(not guards for guards in remaining):
        return frozenset()
    single = {next(iter(guards)) for guards in remaining if len(guards) == 1}
    if any(negated(guard) in single for guard in single):
        return frozenset()
    return remaining[0] if len(remaining) == 1 else frozenset([any_exists]) - holding


def _follow(names: Names, reference: Reference, scope: NameScope) -> Type:
    found = scope.find(names[0])
    if found is None:
        is_text = len(names) == 1 and names is not reference.options[0] and names is reference.options[-1]
        quoted = in_quotes(reference.text, names[0]) if is_text else ""
        raise WrongReferenceError(_unknown(names[0], scope, quoted), reference.text)
    guards = found.guards
    for depth, name in enumerate(names[1:], 1):
        fields = {} if found.kind == "any" else found.known_fields()
        if name not in fields and found.is_open:
            return Type("any")
        if name not in fields:
            raise WrongReferenceError(_no_field(".".join(names[:depth]), name, found, list(fields)), reference.text)
        found = fields[name]
        guards |= found.guards
    if found.kind == "group":
        wrong = f"{reference.text} is a group; name one of its steps, as in {_example(names, found)}"
        raise WrongReferenceError(wrong, reference.text)
    return found.guarded(guards)


def _example(names: Names, group: Type) -> str:
    step = next((name for name in group.fields if name not in ("item", "id")), "step")
    return f"$({'.'.join(names)}.{step})"


def _unknown(name: str, scope: NameScope, quoted: str) -> str:
    if name == scope.own:
        return f"{name} is this step itself; in a fan-out $(previous.{name}) is the result of the previous item"
    line = next((one.below[name] for one in scope if name in one.below), None)
    if line is not None:
        where = f"{name} is defined further down (line {line})"
        return f"{where}; a step may use only steps above it: move this step below that one"
    if name in ("item", "number", "id", "previous"):
        groups = "foreach" if name == "item" else "foreach or matrix"
        return f"there is no {name} here; only the steps of a group with {groups} have it"
    known = scope.known()
    params = scope.find("params")
    if params is not None and name in params.fields:
        return f"there is no {name} here; did you mean $(params.{name})?"
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    inside = [f"{group}.{name}" for group in known if _has_step(scope.find(group), name)]
    if inside:
        return f"there is no {name} here; did you mean $({inside[0]}), the list of its results for all items?"
    if quoted and not near:
        return f"there is no {name} here; a string after 'or' needs quotes: {quoted}"
    return f"there is no {name} here; {(f'did you mean {near[0]}?' if near else 'the names are ' + ', '.join(known))}"


def _has_step(group: Type | None, name: str) -> bool:
    return group is not None and group.kind == "group" and name in group.fields


def _no_field(path: str, name: str, found: Type, fields: list[str]) -> str:
    near = get_close_matches(name, fields, n=1, cutoff=0.6)
    if near:
        return f"{path} has no {name}; did you mean {near[0]}?"
    known = f"{path} has no {name}; it has {', '.join(fields)}"
    return known if fields else f"{path} is {found.words} and has no {name}"
