"""Checks a whole file: its blocks, its parameters, all steps in order, its fan-outs and its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from keyword import iskeyword
from pathlib import Path as FilePath
from uuid import UUID

from rh_prefect.media.file_types_and_completeness import FORMATS, format_named, is_made_from
from rh_prefect.pipelines import types
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.check.literal_conversion import wrong_value
from rh_prefect.pipelines.check.unpaid_steps import OtherCheck
from rh_prefect.pipelines.edits import EDITS
from rh_prefect.pipelines.file_model import (
    FILE_TYPES,
    RUN_OPTIONS,
    TYPES,
    EditStep,
    FanOutStep,
    GraphStep,
    GroupStep,
    ModelStep,
    Param,
    ReviewStep,
    Step,
    UseStep,
    shown_value,
)
from rh_prefect.pipelines.file_validation import build
from rh_prefect.pipelines.model_arguments import items_in
from rh_prefect.pipelines.parsed_document import Document, Path, Problems, nearest
from rh_prefect.pipelines.references import is_reference, references_in
from rh_prefect.pipelines.types import FILES, Type
from rh_prefect.pipelines.visible_names import UNKNOWN_GUARD, NameScope
from rh_prefect.redaction import secret_in
from rh_prefect.works.journal.journal import LONGEST_SCOPE, is_scope_name

_NOT_IN_NAMES = ("/", "%", "&", "<", ">")
_PREFECT_NAMES = ("self", "return_state", "wait_for")
_RUN = Type("object", fields={"date": Type("string"), "id": Type("string")})


def check_document(
    document: Document, problems: Problems, *, folder: FilePath | None = None, depth: int = 0
) -> Checked | None:
    """Checks a file and the files that it uses; returns None if the file does not have the form of a pipeline."""
    file = build(document, problems)
    if file is None:
        return None
    checked = Checked(document, file, folder)
    FileCheck(checked, problems, depth, check_document).whole()
    return checked


def notes_of(checked: Checked) -> list[str]:
    """Returns the notes about a file with its current `reuse`, which `Pipeline.with_reuse` may have changed."""
    budget, notes = checked.file.budget, list(checked.notes)
    if budget is not None and budget.all_runs and (again := next(made_again(checked), None)):
        notes.append(
            f"{checked.document.name}:{checked.document.place(('budget',)).line}: all_runs does not limit the total "
            f"cost of all rounds: each round pays for {again} again, and the costs of closed rounds do not count."
        )
    return notes


def made_again(checked: Checked) -> Iterator[str]:
    """Yields the paid steps that each round makes again, including steps of used files."""
    for path, step in checked.file.walk():
        if step.is_paid and (step.get("reuse") or checked.file.reuse or "always") != "always":
            yield str(path[-1])
        elif path in checked.uses:
            yield from made_again(checked.uses[path])


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


class FileCheck(OtherCheck):
    """The check of one file: its blocks, name, parameters, steps and outputs."""

    def whole(self) -> None:
        """Checks everything, in the order of the file."""
        self._check_blocks()
        self._check_flow_name()
        params = {name: self._param(("params", name), name, param) for name, param in self._file.params.items()}
        top = NameScope(names={"params": Type("object", fields=params), "run": _RUN})
        scope = self._steps(self._file.steps, ("steps",), top)
        for name, value in self._file.outputs.items():
            self._checked.outputs[name] = self._value(("outputs", name), value, scope, may_be_absent=True)

    def _check_blocks(self) -> None:
        for name in ("credentials", "storage"):
            value = getattr(self._file, name)
            what = secret_in(value or "")
            if what:
                self._checked.document.hide(value)
                takes = f"{name} takes the name of a block"
                self._say((name,), f"{takes}, but this looks like {what}; save the value in a block")
        scope = self._file.scope
        if scope is not None and (_is_uuid(scope) or not is_scope_name(scope)):
            signs = f"up to {LONGEST_SCOPE} letters, digits, dashes, dots and underscores"
            self._say(("scope",), f"scope takes a name of {signs} that is not the id of a flow run")

    def _check_flow_name(self) -> None:
        """Reports characters that Prefect does not allow in the name of a flow."""
        name = self._file.name or FilePath(self._document.name).stem
        wrong = next((sign for sign in _NOT_IN_NAMES if sign in name), "")
        if wrong and self._depth == 0:
            what = "name" if self._file.name else "the name of the file, used because the key name is missing,"
            at = ("name",) if self._file.name else ()
            self._say(at, f"{what} must not contain {wrong}; Prefect refuses such names")

    def _check_param_name(self, path: Path, name: str) -> None:
        if not name.isidentifier():
            wrong = f"{name} is not a valid name; the name of a parameter has only letters, digits and _"
            self._say(path, wrong, key=True)
        elif iskeyword(name) or name in _PREFECT_NAMES:
            self._say(path, f"{name} is reserved in Python or Prefect; give this parameter another name", key=True)
        elif self._depth == 0 and name in RUN_OPTIONS:
            self._say(path, f"{name} is an option of every run; give this parameter another name", key=True)

    def _param(self, path: Path, name: str, param: Param, *, owner: str = "params") -> Type:
        if owner == "params":
            self._check_param_name(path, name)
        before = self._problem_count
        self._check_type(path, param, is_column=owner != "params")
        is_known = self._problem_count == before
        self._check_default(path, param)
        guard = f"exists:{owner}.{name}"
        self._why[guard] = f"{name} is optional"
        found = types.of_param(param, guard)
        if not is_known:
            return Type("any", many=found.many, guards=found.guards)
        if param.kind == "table":
            fields = {
                column: self._param((*path, "columns", column), column, one, owner=f"{owner}.{name}")
                for column, one in (param.columns or {}).items()
            }
            return replace(found, fields=fields)
        return found

    def _check_type(self, path: Path, param: Param, *, is_column: bool) -> None:
        if param.enum is not None and param.type not in (None, "enum"):
            self._say((*path, "type"), f"enum is a separate type; remove type: {param.type}")
        elif not param.kind:
            self._say(path, f"the type is missing; it must be one of {', '.join(TYPES)}")
        elif param.kind not in TYPES or (is_column and param.kind == "table"):
            known = [one for one in TYPES if not is_column or one != "table"]
            here = (*path, "type") if self._document.node(path).keys else path
            self._say(here, f"there is no type {param.kind}; {nearest(param.kind, known)}")
        if param.kind == "enum" and param.enum is None:
            self._say(path, "enum needs a list of its options, as in {enum: [a, b]}")
        for key in ("other_columns",) if param.kind != "table" else () if is_column else ("header",):
            if getattr(param, key) is not None:
                self._say((*path, key), f"{key} does not apply to {'a column' if is_column else param.kind}", key=True)
        if param.kind == "table" and not param.columns:
            self._say(path, "a table needs its columns, as in {type: table, columns: {title: string}}")
        if param.min is not None and param.max is not None and param.min > param.max:
            self._say((*path, "min"), f"min is {param.min:.12g} and max is {param.max:.12g}, so no value is allowed")
        if param.of is not None and param.of not in FILE_TYPES:
            self._say((*path, "of"), f"there is no kind of file {param.of}; {nearest(param.of, FILE_TYPES)}")

    def _check_default(self, path: Path, param: Param) -> None:
        columns = param.columns or {}
        if param.kind == "table" and isinstance(param.default, list):
            rows = [(n, row) for n, row in enumerate(param.default) if isinstance(row, dict)]
            for at, name in (((*path, "default", n, name), name) for n, row in rows for name in row):
                if name not in columns:
                    self._say(at, f"the table has no column {name}; {nearest(name, columns)}", key=True)
        if param.kind in ("string", "integer", "number", "boolean", "list") or param.options:
            wrong = wrong_value(param, param.default) if param.default is not None else ""
            if wrong:
                self._say((*path, "default"), f"default {wrong}")

    def _steps(self, steps: Mapping[str, Step], path: Path, outer: NameScope) -> NameScope:
        lines = {name: self._document.place((*path, name), key=True).line for name in steps}
        scope = NameScope(outer=outer, below=lines)
        for name, step in steps.items():
            del lines[name]
            is_right = self._check_name((*path, name), name, scope)
            scope.own = name
            found = self._step((*path, name), name, step, scope)
            scope.names[name] = found if is_right else Type("any")
        scope.own = ""
        return scope

    def _step(self, path: Path, name: str, step: Step, scope: NameScope) -> Type:
        guards = frozenset[str]()
        if step.when is not None:
            guards = self._condition((*path, "when"), step.when, scope)
            for guard in guards - {UNKNOWN_GUARD}:
                self._why.setdefault(guard, f"the condition of {name} may be false")
        inner = scope.within(guards)
        found = self._result(path, step, inner)
        if isinstance(step, ReviewStep):
            self._value((*path, "ask"), step.ask, inner)
        if (expect := step.get("expect")) is not None:
            self._condition((*path, "expect"), expect, inner)
        if (save_as := step.get("save_as")) is not None:
            self._check_save_as((*path, "save_as"), save_as, inner)
            self._check_saved_kind(path, step, save_as, found)
        found = found.guarded(guards - scope.holding - {UNKNOWN_GUARD})
        self._checked.types[path] = found
        return found

    def _check_saved_kind(self, path: Path, step: Step, save_as: str, found: Type) -> None:
        """Reports a step whose file has a different kind or format than the extension in `save_as`."""
        said, kinds = format_named(re.sub(r"\$\([^)]*\)", "x", save_as)), {one.kind for one in found.possible}
        if kinds <= {*types.PLAIN, "object"}:
            self._say((*path, "save_as"), f"save_as saves a file, but this step makes {found.words}", key=True)
        elif said is not None and kinds <= {*FILES} - {*said.kinds, "file"}:
            self._say(
                (*path, "save_as"), f"save_as names {Type(said.kinds[0]).words}, but this step makes {found.words}"
            )
        elif isinstance(step, EditStep) and (edit := EDITS.get(step.edit)) is not None:
            made = str(step.with_.get("format", edit.extension))
            own = FORMATS.get(made)
            is_other = said and own and own.container != said.container and not is_made_from(said, own.kinds[0])
            if is_other or (said and made in ("srt", "vtt")):
                self._say((*path, "save_as"), f"save_as names another format, but {step.edit} makes .{made}")

    def _result(self, path: Path, step: Step, scope: NameScope) -> Type:
        match step:
            case ModelStep():
                return self._paid(path, step, scope, self._model_kind(path, step, scope))
            case GraphStep():
                return self._paid(path, step, scope, self._assumed_kind(path, step))
            case EditStep():
                return self._edit(path, step, scope)
            case UseStep():
                return self._use(path, step, scope)
            case ReviewStep():
                return self._review(path, step, scope)
            case GroupStep():
                return self._group(path, step, scope)
        raise AssertionError(step)

    def _group(self, path: Path, step: GroupStep, scope: NameScope) -> Type:
        inner, fields = NameScope(outer=scope), dict[str, Type]()
        if isinstance(step, FanOutStep):
            fields = self._items(path, step, inner, scope)
        if not step.steps:
            self._say((*path, "steps"), "a group must have at least one step")
            return Type("any")
        last = self._steps(step.steps, (*path, "steps"), inner)
        return Type("group", many=step.is_fan_out, fields={**fields, **{name: last.names[name] for name in step.steps}})

    def _foreach(self, path: Path, step: FanOutStep, scope: NameScope) -> Type:
        at = (*path, "foreach")
        if isinstance(step.foreach, str) and not is_reference(step.foreach):
            self._say(at, f"foreach takes a list, but {shown_value(step.foreach)}; did you mean $({step.foreach})?")
            return Type("any")
        found = self._value(at, step.foreach, scope)
        if found.kind == "any":
            return Type("any")
        if not found.many:
            self._say(at, f"foreach takes a list, but {step.foreach} is {found.words}")
            return Type("any")
        if isinstance(step.foreach, list):
            list(items_in(self._say, at, step.foreach, found))
        return found.one

    def _items(self, path: Path, step: FanOutStep, inner: NameScope, outer: NameScope) -> dict[str, Type]:
        """Adds the names of an item to a scope; returns the names that the list of all items also has."""
        fields = {"id": Type("string")}
        inner.names["number"] = Type("integer")
        if step.matrix is not None:
            inner.names["matrix"] = self._matrix(path, step, outer)
        if step.foreach is not None and step.matrix is not None:
            wrong = "a group cannot have both foreach and matrix; nest one group in another"
            self._say((*path, "matrix"), wrong, key=True)
        if step.foreach is not None:
            fields["item"] = inner.names["item"] = self._foreach(path, step, outer)
            if step.as_ is not None:
                is_right = self._check_name((*path, "as"), step.as_, outer, key=False)
                inner.names[step.as_] = fields["item"] if is_right else Type("any")
        if step.where is not None:
            self._check_unnumbered((*path, "where"), step)
            held = self._condition((*path, "where"), step.where, inner)
            inner.guards |= held
        if step.sort is not None:
            columns = inner.names.get("item", Type("any")).known_fields()
            if columns and step.sort.by not in columns:
                where = (*path, "sort", "by") if self._document.node((*path, "sort")).keys else (*path, "sort")
                self._say(where, f"an item has no {step.sort.by}; {nearest(step.sort.by, columns)}")
        self._whole((*path, "limit"), step.limit, outer)
        if step.id is not None:
            found = self._value((*path, "id"), step.id, inner, may_be_absent=True)
            if found.many or found.kind in ("object", "group"):
                self._say((*path, "id"), f"id takes a string or a number, but {step.id} is {found.words}; name a field")
        inner.names["id"] = Type("string")
        inner.names["previous"] = self._previous(path, step, inner)
        return fields

    def _check_unnumbered(self, path: Path, step: FanOutStep) -> None:
        for at, reference in references_in(step.where):
            if any(option[0] == "number" for option in reference.options):
                problem = f"where selects items before they are numbered, so {reference.text} is not available in where"
                self._say((*path, *at), f"{problem}; use limit to select the first items", reference.text)

    def _matrix(self, path: Path, step: FanOutStep, scope: NameScope) -> Type:
        fields = {}
        for name, values in (step.matrix or {}).items():
            at = (*path, "matrix", name)
            found = self._value(at, values, scope)
            if not found.many and found.kind != "any":
                self._say(at, f"matrix takes lists, but {name} is {found.words}")
                found = Type("any")
            elif isinstance(values, list):
                list(items_in(self._say, at, values, found))
            fields[name] = found.one
        return Type("object", fields=fields)

    def _previous(self, path: Path, step: FanOutStep, inner: NameScope) -> Type:
        """Returns the type of `previous`; to find it, checks the steps of an item once without reporting problems."""
        guard = f"exists:previous@{path}"
        self._why[guard] = "the first item has no previous item"
        unknown = Type("any", guards=frozenset([guard]))
        if self._is_ahead or "previous" not in step.names:
            return unknown
        ahead = NameScope(outer=inner, names={"previous": unknown})
        reports = self._problems, self._problem_count, self._checked
        self._problems, self._checked = Problems(), replace(self._checked, types={}, uses={}, notes=[])
        self._is_ahead = True
        found = self._steps(step.steps, (*path, "steps"), ahead)
        self._problems, self._problem_count, self._checked = reports
        self._is_ahead = False
        return Type("object", fields=found.names, guards=unknown.guards)
