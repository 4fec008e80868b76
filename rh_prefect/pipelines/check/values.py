"""Checks names, references, values and conditions in a file.

A value with a wrong declaration gets the type `any`, so that the same problem is not reported again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from rh_prefect.media.file_name_templates import folded
from rh_prefect.pipelines import types
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.conditions import ORDERED
from rh_prefect.pipelines.file_model import (
    COMPARISONS,
    CONDITIONS,
    NAME,
    RESERVED,
    EditStep,
    ModelStep,
    PaidStep,
    UseStep,
    shown_value,
)
from rh_prefect.pipelines.parsed_document import Path, Problems, nearest
from rh_prefect.pipelines.references import Reference, WrongReferenceError, parse, shown
from rh_prefect.pipelines.types import Type, negated
from rh_prefect.pipelines.visible_names import UNKNOWN_GUARD, NameScope, resolve

INVALID = Type("any")
"""The type of a string with an invalid reference, which is reported."""

RESERVED_FOLDERS = ("works", "scopes", "edits", "names", "inputs", "results", "runs", "rounds", "pipelines", "gallery")
_ESCAPED = re.compile(r"\$(?P<text>\$\((?P<names>[A-Za-z][\w-]*(?:\.[\w-]+)*)\))")
_OTHER_SPELLING = re.compile(r"(?:\$\{\{|\$\{|\{\{)\s*(?P<names>[A-Za-z][\w-]*(?:\.[\w-]+)*)\s*\}\}?")


class ValueCheck:
    """Checks the parts that all kinds of steps have: names, references, values and conditions."""

    def __init__(
        self, checked: Checked, problems: Problems, depth: int, check_file: Callable[..., Checked | None]
    ) -> None:
        self._checked, self._document, self._file = checked, checked.document, checked.file
        self._problems, self._depth, self._check_file = problems, depth, check_file
        self._why: dict[str, str] = {}
        self._is_ahead = False  # see `_previous`
        # How many problems were found; `Problems` counts those of an alias once.
        self._problem_count = 0
        # References with these names cannot be written, or mean something else.
        self._wrong_names: list[str] = []

    def _say(self, path: Path, message: str, needle: str = "", *, key: bool = False) -> None:
        self._problem_count += 1
        self._problems.add(self._document, path, message, needle, key=key)

    def _note(self, path: Path, note: str) -> None:
        line = self._document.place(path).line
        self._checked.notes.append(f"{self._document.name}:{line}: {note}.")

    def _check_name(self, path: Path, name: str, scope: NameScope, *, key: bool = True) -> bool:
        """Returns whether a step or an item can have a name; otherwise reports why it cannot."""
        if not NAME.fullmatch(name):
            wrong = f"{name} is not a valid name; a name has letters, digits, _ and -, and begins with a letter"
            self._say(path, wrong, key=key)
            self._wrong_names.append(name)
        elif name in RESERVED:
            self._say(path, f"{name} is reserved in references; use another name", key=key)
        elif scope.find(name) is not None:
            self._say(path, f"{name} would hide the {name} that is visible here; use another name", key=key)
        else:
            return True
        return False

    def _reference(self, path: Path, reference: Reference, scope: NameScope, *, may_be_absent: bool = False) -> Type:
        try:
            found = resolve(reference, scope)
        except WrongReferenceError as wrong:
            self._say_wrong(path, reference.text, wrong)
            return Type("any")
        is_of_run = any(names[0] == "run" and names[:2] != ("run", "date") for names in reference.options)
        if is_of_run and (path[-1] != "save_as" or path[-2] == "with"):
            problem = "run.id differs in each run, so each run would pay again; use run.id only in save_as"
            self._say(path, problem, reference.text)
        if found.guards and not may_be_absent:
            self._say(path, self._absent(reference, found), reference.text)
        return found

    def _say_wrong(self, path: Path, text: str, wrong: WrongReferenceError) -> None:
        is_of_wrong_name = (re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in self._wrong_names)
        if not any(is_of_wrong_name):
            self._say(path, str(wrong), wrong.needle)

    def _absent(self, reference: Reference, found: Type) -> str:
        why = next((self._why[guard] for guard in sorted(found.guards) if guard in self._why), "")
        is_field = any(guard.startswith(types.SOME) for guard in found.guards)
        why = why or ("not all of the values have it" if is_field else "a condition may be false")
        names = " or ".join(".".join(option) for option in reference.options)
        other = f"$({names} or other)" if not found.is_plain else f'$({names} or "a default")'
        condition = f"when: {{exists: {reference.text}}}"
        return f"{reference.text} can be absent: {why}; write {other}, or add {condition} to this step"

    def _value(self, path: Path, value: Any, scope: NameScope, *, may_be_absent: bool = False) -> Type:
        """Returns the type of a value in a file, and checks its references."""
        if isinstance(value, dict):
            return Type("object", fields={key: self._value((*path, key), one, scope) for key, one in value.items()})
        if isinstance(value, list):
            return types.of_items([self._value((*path, n), one, scope) for n, one in enumerate(value)])
        if not isinstance(value, str):
            return types.of_literal(value)
        try:
            template = parse(value)
        except WrongReferenceError as wrong:
            self._say_wrong(path, value, wrong)
            return INVALID
        if template.only is not None:
            return self._reference(path, template.only, scope, may_be_absent=may_be_absent)
        for reference in template.references:
            found_type = self._reference(path, reference, scope)
            if not found_type.is_plain:
                problem = f"{reference.text} is {found_type.words}, but a string can contain only strings and numbers"
                is_list_of_strings = found_type.many and found_type.kind == "string"
                hint = "; join_text joins a list into one string" if is_list_of_strings else ""
                self._say(path, problem + hint, reference.text)
        self._check_spelling(path, value, scope)
        return Type("string", options=() if template.literal is None else (template.literal,))

    def _check_spelling(self, path: Path, text: str, scope: NameScope) -> None:
        """Reports references in the syntax of other tools, which would be sent as text; notes those after `$$`."""
        for found in _ESCAPED.finditer(text):
            own = Reference(found["text"], (tuple(found["names"].split(".")),))
            with suppress(WrongReferenceError):
                resolve(own, scope)
                self._note(path, f"{found[0]} is the text '{own.text}', and not the value of {found['names']}")
        for found in _OTHER_SPELLING.finditer(text):
            names = tuple(found["names"].split("."))
            own = Reference(f"$({found['names']})", (names,))
            if len(names) == 1 and names[0] in RESERVED:
                continue
            with suppress(WrongReferenceError):
                resolve(own, scope)
                self._say(path, f"{found[0]} is text and not a reference; write {own.text}", found[0])

    def _whole(self, path: Path, value: int | str | None, scope: NameScope) -> None:
        if isinstance(value, str):
            found = self._value(path, value, scope)
            are_whole = found.options and all(type(one) is int for one in found.options)
            if found.kind not in ("integer", "any") and not are_whole:
                self._say(path, f"{path[-1]} takes a whole number, but {value} is {found.words}")

    def _condition(self, path: Path, value: Any, scope: NameScope) -> frozenset[str]:
        """Checks a condition; returns the guards that it implies, and `UNKNOWN_GUARD` for an invalid condition."""
        before = self._problem_count
        held = self._holding(path, value, scope)
        return held if self._problem_count == before else held | {UNKNOWN_GUARD}

    def _holding(self, path: Path, value: Any, scope: NameScope) -> frozenset[str]:
        name = next((part for part in reversed(path) if isinstance(part, str)), "")
        if isinstance(value, dict) and len(value) == 1:
            [(operator, argument)] = value.items()
            return self._operator((*path, operator), operator, argument, scope)
        if _is_one_reference(value):
            found = self._value(path, value, scope, may_be_absent=True)
            if found.kind not in ("boolean", "any"):
                takes = f"a condition takes true or false, but {value} is {found.words}"
                self._say(path, f"{takes}; exists tests whether a value is present")
            return frozenset([f"true:{value}"])
        if isinstance(value, str):
            hint = f"; did you mean $({value})?" if re.fullmatch(r"[\w.-]+", value) else ""
            self._say(path, f"{name} takes a condition, but '{value}' is a string{hint}")
        elif not isinstance(value, bool):
            what = f"the value has {len(value)} keys" if isinstance(value, dict) else shown_value(value)
            self._say(path, f"{name} takes one condition, such as {{exists: $(x)}}, but {what}")
        return frozenset()

    def _operator(self, at: Path, operator: str, argument: Any, scope: NameScope) -> frozenset[str]:
        match operator:
            case "all" | "any" if isinstance(argument, list) and argument:
                held = [self._holding((*at, n), one, scope) for n, one in enumerate(argument)]
                return frozenset[str]().union(*held) if operator == "all" else frozenset([f"any:{argument}"])
            case "all" | "any":
                what = shown_value(argument)
                self._say(at, f"{operator} takes a list of conditions, but {what}")
            case "not":
                inside = self._holding(at, argument, scope)
                return frozenset(map(negated, inside)) if len(inside) == 1 else frozenset([f"not:{argument}"])
            case "exists" | "missing" if _is_one_reference(argument):
                guards = self._value(at, argument, scope, may_be_absent=True).guards
                if operator == "exists":
                    return guards
                return frozenset(map(negated, guards)) if len(guards) == 1 else frozenset([f"missing:{argument}"])
            case "exists" | "missing":
                hint = f"; did you mean $({argument})?" if isinstance(argument, str) else ""
                self._say(at, f"{operator} takes a reference, but {shown_value(argument)}{hint}")
            case _ if operator not in COMPARISONS:
                self._say_no_condition(at, operator, argument)
            case _ if not isinstance(argument, list) or len(argument) != 2:
                self._say(at, f"{operator} takes a list of two values, as in {{{operator}: [$(a), b]}}")
            case "in" if not isinstance(argument[1], list):
                self._say((*at, 1), "in takes a value and a list, as in {in: [$(a), [b, c]]}")
            case _:
                for n, one in enumerate(argument):
                    found = self._value((*at, n), one, scope, may_be_absent=True)
                    if operator in ORDERED and not types.may_be_number(found):
                        self._say((*at, n), f"{operator} compares numbers, but {shown(one)} is {found.words}")
                return frozenset([f"{operator}:{argument}"])
        return frozenset()

    def _say_no_condition(self, at: Path, operator: str, argument: Any) -> None:
        wrong = next((one for one in argument if one not in COMPARISONS), "") if isinstance(argument, dict) else ""
        if wrong:
            self._say((*at, wrong), f"{wrong} is not a comparison; {nearest(wrong, COMPARISONS)}", key=True)
        else:
            self._say(at, f"{operator} is not a condition; {nearest(operator, CONDITIONS)}", key=True)

    def _check_save_as(self, path: Path, name: str, scope: NameScope) -> None:
        found = self._value(path, name, scope)
        if any(unicodedata.category(char) == "Cc" for char in name):
            self._say(path, "save_as takes a name without control characters")
        if "::" in name:
            self._say(path, "save_as takes a name without ::")
        if not found.is_plain:
            self._say(path, f"save_as takes a string, but {name} is {found.words}; name a field, as in $(….stem)")
        literal = re.sub(r"\$\([^)]*\)", "x", name)
        parts = literal.split("/")
        is_below = not name.startswith(("/", "~")) and "\\" not in name and "://" not in name
        if folded(parts[0]) in RESERVED_FOLDERS:
            self._say(path, f"{parts[0]}/ is a folder for this package's own records; choose another folder")
        elif not is_below or any(part in ("", ".", "..") for part in parts):
            self._say(path, "save_as takes a name below the storage's folder, without .. and without a leading /")

    def _silent(self, value: Any, scope: NameScope) -> Type:
        """Returns the type of a value that is one reference, else `INVALID`; reports no problems."""
        try:
            only = parse(value).only if isinstance(value, str) else None
            return INVALID if only is None else resolve(only, scope)
        except WrongReferenceError:
            return INVALID

    def _values_of(
        self, path: Path, step: PaidStep | EditStep | UseStep, scope: NameScope, *, skip: Collection[Path] = ()
    ) -> None:
        """Checks the references in the values of a step, unless they were checked before."""
        given: list[tuple[Path, Any]] = [(("with", name), value) for name, value in step.with_.items()]
        given += step.sources if isinstance(step, ModelStep) else []
        for at, value in given:
            if at not in skip:
                self._value((*path, *at), value, scope)


def _is_one_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$(") and value.endswith(")") and value.count("$(") == 1
