"""Builds the task of one model: its parameters are keyword arguments, and it runs the same code as `generate`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from os import PathLike
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, get_origin

from rh_prefect.catalog import Model, Param
from rh_prefect.catalog.descriptions import docstring
from rh_prefect.input_class_builder import item_type
from rh_prefect.media.media import Media
from rh_prefect.models import input_for
from rh_prefect.tasks.generate import generate, paid_task, run_job, titled
from rh_prefect.tasks.paid_task_typing import PaidTask
from rh_prefect.works.job_options import Options
from rh_prefect.works.result import Result

T = TypeVar("T")

File: TypeAlias = Media | Result | str | PathLike[str]
"""The types that a parameter for a file accepts."""

MODULE = "rh_prefect.tasks.model_tasks"
"""The module from which the task of each model can be imported."""

_UNCHECKED = "Parameters that are sent as they are, by name: for values and parameters that the catalogue lacks."
_RETURNS = "The outputs, already in the storage, with what they cost."


def build(model: Model) -> PaidTask[...]:
    """Builds the Prefect task of a model, with the model's parameters and the options of `generate`."""
    # Only the name: if the function itself is pickled, the catalogue must not be pickled with it.
    name = model.name

    async def run(**arguments: Any) -> Result:
        return await _run(name, arguments)

    run.__module__, run.__name__, run.__qualname__ = MODULE, model.snake_name, model.snake_name
    run.__doc__ = docstring(model, options=option_docs(), returns=_RETURNS)
    run.__signature__ = signature(model)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    return paid_task(name=name, run_name=partial(_run_name, name), tags=[f"model:{name}"])(run)


@dataclass(frozen=True, slots=True)
class Omitted(Generic[T]):
    """A default value that also indicates that the caller gave no argument.

    Prefect fills in defaults before it calls a task. A parameter that the caller omitted must not be sent, because the
    equivalent call of `generate` would then be another job.
    """

    value: T

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Omitted) else other))

    def __hash__(self) -> int:
        return hash(repr(self.value))


def signature(model: Model) -> inspect.Signature:
    """Returns the signature of a model's task: the model's parameters, then the options of `generate`."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    params = [
        inspect.Parameter(param.name, keyword, default=_default(param), annotation=_annotation(param))
        for param in model.known_params
    ]
    taken = Mapping[str, Any] | None
    unchecked = inspect.Parameter("unchecked", keyword, default=None, annotation=taken)
    return inspect.Signature([*params, unchecked, *options().values()], return_annotation=Result)


@cache
def options() -> Mapping[str, inspect.Parameter]:
    """Returns the options of `generate`, which each model's task also accepts."""
    found = inspect.signature(generate.fn, eval_str=True).parameters
    return {name: param for name, param in found.items() if name != "request"}


def option_docs() -> Mapping[str, str]:
    """Returns the descriptions of the options of `generate`, from its docstring; none with `python -OO`."""
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", generate.fn.__doc__ or "", re.MULTILINE)
    return {"unchecked": _UNCHECKED, **{name: " ".join(text.split()) for name, text in found if name in options()}}


def _default(param: Param) -> object:
    if param.default is not None:
        return Omitted(param.wire_default)
    return inspect.Parameter.empty if param.required else None


def _annotation(param: Param) -> Any:
    item: Any = item_type(param, File)
    item = getattr(item, "__origin__", item) if get_origin(item) is Annotated else item  # limits are for forms
    taken = item | GenericAlias(Sequence, (item,)) if param.multiple else item
    if param.type == "json":
        taken = taken | str
    return taken if param.required or param.default is not None else taken | None


def _run_name(model: str, parameters: dict[str, Any]) -> str:
    return titled(model, parameters, label=parameters.get("label"))


async def _run(model: str, arguments: dict[str, Any]) -> Result:
    scope = arguments.pop("scope", None)
    chosen = {name: arguments.pop(name) for name in options() if name in arguments}
    params = {name: value for name, value in arguments.items() if not isinstance(value, Omitted)}
    return await run_job(input_for(model)(**params), Options(**chosen), scope=scope)
