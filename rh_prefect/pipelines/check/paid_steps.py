"""Checks paid steps: the model, the types of its inputs, its parameters and rules; suggests models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model
from rh_prefect.errors import InputError, UnknownModelError
from rh_prefect.pipelines.check.checked_file import read_graph
from rh_prefect.pipelines.check.values import ValueCheck
from rh_prefect.pipelines.file_model import GraphStep, ModelStep, PaidStep, Parse, shown_value
from rh_prefect.pipelines.model_arguments import LIKE, Bound, Fault
from rh_prefect.pipelines.parsed_answers import answer_type
from rh_prefect.pipelines.parsed_document import Path, nearest, visible
from rh_prefect.pipelines.references import is_reference, references_in, texts_in
from rh_prefect.pipelines.types import Type, kind_of
from rh_prefect.pipelines.visible_names import NameScope
from rh_prefect.works.runninghub.graph_request import GraphFields, is_link_text


class PaidCheck(ValueCheck):
    """Checks models, workflows, apps and graphs."""

    def _model_kind(self, path: Path, step: ModelStep, scope: NameScope) -> str:
        text = step.model
        if "$(" not in text:
            model = self._model(path, text, step, scope)
            self._connect(path, step, scope, *([] if model is None else [model]), is_complete=model is not None)
            return "any" if model is None else kind_of(model.output)
        found = self._value((*path, "model"), text, scope)
        named = [self._model(path, str(name), step, scope) for name in found.options]
        models = [model for model in named if model is not None]
        self._connect(path, step, scope, *models, is_complete=len(models) == len(named))
        kinds = {kind_of(model.output) for model in models}
        if len(kinds) > 1:
            wrong = f"all possible models of {text} must make results of one kind, but these models make "
            self._say((*path, "model"), wrong + " and ".join(sorted(kinds)))
        return next(iter(kinds), "any")

    def _model(self, path: Path, name: str, step: ModelStep, scope: NameScope) -> Model | None:
        try:
            return catalog.get(name)
        except UnknownModelError:
            kinds = [self._silent(text, scope).kind for _, text in step.sources]
            self._say((*path, "model"), no_such_model(name, kinds))
            return None

    def _assumed_kind(self, path: Path, step: GraphStep) -> str:
        kind = step.assume.kind if step.assume is not None else None
        if kind is None:
            remedy = "write assume: {kind: image} (or video, audio, 3d, text)"
            self._say((*path, step.action), f"the catalogue does not say what the {step.action} makes; {remedy}")
        if step.action == "graph":
            self._check_graph((*path, "graph"), str(step.graph), step)
        return kind_of(kind) if kind else "any"

    def _file_below(self, path: Path, name: str) -> FilePath | None:
        """Returns the path of an existing file below this file's folder; reports any other name and returns None."""
        folder = self._checked.folder
        if folder is None:
            relative = f"{visible(name)} is relative to the pipeline's file"
            self._say(path, f"{relative}, but this pipeline was not read from a file")
            return None
        try:
            real, root = (folder / name).resolve(), folder.resolve()
            is_file = real.is_file()
        except (OSError, ValueError):  # a name that no file can have
            self._say(path, f"{visible(name)[:80]} cannot be the name of a file")
            return None
        if not real.is_relative_to(root):
            self._say(path, f"{name} is outside the folder of this file; move it into this folder")
        elif not is_file:
            others = [f"./{one.name}" for one in root.glob(f"*{real.suffix}")]
            hint = nearest(name, others, none="the folder has none of this kind")
            self._say(path, f"there is no file {name}; {hint}")
        else:
            return real
        return None

    def _check_graph(self, path: Path, name: str, step: GraphStep) -> None:
        file = self._file_below(path, name)
        if file is None:
            return
        graph = read_graph(file)
        if graph is None:
            self._say(path, f"{name} is not a graph in API format; such a graph is a JSON object of nodes, up to 8 MiB")
        else:
            self._checked.graphs[name] = graph
            for where, clause in wrong_fields(graph, name, step.with_):
                self._say((*path[:-1], *where), clause, key=True)

    def _paid(self, path: Path, step: PaidStep, scope: NameScope, kind: str) -> Type:
        if isinstance(step, GraphStep):
            self._values_of(path, step, scope)
            several = (name for name, value in step.with_.items() if isinstance(value, list | dict))
            for name in several:
                self._say((*path, "with", name), f"{name} takes one value, but several are given")
        self._check_paid(path, step, scope)
        if step.parse is None:
            return Type(kind, is_result=True)
        is_text = kind in ("string", "any")
        if not is_text:
            what = step.get("model") or step.action
            self._say((*path, "parse"), f"parse reads text, but {what} makes {Type(kind).words}", key=True)
        is_right = self._check_answer((*path, "parse"), step.parse)
        self._whole((*path, "parse", "at_most"), step.parse.at_most, scope)
        return replace(answer_type(step.parse), is_result=True) if is_text and is_right else Type("any")

    def _check_answer(self, path: Path, parse: Parse) -> bool:
        """Returns whether the keys of `parse` are compatible with each other; reports a problem otherwise."""
        before, shapes = self._problem_count, parse.model_dump(include={"text", "object", "list"}, exclude_none=True)
        if len(shapes) != 1:
            self._say(path, "parse takes exactly one of text, object and list")
        elif parse.list is not None and parse.at_most is None:
            self._say((*path, "list"), "a list needs at_most, so that the plan can compute a price")
        elif parse.list is None and parse.at_most is not None:
            self._say((*path, "at_most"), "at_most is allowed only with list")
        return self._problem_count == before

    def _check_paid(self, path: Path, step: PaidStep, scope: NameScope) -> None:
        self._whole((*path, "takes"), step.takes, scope)
        if step.assume is not None and isinstance(step.assume.seconds, str):
            self._value((*path, "assume", "seconds"), step.assume.seconds, scope)
        for at, _ in texts_in(step.with_, (*path, "with")):
            node = self._document.node(at)
            plain_text = node.is_plain and isinstance(node.value, str) and not is_reference(node.value)
            if plain_text and node.comment:
                key = next(part for part in reversed(at) if isinstance(part, str))
                self._say(at, f"'{node.comment}' is a comment here and is not part of {key}; put the text in quotes")
        for within, reference in references_in(step.with_):
            if any(names[:2] == ("run", "date") for names in reference.options):
                again = "run.date is part of a paid request; its result will not be reused on another day"
                self._note((*path, "with", *within), again)

    def _connect(self, path: Path, step: ModelStep, scope: NameScope, *models: Model, is_complete: bool = True) -> None:
        """Checks the arguments of a step against the parameters of each model that the step can call."""
        before, values = self._problem_count, dict[Path, Type]()

        def evaluate(at: Path, written: Any, is_optional: bool) -> Type:
            # A value that is only a reference to an optional parameter or column can be left out.
            guards = self._silent(written, scope).guards
            may_be_absent = is_optional and bool(guards) and all(one.startswith(DECLARED) for one in guards)
            if at not in values:
                values[at] = self._value((*path, *at), written, scope, may_be_absent=may_be_absent)
            return values[at]

        bounds = [Bound(step, model, evaluate) for model in models if is_complete]
        self._values_of(path, step, scope, skip=values)
        unknown = self._check_names(path, step, models) if "$(" in step.model and is_complete else []
        for bound in bounds:
            self._say_faults(path, bound, [one for one in bound.faults if one.at not in unknown])
        if self._problem_count == before:
            for bound in bounds:
                self._say_faults(path, bound, bound.check_values()[1])

    def _check_names(self, path: Path, step: ModelStep, models: Sequence[Model]) -> list[Path]:
        """Reports and returns parameters that none of the possible models has."""
        unknown = list[Path]()
        any_of = models or [model for model in catalog.models() if not model.incomplete]
        for name in step.with_:
            if not any(model.find_param(name) is not None or model.incomplete for model in any_of):
                names = list(dict.fromkeys(param.name for model in any_of for param in model.params))
                is_near = models or get_close_matches(name, names, n=1, cutoff=LIKE)
                hint = f"; {nearest(name, names)}" if is_near else ""
                wrong = f"none of the possible models of {step.model} has a parameter {name}{hint}"
                self._say((*path, "with", name), wrong, key=True)
                unknown.append(("with", name))
        return unknown

    def _say_faults(self, path: Path, bound: Bound, faults: Iterable[Fault]) -> None:
        for at, message, is_key in faults:
            is_named = bound.model.name in message or not bound.is_choice
            self._say((*path, *at), message if is_named else f"{bound.model.name}: {message}", key=is_key)


