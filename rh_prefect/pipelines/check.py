"""Checks a file without any data: names, types of all connections, parameters of models and edits, rules of steps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model, text_of
from rh_prefect.catalog.validation import check
from rh_prefect.errors import UnknownModelError
from rh_prefect.pipelines import types
from rh_prefect.pipelines.edits import EDITS
from rh_prefect.pipelines.language import (
    ACTIONS,
    FILE_TYPES,
    NAME,
    RESERVED,
    TYPES,
    Param,
    PipelineFile,
    Step,
    build,
    check_condition,
    shown_value,
)
from rh_prefect.pipelines.model_names import no_such_model
from rh_prefect.pipelines.parsed_answers import answer_type
from rh_prefect.pipelines.references import Reference, Template, WrongReferenceError, parse, references_in
from rh_prefect.pipelines.scope import Found, Scope, resolve
from rh_prefect.pipelines.source import MOST_BYTES, Document, Path, PipelineError, Problems, nearest, read
from rh_prefect.pipelines.types import Type, negated

SHIPPED = FilePath(__file__).with_name("shipped")
DEEPEST_USE = 2

_MOST_GRAPH = 8 * 1024 * 1024
RESERVED_FOLDERS = ("works", "edits", "inputs", "manifests", "runs", "pipelines")
REUSE = re.compile(r"always|never|[1-9]\d{0,4}[mhd]")
_KEY = re.compile(r"(?i)(?:sk-|rh[-_]?)?[0-9a-f]{32,}|bearer .+|[A-Za-z0-9+/_-]{40,}")
_ONLY_PAID = ("takes", "attempts", "reuse", "parse", "assume", "pin")
_ONLY_GROUPS = ("foreach", "matrix", "as", "id", "where", "sort", "limit")


@dataclass
class Checked:
    """A file that was read and checked.

    Attributes:
        document: Its text and places.
        file: Its model.
        folder: Where it lies; None for a text.
        types: What each step makes, by its path.
        feeds: For each paid step with one model: which parameter takes which value of `from`.
        uses: The files that steps use, by the step's path.
        outputs: The type of each output.
        graphs: The graphs of nodes, by the names of their files.
        notes: What is worth knowing, one sentence each.
    """

    document: Document
    file: PipelineFile
    folder: FilePath | None
    types: dict[Path, Type] = field(default_factory=dict)
    feeds: dict[Path, dict[str, list[int]]] = field(default_factory=dict)
    uses: dict[Path, Checked] = field(default_factory=dict)
    outputs: dict[str, Type] = field(default_factory=dict)
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_document(
    document: Document, problems: Problems, *, folder: FilePath | None = None, depth: int = 0
) -> Checked | None:
    """Checks one file and those that it uses.

    Args:
        document: The file.
        problems: Takes everything that is wrong.
        folder: Where it lies, for `use: ./…` and `graph`.
        depth: How deep it is used by others.

    Returns:
        The checked file; None where its form is wrong, so that nothing else can be said.
    """
    file = build(document, problems)
    if file is None:
        return None
    checked = Checked(document, file, folder)
    _Check(checked, problems, depth).whole()
    return checked


class _Check:
    """One check of one file."""

    def __init__(self, checked: Checked, problems: Problems, depth: int) -> None:
        self._checked, self._document, self._file = checked, checked.document, checked.file
        self._problems, self._depth = problems, depth
        self._why: dict[str, str] = {}

    def whole(self) -> None:
        self._check_blocks()
        params = {name: self._param(("params", name), name, param) for name, param in self._file.params.items()}
        top = Scope(names={"params": Type("object", fields=params), "run": _RUN})
        scope = self._steps(self._file.steps, ("steps",), top)
        for name, value in self._file.outputs.items():
            found = self._value(("outputs", name), value, scope, may_be_absent=True)
            if found is not None:
                self._checked.outputs[name] = found

    # -- names -----------------------------------------------------------------------------------------------------

    def _say(self, path: Path, message: str, needle: str = "", *, key: bool = False) -> None:
        self._problems.add(self._document, path, message, needle, key=key)

    def _check_blocks(self) -> None:
        for name in ("credentials", "storage"):
            value = getattr(self._file, name)
            if value is not None and (_KEY.fullmatch(value) or "://" in value):
                what = "a key" if "://" not in value else "an address"
                self._say((name,), f"{name} takes the name of a block, and this looks like {what}; save it in a block")
        if self._file.budget is not None and self._file.budget.amount < 0:
            self._say(("budget",), "budget takes an amount from 0 on")
        self._check_reuse(("reuse",), self._file.reuse)

    def _check_reuse(self, path: Path, reuse: str | None) -> None:
        if reuse is not None and not REUSE.fullmatch(reuse):
            self._say(path, f"reuse takes always, never, or a time such as 30m, 12h or 7d, and {shown_value(reuse)}")

    def _check_name(self, path: Path, name: str, scope: Scope, *, key: bool = True) -> None:
        if not NAME.fullmatch(name):
            self._say(
                path, f"{name} is not a name; a name has letters, digits, _ and - and begins with a letter", key=key
            )
        elif name in RESERVED:
            self._say(path, f"{name} has a meaning of its own in references; give this another name", key=key)
        elif scope.find(name) is not None:
            self._say(path, f"{name} hides the {name} that is visible here; give this another name", key=key)

    def _param(self, path: Path, name: str, param: Param, *, owner: str = "params") -> Type:
        if owner == "params" and not name.isidentifier():
            self._say(path, f"{name} is not a name; a parameter's name has letters, digits and _", key=True)
        self._check_param(path, param, is_column=owner != "params")
        guard = f"exists:{owner}.{name}"
        self._why[guard] = f"{name} is optional"
        found = types.of_param(param, guard)
        if param.kind == "table":
            fields = {
                column: self._param((*path, "columns", column), column, one, owner=f"{owner}.{name}")
                for column, one in (param.columns or {}).items()
            }
            return replace(found, fields=fields)
        return found

    def _check_param(self, path: Path, param: Param, *, is_column: bool) -> None:
        if param.enum is not None and param.type not in (None, "enum"):
            self._say((*path, "type"), f"enum is a type of its own; leave type: {param.type} out")
        elif not param.kind:
            self._say(path, f"a type is missing; it is one of {', '.join(TYPES)}")
        elif param.kind not in TYPES or (is_column and param.kind in ("files", "table")):
            known = [one for one in TYPES if not is_column or one not in ("files", "table")]
            here = (*path, "type") if self._document.node(path).keys else path
            self._say(here, f"there is no type {param.kind}; {nearest(param.kind, known)}")
        if param.kind == "enum" and param.enum is None:
            self._say(path, "enum takes its options, as in {enum: [a, b]}")
        if param.kind == "table" and not param.columns:
            self._say(path, "a table needs its columns, as in {type: table, columns: {title: string}}")
        if param.of is not None and param.of not in FILE_TYPES:
            self._say((*path, "of"), f"there is no kind of files {param.of}; {nearest(param.of, FILE_TYPES)}")
        if param.kind in ("string", "integer", "number", "boolean", "enum"):
            wrong = wrong_value(param, param.default) if param.default is not None else ""
            if wrong:
                self._say((*path, "default"), f"default {wrong}")

    # -- steps -----------------------------------------------------------------------------------------------------

    def _steps(self, steps: Mapping[str, Step], path: Path, outer: Scope) -> Scope:
        lines = {name: self._document.place((*path, name), key=True).line for name in steps}
        scope = Scope(outer=outer, below=lines)
        for name, step in steps.items():
            del lines[name]
            self._check_name((*path, name), name, scope)
            scope.own = name
            scope.names[name] = self._step((*path, name), name, step, scope)
        scope.own = ""
        return scope

    def _step(self, path: Path, name: str, step: Step, scope: Scope) -> Type:
        self._check_form(path, step)
        guards = frozenset[str]()
        if step.when is not None:
            guards = self._condition((*path, "when"), step.when, scope)
            for guard in guards:
                self._why.setdefault(guard, f"the condition of {name} need not hold")
        inner = scope.within(guards)
        found = self._result(path, step, inner)
        if step.expect is not None:
            self._condition((*path, "expect"), step.expect, inner)
        if step.save_as is not None:
            self._check_save_as((*path, "save_as"), step.save_as, inner)
        own = scope.holding
        found = found.guarded(guards - own)
        self._checked.types[path] = found
        return found

    def _check_form(self, path: Path, step: Step) -> None:
        actions = [name for name in ACTIONS if getattr(step, name) is not None]
        if len(actions) != 1:
            said = f"has {' and '.join(actions)}; it does exactly one thing" if actions else "does nothing"
            known = ", ".join(ACTIONS[:-1])
            more = "" if actions else f"; it has one of {known} or {ACTIONS[-1]}"
            at = (*path, actions[1]) if actions else path
            self._say(at, f"the step {said}{more}", key=True)
        for key, field_name, allowed in self._restricted(step):
            if getattr(step, field_name) not in (None, False, "", {}) and not allowed:
                self._say(
                    (*path, key), f"{key} has no meaning for {step.action or 'this step'}; leave it out", key=True
                )
        if step.action == "steps" and not step.is_fan_out:
            for key in ("where", "sort", "limit", "id", "as"):
                if getattr(step, "as_" if key == "as" else key) is not None:
                    self._say((*path, key), f"{key} needs foreach beside it", key=True)
        if step.foreach is not None and step.matrix is not None:
            self._say((*path, "matrix"), "a group has foreach or matrix; nest one group in the other", key=True)
        self._check_reuse((*path, "reuse"), step.reuse)

    @staticmethod
    def _restricted(step: Step) -> Iterator[tuple[str, str, bool]]:
        is_group = step.action == "steps"
        yield from ((key, key, step.is_paid) for key in _ONLY_PAID)
        yield from ((key, "as_" if key == "as" else key, is_group) for key in _ONLY_GROUPS)
        yield "with", "with_", step.is_paid or step.action in ("edit", "use")
        yield "from", "from_", step.is_paid
        yield "same", "same", step.is_paid or step.action == "use"
        yield "ask", "ask", step.action == "review"
        yield "save_as", "save_as", step.is_paid or step.action in ("edit", "review")
        yield "expect", "expect", not is_group

    def _result(self, path: Path, step: Step, scope: Scope) -> Type:
        match step.action:
            case "model":
                return self._paid(path, step, scope, self._model_kind(path, step, scope))
            case "workflow" | "app" | "graph":
                return self._paid(path, step, scope, self._assumed_kind(path, step))
            case "edit":
                return self._edit(path, step, scope)
            case "use":
                return self._use(path, step, scope)
            case "review":
                return self._review(path, step, scope)
            case "steps":
                return self._group(path, step, scope)
            case _:
                return Type("any")

    # -- values ----------------------------------------------------------------------------------------------------

    def _template(self, path: Path, text: str) -> Template | None:
        try:
            return parse(text)
        except WrongReferenceError as wrong:
            self._say(path, str(wrong), wrong.needle)
            return None

    def _reference(self, path: Path, reference: Reference, scope: Scope, *, may_be_absent: bool = False) -> Type:
        found: Found = resolve(reference, scope)
        if found.problem:
            self._say(path, found.problem, reference.text)
            return Type("any")
        if found.type.guards and not may_be_absent:
            self._say(path, self._absent(reference, found.type), reference.text)
        return found.type

    def _absent(self, reference: Reference, found: Type) -> str:
        why = next(
            (self._why[guard] for guard in sorted(found.guards) if guard in self._why), "a condition need not hold"
        )
        other = f"$({' or '.join('.'.join(option) for option in reference.options)} or other)"
        condition = f"when: {{exists: {reference.text}}}"
        return f"{reference.text} can be absent: {why}; write {other}, or give this step {condition}"

    def _value(self, path: Path, value: Any, scope: Scope, *, may_be_absent: bool = False) -> Type | None:
        """The type of a value in a file, its references checked."""
        if isinstance(value, dict):
            found = {key: self._value((*path, key), one, scope) for key, one in value.items()}
            return Type("object", fields={key: one for key, one in found.items() if one is not None})
        if isinstance(value, list):
            items = [self._value((*path, n), one, scope) for n, one in enumerate(value)]
            return types.merged([one for one in items if one is not None]).as_list()
        if not isinstance(value, str):
            return types.of_literal(value)
        template = self._template(path, value)
        if template is None:
            return None
        if template.only is not None:
            return self._reference(path, template.only, scope, may_be_absent=may_be_absent)
        for reference in template.references:
            found_type = self._reference(path, reference, scope)
            if found_type.kind not in ("any", *types.PLAIN) or found_type.many:
                said = f"{reference.text} is {found_type.words}, and inside of a text there are texts and numbers only"
                hint = "; join_text makes one text of a list" if found_type.many and found_type.kind == "string" else ""
                self._say(path, said + hint, reference.text)
        literal = template.literal
        return Type("string") if literal is None else Type("string", options=(literal,))

    def _condition(self, path: Path, value: Any, scope: Scope) -> frozenset[str]:
        """Checks a condition; gives what holds where it is true."""
        if not check_condition(self._document, path, value, self._problems):
            return frozenset()
        return self._holding(path, value, scope)

    def _holding(self, path: Path, value: Any, scope: Scope) -> frozenset[str]:
        if isinstance(value, bool):
            return frozenset()
        if isinstance(value, str):
            found = self._value(path, value, scope, may_be_absent=True)
            if found is not None and found.kind not in ("boolean", "any"):
                self._say(
                    path,
                    f"a condition takes true or false, and {value} is {found.words}; exists asks whether it is there",
                )
            return frozenset([f"true:{value}"])
        [(operator, argument)] = value.items()
        at = (*path, operator)
        if operator == "all":
            held = [self._holding((*at, n), one, scope) for n, one in enumerate(argument)]
            return frozenset[str]().union(*held)
        if operator == "not":
            held_inside = self._holding(at, argument, scope)
            return frozenset(map(negated, held_inside)) if len(held_inside) == 1 else frozenset([f"not:{argument}"])
        if operator in ("exists", "missing"):
            return self._existing(at, operator, argument, scope)
        for n, one in enumerate(argument):
            self._holding((*at, n), one, scope) if operator == "any" else self._value(
                (*at, n), one, scope, may_be_absent=True
            )
        return frozenset([f"{operator}:{argument}"])

    def _existing(self, path: Path, operator: str, text: str, scope: Scope) -> frozenset[str]:
        found = self._value(path, text, scope, may_be_absent=True)
        guards = found.guards if found is not None else frozenset[str]()
        if operator == "exists":
            return guards
        return frozenset(map(negated, guards)) if len(guards) == 1 else frozenset([f"missing:{text}"])

    def _check_save_as(self, path: Path, name: str, scope: Scope) -> None:
        self._value(path, name, scope)
        literal = re.sub(r"\$\([^)]*\)", "x", name)
        parts = literal.split("/")
        if parts[0] in RESERVED_FOLDERS:
            self._say(path, f"{parts[0]}/ is a folder of this package's own records; save_as takes another one")
        elif (
            name.startswith(("/", "~"))
            or "\\" in name
            or "://" in name
            or any(part in ("", ".", "..") for part in parts)
        ):
            self._say(path, "save_as takes a name below the storage's folder, without .. and without a leading /")

    # -- paid steps ------------------------------------------------------------------------------------------------

    def _model_kind(self, path: Path, step: Step, scope: Scope) -> str:
        text = str(step.model)
        if "$(" not in text:
            model = self._model(path, text, step, scope)
            if model is None:
                self._values_of(path, step, scope)
                return "any"
            self._connect(path, step, scope, model)
            return _kind_of(model.output)
        found = self._value((*path, "model"), text, scope)
        self._values_of(path, step, scope)
        models = [self._model(path, str(name), step, scope) for name in (found.options if found is not None else ())]
        kinds = {_kind_of(model.output) for model in models if model is not None}
        if len(kinds) > 1:
            self._say(
                (*path, "model"),
                f"all models of {text} must make one kind, and these make {' and '.join(sorted(kinds))}",
            )
        return next(iter(kinds), "any")

    def _model(self, path: Path, name: str, step: Step, scope: Scope) -> Model | None:
        try:
            return catalog.get(name)
        except UnknownModelError:
            sources = step.from_ if isinstance(step.from_, list) else [step.from_] if step.from_ else []
            kinds = [self._silent_kind(text, scope) for text in sources]
            self._say((*path, "model"), no_such_model(name, kinds))
            return None

    def _silent_kind(self, text: Any, scope: Scope) -> str:
        try:
            only = parse(text).only if isinstance(text, str) else None
        except WrongReferenceError:
            return ""
        return "" if only is None else resolve(only, scope).type.kind

    def _assumed_kind(self, path: Path, step: Step) -> str:
        kind = step.assume.kind if step.assume is not None else None
        if kind is None:
            what = "graph" if step.action == "graph" else f"the {step.action}"
            said = f"no catalogue knows what {what} makes; write assume: {{kind: image}} (or video, audio, 3d, text)"
            self._say((*path, step.action), said)
        if step.action == "graph":
            self._check_graph((*path, "graph"), str(step.graph))
        return _kind_of(kind) if kind else "any"

    def _values_of(self, path: Path, step: Step, scope: Scope) -> None:
        for name, value in step.with_.items():
            self._value((*path, "with", name), value, scope)
        for at, text in self._from(path, step):
            self._value(at, text, scope)

    @staticmethod
    def _from(path: Path, step: Step) -> list[tuple[Path, Any]]:
        if step.from_ is None:
            return []
        here = (*path, "from")
        return (
            [((*here, n), one) for n, one in enumerate(step.from_)]
            if isinstance(step.from_, list)
            else [(here, step.from_)]
        )

    def _paid(self, path: Path, step: Step, scope: Scope, kind: str) -> Type:
        if step.action != "model":
            self._values_of(path, step, scope)
        self._check_paid(path, step, scope)
        if step.parse is None:
            return Type(kind, is_result=True)
        if kind not in ("string", "any"):
            self._say(
                (*path, "parse"),
                f"parse reads a text, and {step.model or step.action} makes {Type(kind).words}",
                key=True,
            )
        found, wrong = answer_type(step.parse)
        for at, message in wrong:
            self._say((*path, "parse", *at), message)
        self._whole((*path, "parse", "at_most"), step.parse.at_most, scope)
        return replace(found, is_result=True)

    def _whole(self, path: Path, value: int | str | None, scope: Scope) -> None:
        if isinstance(value, str):
            found = self._value(path, value, scope)
            if found is not None and found.kind not in ("integer", "any") and not _are_whole(found.options):
                self._say(path, f"{path[-1]} takes a whole number, and {value} is {found.words}")

    def _check_paid(self, path: Path, step: Step, scope: Scope) -> None:
        self._whole((*path, "takes"), step.takes, scope)
        if step.assume is not None and isinstance(step.assume.seconds, str):
            self._value((*path, "assume", "seconds"), step.assume.seconds, scope)
        for at, text in _texts(step.with_, (*path, "with")):
            node = self._document.node(at)
            plain_text = node.is_plain and isinstance(node.value, str) and not _is_reference(node.value)
            if plain_text and node.comment:
                key = next(part for part in reversed(at) if isinstance(part, str))
                self._say(at, f"'{node.comment}' is a comment here and is not part of {key}; put the text in quotes")
            if "$(run.id" in text:
                self._say(
                    at,
                    "run.id differs in each run, so that this would be paid in each; use it in save_as only",
                    "$(run.id",
                )
            elif "$(run.date" in text:
                place = self._document.place(at)
                where = f"{self._document.name}:{place.line}"
                self._checked.notes.append(
                    f"{where}: run.date is part of a paid request; nothing of it is reused tomorrow."
                )

    def _connect(self, path: Path, step: Step, scope: Scope, model: Model) -> None:
        given: dict[str, Any] = {}
        before = len(self._problems)
        for name, value in step.with_.items():
            at = (*path, "with", name)
            param = model.find_param(name)
            found = self._value(at, value, scope)
            if param is None:
                if not model.incomplete:
                    self._say(at, f"{model.name} has no parameter {name}; {model.hint(name)}", key=True)
                continue
            if param.name in given:
                self._say(at, f"{param.name} is given twice, also as {param.key}", key=True)
            if found is not None:
                self._fit(at, value, found, param, model)
            given[param.name] = value if found is None or not has_reference(value) else types.stand_in(found, param)
        self._feed(path, step, scope, model, given)
        if len(self._problems) == before:
            self._check_values(path, step, model, given)

    def _check_values(self, path: Path, step: Step, model: Model, given: Mapping[str, Any]) -> None:
        """Has the catalogue check what is written, with stand-ins for what is referred to."""
        names = {param.name: name for name in step.with_ if (param := model.find_param(name)) is not None}
        for problem in check(model, given).problems:
            name = names.get(problem.partition(" ")[0])
            missing = problem.partition(" is missing")
            if missing[1] and " " not in missing[0]:
                problem = f"{missing[0]} is missing; {model.name} needs it"
            self._say((*path, "with", name) if name is not None else (*path, "model"), problem)

    def _fit(self, path: Path, value: Any, found: Type, param: catalog.Param, model: Model) -> None:
        if isinstance(value, str) and value in ("no", "yes", "on", "off") and _is_switch(param):
            self._say(path, f"{param.name} takes true or false; {value} is a text in YAML 1.2")
            return
        if param.type == "json":
            return
        if isinstance(value, list):
            if param.multiple:
                for n, one in enumerate(value):
                    item = self._value((*path, n), one, Scope()) if not _is_reference(one) else found.one
                    fault = types.misfit(item or Type("any"), param, _shown(one))
                    if fault:
                        self._say((*path, n), fault)
                return
            self._say(path, f"{param.name} takes one value, and this is a list")
            return
        if _is_reference(value):
            fault = self._one_for_list(value, found, param, model) or types.misfit(found, param, value)
            if fault:
                self._say(path, fault)
        elif param.is_media and value is not None:
            self._say(
                path,
                f"{param.name} takes a file of kind {param.type}, and {shown_value(value)}; name it in params, "
                f"as in {{type: {param.type}, default: …}}",
            )
        elif param.type == "enum" and found.options:
            fault = types.misfit(found, param, shown_value(value).partition(" is ")[0])
            if fault:
                self._say(path, fault)

    @staticmethod
    def _one_for_list(shown: str, found: Type, param: catalog.Param, model: Model) -> str:
        if not found.many or param.multiple or found.kind not in types.FILES or not param.is_media:
            return ""
        concat = ", or edit: concat" if param.type == "video" and found.kind == "video" else ""
        return (
            f"{model.name} takes one {param.type} for {param.name}, and {shown} is a list; use foreach: {shown}{concat}"
        )

    def _feed(self, path: Path, step: Step, scope: Scope, model: Model, given: dict[str, Any]) -> None:
        feeds: dict[str, list[int]] = {}
        for n, (at, text) in enumerate(self._from(path, step)):
            found = self._value(at, text, scope)
            if found is None or found.kind == "any":
                continue
            if not _is_reference(text):
                self._say(at, f"from takes a reference, and {shown_value(text)}; did you mean $({text})?")
                continue
            param, fault = feed(model, found.kind, {*given})
            if param is None:
                self._say(at, fault.replace("this", str(text), 1))
                continue
            fault = self._one_for_list(str(text), found, param, model)
            if fault:
                self._say(at, fault)
            feeds.setdefault(param.name, []).append(n)
            given[param.name] = types.stand_in(found, param)
        self._checked.feeds[path] = feeds

    # -- edits, other files, reviews ---------------------------------------------------------------------------------

    def _edit(self, path: Path, step: Step, scope: Scope) -> Type:
        edit = EDITS.get(str(step.edit))
        if edit is None:
            self._say((*path, "edit"), f"there is no edit {step.edit}; {nearest(str(step.edit), EDITS)}")
            self._values_of(path, step, scope)
            return Type("any")
        first = Type("any")
        for name, value in step.with_.items():
            at, param = (*path, "with", name), edit.param(name)
            found = self._value(at, value, scope)
            if param is None:
                self._say(
                    at,
                    f"{edit.name} has no parameter {name}; {nearest(name, [one.name for one in edit.params])}",
                    key=True,
                )
            elif found is not None:
                first = found if param is edit.params[0] else first
                self._fit_edit(at, value, found, param)
        for param in edit.params:
            if param.required and param.name not in step.with_:
                self._say((*path, "edit"), f"{param.name} is missing; {edit.name} needs it")
        if edit.name == "subtitles" and not {"at", "seconds"} & step.with_.keys():
            self._say((*path, "edit"), "subtitles needs at (where each text begins) or seconds (for one text)")
        kind = first.kind if edit.output == "same" else edit.output
        extra = {"starts": Type("number", many=True)} if "starts" in edit.facts else {}
        timed = (
            {name: Type(kind_) for name, kind_ in types.FACTS["audio"].items()} if kind in ("video", "audio") else {}
        )
        return Type(kind, is_result=True, extra={**extra, **timed})

    def _fit_edit(self, path: Path, value: Any, found: Type, param: Any) -> None:
        if param.takes_files and not _is_reference(value) and not isinstance(value, list):
            kinds = " or ".join(param.kinds)
            self._say(path, f"{param.name} takes a file of kind {kinds}, and {shown_value(value)}; use a reference")
            return
        wrong = types.edit_misfit(found, param, _shown(value))
        wrong = wrong or ("" if _is_reference(value) or isinstance(value, list) else _out_of_range(param, value))
        if wrong:
            self._say(path, wrong)

    def _file_below(self, path: Path, name: str) -> FilePath | None:
        """The file that a name means, below this file's folder (S4)."""
        folder = self._checked.folder
        if folder is None:
            self._say(path, f"{name} lies beside the pipeline's file, and this pipeline was not read from a file")
            return None
        real, root = (folder / name).resolve(), folder.resolve()
        if not real.is_relative_to(root):
            self._say(path, f"{name} lies outside of the folder of this file")
        elif not real.is_file():
            others = [f"./{one.name}" for one in root.glob(f"*{real.suffix}")]
            self._say(
                path, f"there is no file {name}; {nearest(name, others, none='the folder has none of this kind')}"
            )
        else:
            return real
        return None

    def _check_graph(self, path: Path, name: str) -> None:
        file = self._file_below(path, name)
        if file is None:
            return
        graph = read_graph(file)
        if graph is None:
            self._say(path, f"{name} is not a graph in API format: a JSON object of nodes, of at most 8 MiB")
        else:
            self._checked.graphs[name] = graph

    def _use(self, path: Path, step: Step, scope: Scope) -> Type:
        used = self._used((*path, "use"), str(step.use))
        if used is None:
            self._values_of(path, step, scope)
            return Type("any")
        self._checked.uses[path] = used
        params = used.file.params
        for name, value in step.with_.items():
            at = (*path, "with", name)
            found = self._value(at, value, scope)
            if name not in params:
                self._say(at, f"{step.use} has no parameter {name}; {nearest(name, params)}", key=True)
            elif found is not None:
                self._fit_param(at, value, found, params[name])
        for name, param in params.items():
            if name not in step.with_ and not param.optional and param.default is None:
                self._say((*path, "use"), f"{name} is missing; {step.use} needs it")
        return Type("object", fields=used.outputs)

    def _fit_param(self, path: Path, value: Any, found: Type, param: Param) -> None:
        wanted = types.of_param(param)
        shown = _shown(value)
        if not _is_reference(value) and param.kind not in ("table", "files", *FILE_TYPES):
            wrong = wrong_value(param, value)
        elif found.many != wanted.many and found.kind != "any":
            wrong = f"takes {wanted.words}, and {shown} is {found.words}"
        elif wanted.kind in types.FILES:
            same = found.kind in ("any", "file", wanted.kind) or wanted.kind == "file"
            same = same and (found.kind in types.FILES or found.kind == "any")
            wrong = "" if same else f"takes {wanted.words}, and {shown} is {found.words}"
        else:
            texts = {"string", "enum", "handle", "integer", "number", "boolean"}
            numbers = wanted.kind in types.NUMBERS and found.kind not in (*types.NUMBERS, "any")
            plain = wanted.kind in texts and found.kind not in texts | {"any"}
            wrong = f"takes {wanted.words}, and {shown} is {found.words}" if numbers or plain else ""
        if wrong:
            self._say(path, f"{path[-1]} {wrong}")

    def _used(self, path: Path, name: str) -> Checked | None:
        if self._depth >= DEEPEST_USE:
            self._say(path, f"files are used by files {DEEPEST_USE} deep at most")
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
            self._say(path, f"use takes ./file.yaml or rh:name, and {shown_value(name)}")
            return None
        return None if file is None else self._read_used(path, name, file)

    def _read_used(self, path: Path, name: str, file: FilePath) -> Checked | None:
        found = Problems()
        checked = None
        try:
            document = read(read_text(file), name.removeprefix("./"))
            if not isinstance(document.data, dict) or "steps" not in document.data:
                # Its lines are not shown: it may be anything that lies in the folder (S4).
                self._say(path, f"{name} is not a pipeline: it has no steps")
                return None
            checked = check_document(document, found, folder=file.parent, depth=self._depth + 1)
        except PipelineError as error:
            self._say(path, f"{name} is not a pipeline: {error.found[0].message}")
        except OSError as error:
            self._say(path, f"{name} cannot be read: {error.strerror or error}")
        for problem in found:
            self._problems.take(problem)
        return checked

    def _review(self, path: Path, step: Step, scope: Scope) -> Type:
        given = step.review if isinstance(step.review, list) else [step.review]
        found = []
        for n, text in enumerate(given):
            at = (*path, "review", n) if isinstance(step.review, list) else (*path, "review")
            if not _is_reference(text):
                self._say(at, f"review takes a reference, and {shown_value(text)}; did you mean $({text})?")
                continue
            one = self._value(at, text, scope)
            found.extend([] if one is None else [one])
            if one is not None and one.many:
                self._say(at, f"review takes one result, and {text} is a list; put the review into the group")
        kinds = {one.kind for one in found} - {"any"}
        if len(kinds) > 1:
            self._say(
                (*path, "review"),
                f"a review chooses among results of one kind, and these are {' and '.join(sorted(kinds))}",
            )
        return replace(found[0], guards=frozenset(), is_result=True) if found else Type("any")

    # -- groups ----------------------------------------------------------------------------------------------------

    def _group(self, path: Path, step: Step, scope: Scope) -> Type:
        inner = Scope(outer=scope)
        fields: dict[str, Type] = {}
        if step.matrix is not None:
            inner.names["matrix"] = self._matrix(path, step, scope)
        if step.foreach is not None:
            item = self._foreach(path, step, scope)
            fields["item"] = item
            inner.names |= {"item": item, "number": Type("integer")}
            if step.as_ is not None:
                self._check_name((*path, "as"), step.as_, scope, key=False)
                inner.names[step.as_] = item
        if step.is_fan_out:
            self._items(path, step, inner)
            fields["id"] = inner.names["id"] = Type("string")
            inner.names["previous"] = self._previous(path, step, inner)
        steps = step.steps or {}
        if not steps:
            self._say((*path, "steps"), "a group has at least one step")
        last = self._steps(steps, (*path, "steps"), inner)
        fields |= {name: last.names[name] for name in steps}
        if not step.is_fan_out:
            return Type("group", fields=fields)
        return Type("group", many=True, fields=fields)

    def _foreach(self, path: Path, step: Step, scope: Scope) -> Type:
        at = (*path, "foreach")
        if isinstance(step.foreach, str) and not _is_reference(step.foreach):
            self._say(at, f"foreach takes a list, and {shown_value(step.foreach)}; did you mean $({step.foreach})?")
            return Type("any")
        found = self._value(at, step.foreach, scope)
        if found is None or found.kind == "any":
            return Type("any")
        if not found.many:
            self._say(at, f"foreach takes a list, and {step.foreach} is {found.words}")
            return Type("any")
        return found.one

    def _items(self, path: Path, step: Step, inner: Scope) -> None:
        if step.where is not None:
            held = self._condition((*path, "where"), step.where, inner)
            inner.guards |= held
        if step.sort is not None:
            columns = inner.names.get("item", Type("any")).known_fields()
            if columns and step.sort.by not in columns:
                where = (*path, "sort", "by") if self._document.node((*path, "sort")).keys else (*path, "sort")
                self._say(where, f"an item has no {step.sort.by}; {nearest(step.sort.by, columns)}")
        self._whole((*path, "limit"), step.limit, inner)
        if step.id is not None:
            self._value((*path, "id"), step.id, inner)

    def _matrix(self, path: Path, step: Step, scope: Scope) -> Type:
        fields = {}
        for name, values in (step.matrix or {}).items():
            at = (*path, "matrix", name)
            found = self._value(at, values, scope)
            if found is not None and not found.many and found.kind != "any":
                self._say(at, f"matrix takes lists, and {name} is {found.words}")
            fields[name] = found.one if found is not None else Type("any")
        return Type("object", fields=fields)

    def _previous(self, path: Path, step: Step, inner: Scope) -> Type:
        guard = f"exists:previous@{path}"
        self._why[guard] = "the first item has no item before it"
        ahead = Scope(outer=inner)
        for name, one in (step.steps or {}).items():
            ahead.names[name] = self._ahead(one, ahead)
        return Type("object", fields=ahead.names, guards=frozenset([guard]))

    def _ahead(self, step: Step, scope: Scope) -> Type:
        """The type of what a step makes, found out before the step is checked."""
        match step.action:
            case "model":
                name = str(step.model)
                if step.parse is not None:
                    return replace(answer_type(step.parse)[0], is_result=True)
                try:
                    return Type(_kind_of(catalog.get(name).output), is_result=True)
                except UnknownModelError:
                    return Type("any")
            case "workflow" | "app" | "graph":
                claimed = step.assume.kind if step.assume is not None else None
                return Type(_kind_of(claimed), is_result=True) if claimed else Type("any")
            case "edit" if str(step.edit) in EDITS:
                output = EDITS[str(step.edit)].output
                first = next(iter(step.with_.values()), None)
                kind = self._silent_kind(first, scope) if output == "same" else output
                return Type(kind or "any", is_result=True)
            case "review" if isinstance(step.review, str):
                return Type(self._silent_kind(step.review, scope) or "any", is_result=True)
            case _:
                return Type("any")


