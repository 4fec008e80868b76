"""Checks paid steps: the model, the types of its connections, its parameters and rules; suggests models."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model
from rh_prefect.catalog.validation import check
from rh_prefect.errors import InputError, UnknownModelError
from rh_prefect.pipelines import types
from rh_prefect.pipelines.check.check_result import read_graph
from rh_prefect.pipelines.check.literals import has_reference, is_reference, is_switch, kind_of, shown, texts_in
from rh_prefect.pipelines.check.values import ValueCheck
from rh_prefect.pipelines.document import Path, nearest, visible
from rh_prefect.pipelines.file_model import GraphStep, ModelStep, PaidStep, shown_value
from rh_prefect.pipelines.parsed_answers import answer_type
from rh_prefect.pipelines.references import parse
from rh_prefect.pipelines.types import Type
from rh_prefect.pipelines.visible_names import Scope, resolve
from rh_prefect.works.requests.graph_fields import GraphFields, is_link_text


class PaidCheck(ValueCheck):
    """Checks models, workflows, apps and graphs."""

    def _model_kind(self, path: Path, step: ModelStep, scope: Scope) -> str:
        text = step.model
        if "$(" not in text:
            model = self._model(path, text, step, scope)
            if model is None:
                self._values_of(path, step, scope)
                for at, source in self._from(path, step):
                    self._value(at, source, scope)
                return "any"
            self._connect(path, step, scope, model)
            return kind_of(model.output)
        found = self._value((*path, "model"), text, scope)
        values = {name: self._value((*path, "with", name), value, scope) for name, value in step.with_.items()}
        for at, source in self._from(path, step):
            self._value(at, source, scope)
        named = [self._model(path, str(name), step, scope) for name in (found.options if found is not None else ())]
        models = [model for model in named if model is not None]
        if len(models) == len(named):
            self._connect_options(path, step, models, values)
        kinds = {kind_of(model.output) for model in models}
        if len(kinds) > 1:
            self._say(
                (*path, "model"),
                f"all models of {text} must make one kind, and these make {' and '.join(sorted(kinds))}",
            )
        return next(iter(kinds), "any")

    def _connect_options(
        self, path: Path, step: ModelStep, models: Sequence[Model], values: Mapping[str, Type | None]
    ) -> None:
        """Checks the parameters of a step whose model is a reference, with all models that it can name.

        What only some of them have is left out for the others.
        """
        any_of = models or [model for model in catalog.models() if not model.incomplete]
        for name, value in step.with_.items():
            at = (*path, "with", name)
            params = [(model, model.find_param(name)) for model in any_of]
            if not any(param is not None or model.incomplete for model, param in params):
                names = list(dict.fromkeys(param.name for model in any_of for param in model.params))
                is_near = models or get_close_matches(name, names, n=1, cutoff=_LIKE)
                hint = f"; {nearest(name, names)}" if is_near else ""
                self._say(at, f"no model that {step.model} can be has a parameter {name}{hint}", key=True)
                continue
            if wrong := next(filter(None, (misspelt(model, name, step.with_) for model in models)), ""):
                self._say(at, wrong, key=True)
            found, before = values[name], self._problem_count
            for model, param in params if models and found is not None else ():
                if param is not None and param.is_media and self._problem_count == before:
                    self._fit(at, value, found or Type("any"), param, model)

    def _model(self, path: Path, name: str, step: ModelStep, scope: Scope) -> Model | None:
        try:
            return catalog.get(name)
        except UnknownModelError:
            kinds = [self._silent_kind(text, scope) for text in step.sources]
            self._say((*path, "model"), no_such_model(name, kinds))
            return None

    def _assumed_kind(self, path: Path, step: GraphStep) -> str:
        kind = step.assume.kind if step.assume is not None else None
        if kind is None:
            what = "graph" if step.action == "graph" else f"the {step.action}"
            problem = f"no catalogue knows what {what} makes; write assume: {{kind: image}} (or video, audio, 3d, text)"
            self._say((*path, step.action), problem)
        if step.action == "graph":
            self._check_graph((*path, "graph"), str(step.graph), step)
        return kind_of(kind) if kind else "any"

    def _file_below(self, path: Path, name: str) -> FilePath | None:
        """Returns the path of a file below this file's folder; reports a name outside of it."""
        folder = self._checked.folder
        if folder is None:
            self._say(
                path, f"{visible(name)} lies beside the pipeline's file, and this pipeline was not read from a file"
            )
            return None
        try:
            real, root = (folder / name).resolve(), folder.resolve()
            is_file = real.is_file()
        except (OSError, ValueError):  # a name that no file can have
            self._say(path, f"{visible(name)[:80]} cannot be the name of a file")
            return None
        if not real.is_relative_to(root):
            self._say(path, f"{name} lies outside of the folder of this file")
        elif not is_file:
            others = [f"./{one.name}" for one in root.glob(f"*{real.suffix}")]
            self._say(
                path, f"there is no file {name}; {nearest(name, others, none='the folder has none of this kind')}"
            )
        else:
            return real
        return None

    def _check_graph(self, path: Path, name: str, step: GraphStep) -> None:
        file = self._file_below(path, name)
        if file is None:
            return
        graph = read_graph(file)
        if graph is None:
            self._say(path, f"{name} is not a graph in API format: a JSON object of nodes, of at most 8 MiB")
        else:
            self._checked.graphs[name] = graph
            for where, clause in wrong_fields(graph, name, step.with_):
                self._say((*path[:-1], *where), clause, key=True)

    def _paid(self, path: Path, step: PaidStep, scope: Scope, kind: str) -> Type:
        if isinstance(step, GraphStep):
            self._values_of(path, step, scope)
            several = (name for name, value in step.with_.items() if isinstance(value, list | dict))
            for name in several:
                self._say((*path, "with", name), f"{name} takes one value, and several are given")
        self._check_paid(path, step, scope)
        if step.parse is None:
            return Type(kind, is_result=True)
        is_text = kind in ("string", "any")
        if not is_text:
            self._say(
                (*path, "parse"),
                f"parse reads a text, and {step.get('model') or step.action} makes {Type(kind).words}",
                key=True,
            )
        found, wrong = answer_type(step.parse)
        for at, message in wrong:
            self._say((*path, "parse", *at), message)
        self._whole((*path, "parse", "at_most"), step.parse.at_most, scope)
        return replace(found, is_result=True) if is_text else Type("any")

    def _check_paid(self, path: Path, step: PaidStep, scope: Scope) -> None:
        self._whole((*path, "takes"), step.takes, scope)
        if step.assume is not None and isinstance(step.assume.seconds, str):
            self._value((*path, "assume", "seconds"), step.assume.seconds, scope)
        for at, text in texts_in(step.with_, (*path, "with")):
            node = self._document.node(at)
            plain_text = node.is_plain and isinstance(node.value, str) and not is_reference(node.value)
            if plain_text and node.comment:
                key = next(part for part in reversed(at) if isinstance(part, str))
                self._say(at, f"'{node.comment}' is a comment here and is not part of {key}; put the text in quotes")
            text = text.replace("$$(", "")  # a literal
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
                    f"{where}: run.date is part of a paid request; its result will not be reused on another day."
                )

    def _connect(self, path: Path, step: ModelStep, scope: Scope, model: Model) -> None:
        params, left_out = dict[str, Any](), set[str]()
        before = self._problem_count
        for name, value in step.with_.items():
            at = (*path, "with", name)
            if name == "unchecked":
                params[name] = self._unchecked(at, value, scope, model)
                continue
            param = model.find_param(name)
            is_optional = param is not None and _can_be_left_out(param) and self._is_left_out(value, scope)
            found = self._value(at, value, scope, may_be_absent=is_optional)
            if param is None:
                more = (
                    "; RunningHub publishes only some of them; unchecked: {…} takes others" if model.incomplete else ""
                )
                self._say(at, f"{model.name} has no parameter {name}; {model.hint(name)}{more}", key=True)
                continue
            if param.name in params:
                self._say(at, f"{param.name} is given twice: under this name and as {param.key}", key=True)
            if found is not None:
                self._fit(at, value, found, param, model)
            params[param.name] = value if found is None or not has_reference(value) else types.stand_in(found, param)
            if is_optional:
                left_out.add(param.name)
        is_fed = self._feed(path, step, scope, model, params)
        if self._problem_count == before:
            self._check_values(path, step, model, params, left_out, is_fed=is_fed)

    def _is_left_out(self, value: Any, scope: Scope) -> bool:
        """Returns whether a value is one optional parameter or cell: without it, an optional parameter is left out."""
        if not is_reference(value):
            return False
        guards = resolve(parse(value).references[0], scope).type.guards
        return bool(guards) and all(one.startswith(DECLARED) for one in guards)

    def _unchecked(self, at: Path, value: Any, scope: Scope, model: Model) -> Mapping[str, Any]:
        """Checks the references in `unchecked`, whose parameters are sent as they are, except that files are files."""
        if not isinstance(value, Mapping):
            self._say(at, f"unchecked takes a mapping of parameters, and this is {shown_value(value)}")
            return {}
        for name, one in value.items():
            found, param = self._value((*at, name), one, scope), model.find_param(name)
            if param is not None and param.is_media and found is not None:
                self._fit((*at, name), one, found, param, model)
        return value

    def _check_values(
        self,
        path: Path,
        step: ModelStep,
        model: Model,
        params: Mapping[str, Any],
        left_out: Collection[str],
        *,
        is_fed: bool,
    ) -> None:
        """Checks the written values with the catalogue; stand-ins replace the references.

        With values that can be left out, only what is wrong with and without them is wrong for all items.
        """
        names = {param.name: name for name in step.with_ if (param := model.find_param(name)) is not None}
        given = {name: value for name, value in params.items() if name != "unchecked"}
        unchecked = params.get("unchecked", {})
        names |= {param.name: "unchecked" for name in unchecked if (param := model.find_param(name)) is not None}
        by_name = {param.name if (param := model.find_param(name)) else name: one for name, one in unchecked.items()}
        for twice in given.keys() & by_name.keys():
            wrong = f"{twice} is given twice: as a parameter and in unchecked"
            self._say((*path, "with", "unchecked"), wrong, key=True)
        values = {**given, **by_name}
        without = {name: value for name, value in values.items() if name not in left_out}
        always = {*check(model, without, unchecked=by_name).problems} if left_out else None
        for problem in check(model, values, unchecked=by_name).problems:
            if always is not None and problem not in always:
                continue
            name = names.get(problem.partition(" ")[0])
            missing = problem.partition(" is missing")
            lacks = missing[0] if missing[1] and " " not in missing[0] else ""
            if not is_fed and name is None and self._names_file(model, problem):
                continue  # `from` may give what is missing
            if lacks:
                problem = f"{missing[0]} is missing; {model.name} needs it"
            self._say((*path, "with", name) if name is not None else (*path, "model"), problem)

    @staticmethod
    def _names_file(model: Model, problem: str) -> bool:
        words = set(re.findall(r"\w+", problem))
        return any(words & {param.name, param.key} for param in model.file_params)

    def _fit(self, path: Path, value: Any, found: Type, param: catalog.Param, model: Model) -> None:
        if isinstance(value, str) and value in ("no", "yes", "on", "off") and is_switch(param):
            self._say(path, f"{param.name} takes true or false; {value} is a text in YAML 1.2")
            return
        if param.type == "json":
            return
        if isinstance(value, list):
            if param.multiple:
                for at, one, type_ in self._items_in(path, value, found):
                    fault = types.misfit(type_, param, shown(one))
                    if fault:
                        self._say(at, fault)
                return
            self._say(path, f"{param.name} takes one value, and this is a list")
            return
        if is_reference(value):
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
        if not found.many or param.multiple or not param.is_media:
            return ""
        if not all(one.kind in ("any", *types.FILES) for one in found.possible):
            return ""  # no file is among the right ones
        concat = ", or edit: concat" if param.type == "video" and found.kind == "video" else ""
        return (
            f"{model.name} takes one {param.type} for {param.name}, and {shown} is a list; use foreach: {shown}{concat}"
        )

    def _feed(self, path: Path, step: ModelStep, scope: Scope, model: Model, params: dict[str, Any]) -> bool:
        """Adds the values of `from` to `params`, each under its parameter; returns whether each kind is known."""
        is_known = True
        for at, text in self._from(path, step):
            found = self._value(at, text, scope)
            if found is None or found.kind == "any":
                is_known = False
                continue
            if not is_reference(text):
                self._say(at, f"from takes a reference, and {shown_value(text)}; did you mean $({text})?")
                continue
            if found.kind == "mixed":
                self._say(at, f"from takes files of one kind, and {text} can be {found.one.words}")
                continue
            param, fault = feed(model, found.kind, {*params})
            if param is None:
                self._say(at, fault.replace("this", str(text), 1))
                continue
            fault = self._one_for_list(str(text), found, param, model)
            if fault:
                self._say(at, fault)
            params[param.name] = types.stand_in(found, param)
        return is_known