def wrong_fields(graph: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Returns a clause for each field that the graph lacks, that another node sets, or that gets a link for a file."""
    fields, found = GraphFields(graph, name), list[tuple[Path, str]]()
    for one, value in values.items():
        node, _, field = one.partition(".")
        try:
            fields.check(node, field, "")
        except InputError as error:
            found.append((("with", one), re.sub(r"\. Nothing was sent\. What to do: (.*)\.$", r"; \1", error.message)))
            continue
        if fields.takes_file(node, field) and is_link_text(value):
            wrong = f"{one} takes a file, but {shown_value(value)}; a string is not read as a link to a file"
            found.append((("with", one), wrong))
    return found


DECLARED = "exists:params"
"""The beginning of each guard (see `Type.guards`) of an optional parameter or column."""

_MOST_SUGGESTED = 5


def no_such_model(name: str, kinds: Sequence[str] = ()) -> str:
    """Returns the message for an unknown model name, with the closest names."""
    taken = [kind for kind in kinds if kind in ("image", "video", "audio")]
    among = f"of the models that take {' and '.join(f'one {kind}' for kind in taken)}, the" if taken else "the"
    near = _nearest(name, taken)
    verb = "is" if len(near) == 1 else "are"
    return f"there is no model {name}; {among} nearest {verb} {', '.join(map(_described, near))}"


def _nearest(name: str, kinds: Sequence[str]) -> list[Model]:
    by_words = [model for model in catalog.find(name) if _takes(model, kinds)]
    by_letters = [catalog.get(one) for one in catalog.nearest(name, limit=60)]
    found = [*by_words, *(model for model in by_letters if _takes(model, kinds))]
    return list(dict.fromkeys(found))[:_MOST_SUGGESTED]


def _takes(model: Model, kinds: Sequence[str]) -> bool:
    """Returns whether a model accepts one file of each kind, and requires no other file."""
    one = [param.type for param in model.media_params if not param.multiple]
    needed = [param.type for param in model.media_params if param.required]
    return all(kind in one for kind in kinds) and (not kinds or sorted(needed) in ([], sorted(kinds)))


def _described(model: Model) -> str:
    return f"{model.name} ({model.output}, {model.price or 'price unknown'})"