_RUN = Type("object", fields={"date": Type("string"), "id": Type("string")})


def read_text(file: FilePath) -> str:
    """The text of a file, of which no more is read than a pipeline may have.

    Args:
        file: Its path.

    Raises:
        OSError: It cannot be read, or it is not a regular file.
    """
    if not file.is_file():  # a pipe or a device would never end
        raise FileNotFoundError(2, "there is no such file")
    with file.open("rb") as reader:
        return reader.read(MOST_BYTES + 1).decode("utf-8", "surrogateescape")


def read_graph(file: FilePath) -> dict[str, Any] | None:
    """The graph in a file; None for what is none.

    Args:
        file: Its path.
    """
    try:
        if file.stat().st_size > _MOST_GRAPH:
            return None
        graph = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_graph = isinstance(graph, dict) and all(
        isinstance(node, dict) and "class_type" in node for node in graph.values()
    )
    return graph if is_graph and graph else None


def feed(model: Model, kind: str, given: set[str]) -> tuple[catalog.Param | None, str]:
    """Which parameter of a model a file of `from` goes to.

    Args:
        model: The model.
        kind: The file's kind.
        given: The Python names of the parameters that have a value.

    Returns:
        The parameter, and why there is none.
    """
    fitting = [param for param in model.media_params if param.type == kind or kind == "file"]
    free = [param for param in fitting if param.name not in given]
    required = [param for param in free if param.required]
    if len(required) == 1:
        return required[0], ""
    if len(free) == 1:
        return free[0], ""
    if not free:
        takes = sorted({param.type for param in model.media_params})
        what = f"it takes {' and '.join(takes)}" if takes else "it takes no files"
        taken = f"; {fitting[0].name} is given already" if fitting else ""
        return None, f"{model.name} takes no {kind} for this; {what}{taken}"
    names = ", ".join(param.name for param in free)
    return None, f"{model.name} takes several files of kind {kind}: {names}; write one of them in with in place of from"


