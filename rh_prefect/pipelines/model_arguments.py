"""Binds the arguments of a step to the parameters of its model; `check` binds types, and a plan binds values.

`check` and a plan use the same messages; a plan reports only problems that the types did not reveal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import inf
from typing import Any, NamedTuple, TypeAlias

from rh_prefect.catalog import input_validation
from rh_prefect.catalog.descriptions import example_of
from rh_prefect.catalog.model import Model, Param
from rh_prefect.pipelines import types
from rh_prefect.pipelines.evaluation import named, type_of
from rh_prefect.pipelines.file_model import ModelStep, shown_value, value_words
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import ABSENT, File, Unknown, characters
from rh_prefect.pipelines.references import has_reference, is_reference, shown
from rh_prefect.pipelines.types import PLAIN, Type

Evaluate: TypeAlias = Callable[[Path, Any, bool], Any]
"""Evaluates the value in the file at a path below the step: returns a value, or a `Type` if only the type is known.

The last argument says whether an absent value omits the parameter.
"""

LIKE = 0.8
"""Minimum similarity of a misspelt parameter to a parameter of the model."""

_LINK = "https://stand-in.invalid/file"


class Fault(NamedTuple):
    """A wrong argument: its path below the step, a message, and whether the message concerns the key."""

    at: Path
    message: str
    is_key: bool = False


@dataclass(slots=True)
class Bound:
    """The arguments of a step, assigned to the parameters of its model."""

    step: ModelStep
    model: Model
    evaluate: Evaluate
    values: dict[str, Any] = field(default_factory=dict)  # Values and types, by the Python names of the parameters
    unchecked: dict[str, Any] = field(default_factory=dict)  # Those below `unchecked`, which are sent unchanged
    written: dict[str, Any] = field(default_factory=dict)  # The same values, as written in the file
    faults: list[Fault] = field(default_factory=list)  # What is wrong with them
    notes: list[str] = field(default_factory=list)  # What is worth knowing
    is_fed: bool = True  # Whether it is known which parameter each file of `from` is for
    left_out: set[str] = field(default_factory=set)  # Parameters that are left out if an optional value is absent

    def __post_init__(self) -> None:
        """Binds all arguments."""
        for name, written in self.step.with_.items():
            if name == "unchecked":
                self._bind_unchecked(("with", name), written)
            else:
                self._bind(("with", name), name, written)
        for name in self.unchecked.keys() & self.values.keys():
            self._say(("with", "unchecked"), f"{name} is given twice: as a parameter and in unchecked", key=True)
        for at, text in self.step.sources:
            self._feed(at, text)

    @property
    def all(self) -> dict[str, Any]:
        """All values by the names of their parameters, including values below `unchecked`."""
        return self.values | self.unchecked

    @property
    def is_choice(self) -> bool:
        """Whether the step calls one of several models, each of which may have its own parameters."""
        return "$(" in self.step.model

    def _say(self, at: Path, message: str, *, key: bool = False) -> None:
        """Adds a fault; an empty message adds nothing."""
        if message:
            self.faults.append(Fault(at, message, key))

    def _bind(self, at: Path, name: str, written: Any) -> None:
        param = self.model.find_param(name)
        is_optional = param is not None and (not param.required or param.default is not None)
        value = self.evaluate(at, written, is_optional)
        if param is None:
            self._bind_unknown(at, name)
        elif self.is_choice and param.name in self.model.added and not param.required:
            # Earlier runs have paid for this step without the parameter; with it, the request would be another one.
            self.notes.append(
                f"a refresh of the catalogue has added {name} to {self.model.name}; the parameter is not sent to this "
                "model. To send it, name this model in a separate step."
            )
        elif value is not ABSENT:
            twice = f"{param.name} is given twice: under this name and as {param.key}"
            self._say(at, twice if param.name in self.values else "", key=True)
            self._fit(at, written, value, param)
            self.values[param.name], self.written[param.name] = value, written
            if is_optional and isinstance(value, Type) and value.guards:
                self.left_out.add(param.name)

    def _bind_unknown(self, at: Path, name: str) -> None:
        model = self.model
        if not self.is_choice:
            more = "; RunningHub publishes only some of its parameters; unchecked: {…} takes others"
            hint = f"{model.hint(name)}{more if model.incomplete else ''}"
            self._say(at, f"{model.name} has no parameter {name}; {hint}", key=True)
        elif wrong := misspelt(model, name, self.step.with_):
            self._say(at, wrong)
        else:
            self.notes.append(f"{model.name} has no {name}; the parameter is not sent to this model.")

    def _bind_unchecked(self, at: Path, written: Any) -> None:
        """Binds the values of `unchecked`; they are sent unchanged, except files."""
        if not isinstance(written, Mapping):
            self._say(at, f"unchecked takes a mapping of parameters, but {shown_value(written)}")
            return
        for name, one in written.items():
            if one is None:
                self._say((*at, name), f"{name} has no value; write a value, or remove the key", key=True)
            value, param = self.evaluate((*at, name), one, False), self.model.find_param(name)
            if value is ABSENT:
                continue
            if param is not None and param.is_media:
                self._fit((*at, name), one, value, param)
            elif param is None and any(isinstance(each, File) for each in _each(value)):
                self._say(at, f"{name} is a file, but {self.model.name} has no file parameter of this name")
            key = name if param is None else param.name
            self.unchecked[key], self.written[key] = value, one

    def _feed(self, at: Path, written: str) -> None:
        """Binds a file in `from` to a parameter."""
        value = self.evaluate(at, written, False)
        wrong = [one for one in _each(value) if not isinstance(value, Type) and type_of(one).kind in PLAIN]
        found = type_of(value)
        if value is ABSENT or (value == [] and not isinstance(value, Type)):
            return
        if wrong:
            what = f"{named(wrong[0], written)} is {type_of(wrong[0]).words}"
            self._say(at, f"from takes files, but {what}; a string is not read as a link to a file")
        elif found.kind == "any":
            self.is_fed = False
        elif not is_reference(written):
            self._say(at, f"from takes a reference, but {shown_value(written)}; did you mean $({written})?")
        elif found.kind == "mixed":
            self._say(at, f"from takes files of one kind, but {written} can be {found.one.words}")
        else:
            param, fault = feed(self.model, found.kind, self.values.keys())
            self._say(at, fault.replace("this", written, 1))
            if param is not None:
                if found.many and not param.multiple:
                    self._say(at, types.misfit(found, param, written))
                self.values[param.name], self.written[param.name] = value, written

    def _fit(self, at: Path, written: Any, value: Any, param: Param) -> None:
        """Adds a fault if a value does not fit a parameter."""
        if param.type == "json" or (self.is_choice and not param.is_media and has_reference(written)):
            return  # of several models, each may have its own values
        if not isinstance(value, Type):
            # The catalogue checks known values; here only files and texts are distinguished.
            for one in _each(value):
                if param.is_media or isinstance(one, File):
                    self._say(at, types.misfit(type_of(one), param, named(one, written)))
        elif isinstance(written, list) and param.multiple:
            for here, one, type_ in items_in(self._say, at, written, value):
                self._say(here, types.misfit(type_, param, shown(one)))
        elif isinstance(written, list):
            self._say(at, f"{param.name} takes one value, but this is a list")
        elif isinstance(written, str) and written in ("no", "yes", "on", "off") and _is_switch(param):
            self._say(at, f"{param.name} takes true or false; {written} is a string in YAML 1.2")
        elif is_reference(written):
            self._say(at, types.misfit(value, param, written))
        elif param.is_media and written is not None:
            wrong = f"{param.name} takes a file of kind {param.type}, but {shown_value(written)}; name it in `params`, "
            self._say(at, f"{wrong}as in {{type: {param.type}, default: …}}")
        elif param.type == "enum" and value.options:
            self._say(at, types.misfit(value, param, value_words(written)))

    def check_values(self) -> tuple[input_validation.InputCheck, list[Fault]]:
        """Checks the values against the catalogue; placeholders replace unknown values."""
        stand_ins = {name: self._stand_in(name, value) for name, value in self.all.items()}
        found = input_validation.check(self.model, stand_ins, unchecked=self.unchecked)
        if self.left_out:  # then only what is wrong with and without these values is wrong for all items
            without = {name: value for name, value in stand_ins.items() if name not in self.left_out}
            always = input_validation.check(self.model, without, unchecked=self.unchecked).problems
            found = replace(found, problems=[one for one in found.problems if one in always])
        return found, [fault for problem in found.problems for fault in self._faults_of(problem)]

    def _stand_in(self, name: str, value: Any) -> Any:
        written = self.written[name]
        is_literal = isinstance(value, Type) and not has_reference(written)
        return written if is_literal else _stand_in(value, self.model.find_param(name))

    def _faults_of(self, problem: str) -> Iterator[Fault]:
        """Yields a problem of the catalogue with its place in the step."""
        own = {param.name: name for name in self.step.with_ if (param := self.model.find_param(name)) is not None}
        own |= dict.fromkeys(self.unchecked, "unchecked")
        about, (lacks, is_missing, _) = problem.partition(" ")[0], problem.partition(" is missing")
        files = {name for param in self.model.file_params for name in (param.name, param.key)}
        if about not in own and not self.is_fed and not files.isdisjoint(re.findall(r"\w+", problem)):
            return  # `from` may give what is missing
        if is_missing and " " not in lacks:
            problem = f"{lacks} is missing; {self.model.name} needs it"
        at = ("with", own[about]) if about in own else ("from",) if about in self.values else ("model",)
        yield Fault(at, problem)


def misspelt(model: Model, name: str, given: Iterable[str]) -> str:
    """Returns a message about an unknown parameter if its name is similar to a parameter that is not given."""
    if model.incomplete:
        return ""
    own = {param.name for one in given if (param := model.find_param(one)) is not None}
    near = get_close_matches(name.lower(), [param.name for param in model.params], n=3, cutoff=LIKE)
    return f"{model.name} has no parameter {name}; {model.hint(name)}" if near and own.isdisjoint(near) else ""


def items_in(
    say: Callable[[Path, str], object], at: Path, written: list[Any], found: Type
) -> Iterator[tuple[Path, Any, Type]]:
    """Yields the path, the written value and the type of each item of a list; reports empty items and inner lists."""
    for n, (one, type_) in enumerate(zip(written, found.members, strict=True)):
        if isinstance(one, list):
            say((*at, n), "this is a list in a list; write its items in the outer list")
        elif one is None:
            say((*at, n), "an item of a list is empty; remove it")
        elif type_.kind != "any":
            yield (*at, n), one, type_


def feed(model: Model, kind: str, present_names: Collection[str]) -> tuple[Param | None, str]:
    """Returns the parameter of a model for a file in `from`; if none fits or several do, returns None and a message."""
    fitting, free = list[Param](), list[Param]()
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
    several = f"{model.name} takes several files of kind {kind}: {', '.join(param.name for param in free)}"
    return None, f"{several}; set one of these parameters in with, not in from"


def _stand_in(value: Any, param: Param | None) -> Any:
    """Returns a valid placeholder for a value that is not known yet."""
    param = param or _OTHER
    if isinstance(value, list):
        return [_stand_in(one, param) for one in value]
    if isinstance(value, dict):
        return {name: _stand_in(one, None) for name, one in value.items()}
    if isinstance(value, Type):
        one = _likely(Unknown(value.kind, ""), param)
        return [one] if param.multiple or param.shape == "list" else one
    if isinstance(value, File):
        return _LINK
    return _likely(value, param) if isinstance(value, Unknown) else value


_OTHER = Param("", "", "string")
"""Stands for a parameter that the catalogue does not have, and for a field of a `json` parameter."""


def _likely(value: Unknown, param: Param) -> Any:
    if param.is_media:
        return _LINK
    if param.options:
        return param.default if isinstance(param.default, str) and param.default else param.options[0]
    if param.type == "json":
        return {}
    if value.kind == "boolean" or param.type == "bool":
        return True
    if value.kind in ("number", "integer") or param.type in ("int", "float"):
        number = value.span.expected if value.span is not None else 1
        number = max(number, -inf if param.min is None else param.min)
        number = min(number, inf if param.max is None else param.max)
        return number if param.type == "float" else round(number)
    if param.pattern:
        return example_of(param)
    longest = 100 if param.max_length is None else param.max_length
    return "x" * max(1, min(longest, round(characters(value).expected)))


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _each(one)
    else:
        yield value


def _is_switch(param: Param) -> bool:
    """Returns whether a parameter is a boolean, even if the API takes it as a string."""
    return param.type == "bool" or {*param.options} == {"true", "false"}