def feed(model: Model, kind: str, present_names: set[str]) -> tuple[catalog.Param | None, str]:
    """Returns the parameter of a model that receives a file given in `from`.

    Args:
        model: The model.
        kind: The file's kind.
        present_names: The Python names of the parameters that have a value.

    Returns:
        The parameter, and why there is none.
    """
    fitting, free = list[catalog.Param](), list[catalog.Param]()
    for files in model.feeds:
        fitting = [param for param, _ in files if kind in (param.form.type, "file")]
        free = [param for param in fitting if param.name not in present_names]
        required = [param for param, is_required in files if is_required and param in free]
        if len(required) == 1:
            return required[0], ""
        if len(free) == 1:
            return free[0], ""
    if not free:
        takes = sorted({param.type for param in model.media_params})
        what = f"it takes {' and '.join(takes)}" if takes else "it takes no files"
        taken = f"; {fitting[0].name} is already set" if fitting else ""
        return None, f"{model.name} takes no {kind} for this; {what}{taken}"
    names = ", ".join(param.name for param in free)
    return None, f"{model.name} takes several files of kind {kind}: {names}; write one of them in with in place of from"


def _can_be_left_out(param: catalog.Param) -> bool:
    return not param.required or param.default is not None


DECLARED = "exists:params"
"""Begins the condition of a parameter or a column that is declared as optional."""

