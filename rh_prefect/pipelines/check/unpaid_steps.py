"""Checks the steps that cost nothing: local edits, uses of other pipeline files, and reviews."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from rh_prefect.pipelines import types
from rh_prefect.pipelines.check.checked_file import SHIPPED, Checked, read_text
from rh_prefect.pipelines.check.literal_conversion import edit_value, no_caption, wrong_value
from rh_prefect.pipelines.check.paid_steps import PaidCheck
from rh_prefect.pipelines.check.values import INVALID
from rh_prefect.pipelines.edits import EDITS, EditParam
from rh_prefect.pipelines.file_model import FILE_TYPES, TYPES, EditStep, Param, ReviewStep, UseStep, shown_value
from rh_prefect.pipelines.model_arguments import items_in
from rh_prefect.pipelines.parsed_document import Path, PipelineError, Problems, nearest, not_replaced
from rh_prefect.pipelines.references import has_reference, is_reference, shown
from rh_prefect.pipelines.types import Type
from rh_prefect.pipelines.visible_names import NameScope
from rh_prefect.pipelines.yaml_reader import read

DEEPEST_USE = 2
_OF_A_RUN = ("budget", "scope", "invalid_items")
"""The keys that apply to a whole run, so that those of a used file have no effect."""

_NO_TIMES = "subtitles needs at (the start time of each item of text) or seconds (if there is only one)"


class OtherCheck(PaidCheck):
    """Checks the steps that cost nothing: edits, uses of other files, and reviews."""

    def _edit(self, path: Path, step: EditStep, scope: NameScope) -> Type:
        edit = EDITS.get(step.edit)
        if edit is None:
            self._say((*path, "edit"), f"there is no edit {step.edit}; {nearest(step.edit, EDITS)}")
            self._values_of(path, step, scope)
            return Type("any")
        first, params = Type("any"), {param.name: param for param in edit.params}
        for name, found in self._arguments(path, step, edit.name, params, scope):
            is_fit = self._fit_edit((*path, "with", name), step.with_[name], found, params[name])
            first = found if is_fit and params[name] is edit.params[0] else first
        if wrong := no_caption(edit.name, step.with_.get("text")):
            self._say((*path, "with", "text"), wrong)
        needed = [param.name for param in edit.params if param.required]
        needed += ["at"] if edit.name == "subtitles" and "seconds" not in step.with_ else []
        self._check_missing(path, step, edit.name, params, needed)
        film = re.fullmatch(r"\$\(([\w.-]+)\.starts\)", str(step.with_.get("at", "")))
        if edit.name == "subtitles" and film is not None and "seconds" not in step.with_:
            late = f"the last subtitle can be shown after the end of {film[1]}; add seconds: $({film[1]}.seconds)"
            self._note((*path, "with", "at"), late)
        kind = first.kind if edit.output == "same" else edit.output
        fields = {"starts": Type("number", many=True)} if edit.has_starts else {}
        members = first.possible if kind == "mixed" else ()
        return Type(kind, is_result=True, fields=fields, members=members)

    def _arguments(
        self, path: Path, step: EditStep | UseStep, owner: str, names: Collection[str], scope: NameScope
    ) -> Iterator[tuple[str, Type]]:
        """Yields the arguments of a step with their types; reports those for which there is no parameter."""
        for name, value in step.with_.items():
            at = (*path, "with", name)
            found = self._value(at, value, scope)
            if name not in names:
                self._say(at, f"{owner} has no parameter {name}; {nearest(name, names)}", key=True)
            elif found is not INVALID:
                yield name, found

    def _check_missing(
        self, path: Path, step: EditStep | UseStep, owner: str, names: Collection[str], needed: Iterable[str]
    ) -> None:
        """Reports needed parameters that are missing, unless their names are probably misspelt."""
        missing = [name for name in needed if name not in step.with_]
        for name in not_replaced(missing, (name for name in step.with_ if name not in names)):
            wrong = _NO_TIMES if (owner, name) == ("subtitles", "at") else f"{name} is missing; {owner} needs it"
            self._say((*path, step.action), wrong)

    def _fit_edit(self, path: Path, value: Any, found: Type, param: EditParam) -> bool:
        """Returns whether a value fits a parameter of an edit; reports a problem otherwise."""
        if param.takes_files and not is_reference(value) and not isinstance(value, list):
            self._say(path, f"{param.name} takes {param.takes}, but {shown_value(value)}; use a reference")
            return False
        if isinstance(value, list) and param.many:
            before = self._problem_count
            for at, one, type_ in items_in(self._say, path, value, found):
                if isinstance(one, dict):
                    takes = "files" if param.takes_files else "plain values"
                    self._say(at, f"{param.name} takes {takes}, not mappings")
                else:
                    self._fit_edit(at, one, type_, param)
            return self._problem_count == before
        if isinstance(value, list):
            wrong = f"{param.name} takes one {'file' if param.takes_files else 'value'}, but this is a list"
        elif value is None:
            wrong = f"{param.name} has no value; write a value, or remove the key"
        else:
            wrong = types.edit_misfit(found, param, shown(value))
            wrong = wrong or ("" if has_reference(value) else edit_value(param, value)[1])
        if wrong:
            self._say(path, wrong)
        return not wrong

    def _use(self, path: Path, step: UseStep, scope: NameScope) -> Type:
        used = self._used((*path, "use"), step.use)
        if used is None:
            self._values_of(path, step, scope)
            return Type("any")
        self._checked.uses[path] = used
        if ignored := [key for key in _OF_A_RUN if key in used.file.model_fields_set]:
            have = f"{' and '.join(ignored)}: those of {step.use} have no effect; only those of this file apply"
            self._note((*path, "use"), have)
        params = used.file.params
        for name, found in self._arguments(path, step, step.use, params, scope):
            self._fit_param((*path, "with", name), step.with_[name], found, params[name])
        self._check_missing(path, step, step.use, params, _required(params))
        return Type("object", fields=used.outputs)

    def _fit_param(self, path: Path, value: Any, found: Type, param: Param) -> None:
        if param.kind not in TYPES or (param.of or "file") not in FILE_TYPES:
            return  # the other file has this problem
        expected = types.of_param(param)
        written = shown(value)
        if isinstance(value, list) and expected.many:
            before = self._problem_count
            for at, one, type_ in items_in(self._say, path, value, found):
                if param.kind == "files":
                    self._fit_files(at, path[-1], one, type_, expected.one)
            if self._problem_count > before or param.kind == "files":
                return
        if param.kind == "table" and found.many and found.kind != "any":
            self._fit_columns(path, written if is_reference(value) else "this list", found, param)
            return
        has_items = isinstance(value, list) and has_reference(value)  # so that only the types of its items are known
        if not is_reference(value) and param.kind not in ("table", "files", *FILE_TYPES) and not has_items:
            wrong = wrong_value(param, value)
        elif found.many != expected.many and found.kind != "any":
            wrong = f"takes {expected.words}, but {written} is {found.words}"
        elif expected.kind in types.FILES:
            self._fit_files(path, path[-1], value, found, expected)
            return
        else:
            numbers = expected.kind in types.NUMBERS and not all(
                one.kind in (*types.NUMBERS, "any") for one in found.possible
            )
            plain = expected.kind in types.PLAIN and not (found.one if expected.many else found).is_plain
            wrong = f"takes {expected.words}, but {written} is {found.words}" if numbers or plain else ""
        if wrong:
            self._say(path, f"{path[-1]} {wrong}")

    def _fit_files(self, path: Path, name: str | int, value: Any, found: Type, expected: Type) -> None:
        """Checks whether a value, or each item of a list, is a file of a kind."""
        if not _is_file_of(found, expected):
            self._say(path, f"{name} takes {expected.words}, but {shown(value)} is {found.one.words}")

    def _fit_columns(self, path: Path, written: str, found: Type, param: Param) -> None:
        """Checks whether a list has the columns that the table of a used file needs."""
        known = found.fields
        if found.kind not in ("object", "group"):
            self._say(path, f"{path[-1]} takes rows with columns, but {written} has no columns")
            return
        missing = next((name for name in _required(param.columns or {}) if name not in known), None)
        if missing is not None and known:
            what = f"needs the column {missing}, but {written} has no such column"
            self._say(path, f"{path[-1]} {what}; {nearest(missing, known)}")
        for name, column in (param.columns or {}).items():
            expected, given = types.of_param(column), known.get(name, Type("any"))
            if expected.kind in types.FILES and not _is_file_of(given, expected):
                wrong = f"its column {name} takes {expected.words}, but this column of {written} is {given.one.words}"
                never = "; a string is not read as a link to a file" if given.one.is_plain else ""
                self._say(path, f"{path[-1]}: {wrong}{never}")

    def _used(self, path: Path, name: str) -> Checked | None:
        if self._depth >= DEEPEST_USE:
            self._say(path, f"files may use other files at most {DEEPEST_USE} levels deep")
            return None
        if name.startswith("rh:"):
            known = sorted(one.stem for one in SHIPPED.glob("*.yaml"))
            if name[3:] not in known:
                self._say(path, f"there is no shipped pipeline {name}; {nearest(name[3:], known)}")
                return None
            file: FilePath | None = SHIPPED / f"{name[3:]}.yaml"
        elif name.startswith("./") and name.endswith((".yaml", ".yml", ".json")):
            file = self._file_below(path, name)
        else:
            self._say(path, f"use takes ./file.yaml or rh:name, but {shown_value(name)}")
            return None
        return None if file is None else self._read_used(path, name, file)

    def _read_used(self, path: Path, name: str, file: FilePath) -> Checked | None:
        found = Problems()
        checked = None
        try:
            document = read(read_text(file), name.removeprefix("./"))
            if not isinstance(document.data, dict) or "steps" not in document.data:
                # Its lines are not shown: it may be anything that lies in the folder.
                self._say(path, f"{name} is not a pipeline: it has no steps")
                return None
            checked = self._check_file(document, found, folder=file.parent, depth=self._depth + 1)
        except PipelineError as error:
            self._say(path, f"{name} is not a pipeline: {error.found[0].message}")
        except OSError as error:
            self._say(path, f"{name} cannot be read: {error.strerror or error}")
        for problem in found:
            self._problems.add_problem(problem)
        return checked

    def _review(self, path: Path, step: ReviewStep, scope: NameScope) -> Type:
        found, before = [], self._problem_count
        if not step.sources:
            takes = "review takes a reference or a list of references"
            self._say((*path, "review"), f"{takes}, but the value is an empty list")
        for n, text in enumerate(step.sources):
            at = (*path, "review", n) if isinstance(step.review, list) else (*path, "review")
            if not is_reference(text):
                self._say(at, f"review takes a reference, but {shown_value(text)}; did you mean $({text})?")
                continue
            one = self._value(at, text, scope)
            found.append(one)
            if one.many:
                self._say(at, f"review takes one result, but {text} is a list; put the review into the group")
        kinds = {inner.kind for one in found for inner in one.possible} - {"any"}
        if len(kinds) > 1:
            listed = " and ".join(sorted(kinds))
            wrong = f"a review chooses among results of one kind, but these results are of the kinds {listed}"
            self._say((*path, "review"), wrong)
        if not found or self._problem_count > before:
            return Type("any")
        fields = types.fields_of_any(found, f"the candidates of {path[-1]}")
        return replace(found[0], fields=fields, guards=frozenset(), is_result=True)


def _required(params: Mapping[str, Param]) -> list[str]:
    """Returns the names of parameters, or of columns, that need a value."""
    return [name for name, param in params.items() if param.needs_value]


def _is_file_of(found: Type, expected: Type) -> bool:
    """Returns whether a value, or each item of a list, can be a file of a kind."""
    kinds = types.FILES if expected.kind == "file" else ("file", expected.kind)
    return all(one.kind in ("any", *kinds) for one in found.possible)