def _kind_of(output: str) -> str:
    return "string" if output == "text" else output


def _is_reference(value: Any) -> bool:
    """Whether a value is exactly one reference."""
    if not isinstance(value, str):
        return False
    try:
        return parse(value).only is not None
    except WrongReferenceError:
        return False


def has_reference(value: Any) -> bool:
    """Whether there is a reference in a value."""
    return next(iter(references_in(value)), None) is not None


def _is_switch(param: catalog.Param) -> bool:
    return param.type == "bool" or {*param.options} == {"true", "false"}


def _are_whole(options: tuple[Any, ...]) -> bool:
    return bool(options) and all(isinstance(one, int) and not isinstance(one, bool) for one in options)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value if "$(" in value else f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(one, (*path, key))


def _out_of_range(param: Any, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if (param.min is not None and value < param.min) or (param.max is not None and value > param.max):
        return f"{param.name} takes a number from {param.min:g} to {param.max:g}, not {value:g}"
    return ""


def wrong_value(param: Param, value: Any) -> str:
    """Says why a value is not one of a parameter's, as a clause; empty where it is one.

    Args:
        param: The parameter, or the column.
        value: Plain JSON data.
    """
    match param.kind:
        case "enum":
            spelled = [text_of(one) for one in param.options]
            known = text_of(value) in spelled if isinstance(value, str | int | float) else False
            return "" if known else f"takes {' or '.join(spelled)}, and {shown_value(value)}"
        case "boolean":
            return "" if isinstance(value, bool) else f"takes true or false, and {shown_value(value)}"
        case "integer" | "number":
            return _wrong_number(param, value)
        case "string":
            if not isinstance(value, str):
                return f"takes a text, and {shown_value(value)}; put it in quotes"
            least, most = param.min or 0, param.max
            if len(value) < least:
                return f"has {len(value)} characters; at least {least:g} are needed"
            return f"has {len(value)} characters; at most {most:g} are taken" if most and len(value) > most else ""
        case _:
            return ""


def _wrong_number(param: Param, value: Any) -> str:
    kind = "a whole number" if param.kind == "integer" else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"takes {kind}, and {shown_value(value)}"
    if param.kind == "integer" and value != int(value):
        return f"takes {kind}, and {value} is none"
    if param.min is not None and value < param.min:
        return f"takes {kind} from {param.min:g} on, and {value} is less"
    return (
        f"takes {kind} up to {param.max:g}, and {value} is more" if param.max is not None and value > param.max else ""
    )