_LIKE = 0.8
"""From which similarity on a parameter that a model lacks is a misspelt one of its own."""


def misspelt(model: Model, name: str, given: Iterable[str]) -> str:
    """Returns a message about a parameter that a model lacks, if its name is nearly that of one which is not given.

    Args:
        model: The model, one of several that a step can call.
        name: The parameter.
        given: The names of all parameters that the step gives.
    """
    if model.incomplete or model.find_param(name) is not None:
        return ""
    own = {param.name for one in given if (param := model.find_param(one)) is not None}
    near = get_close_matches(name.lower(), [param.name for param in model.params], n=3, cutoff=_LIKE)
    return f"{model.name} has no parameter {name}; {model.hint(name)}" if near and own.isdisjoint(near) else ""


def wrong_fields(graph: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Returns the set fields that a step's graph lacks, that are connected to another node, or are links for a file.

    Args:
        graph: In API format.
        name: What messages call it.
        values: What is set, by `<node id>.<field>`.
    """
    fields, found = GraphFields(graph, name), list[tuple[Path, str]]()
    for one, value in values.items():
        node, _, field = one.partition(".")
        try:
            fields.check(node, field, "")
        except InputError as error:
            found.append((("with", one), re.sub(r"[.;] [Nn]othing was sent\.$", "", error.message)))
            continue
        if fields.takes_file(node, field) and is_link_text(value):
            found.append(
                (("with", one), f"{one} takes a file, and {shown_value(value)}; a text is never used as a link")
            )
    return found


_MOST_SUGGESTED = 5


def no_such_model(name: str, kinds: Sequence[str] = ()) -> str:
    """Builds the message for an unknown model name, with the closest names.

    Args:
        name: The wrong name.
        kinds: The kinds of the files that it is given, where these are known.
    """
    taken = [kind for kind in kinds if kind in ("image", "video", "audio")]
    among = f"of the models that take {' and '.join(f'one {kind}' for kind in taken)} the" if taken else "the"
    near = _nearest(name, taken)
    return f"there is no model {name}; {among} nearest are {', '.join(map(_described, near))}"


def _nearest(name: str, kinds: Sequence[str]) -> list[Model]:
    by_words = [model for model in catalog.find(name) if _takes(model, kinds)]
    by_letters = [catalog.get(one) for one in catalog.nearest(name, limit=60)]
    found = [*by_words, *(model for model in by_letters if _takes(model, kinds))]
    return list(dict.fromkeys(found))[:_MOST_SUGGESTED]


def _takes(model: Model, kinds: Sequence[str]) -> bool:
    """Returns whether a model takes one file of each kind, and requires no other file."""
    one = [param.type for param in model.media_params if not param.multiple]
    needed = [param.type for param in model.media_params if param.required]
    return all(kind in one for kind in kinds) and (not kinds or sorted(needed) in ([], sorted(kinds)))


def _described(model: Model) -> str:
    return f"{model.name} ({model.output}, {model.price or 'price unknown'})"
