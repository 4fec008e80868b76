"""Builds the task of one model: its parameters as keyword arguments, and the same paid path as `generate`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from types import GenericAlias
from typing import Annotated, Any, Final, Generic, ParamSpec, TypeAlias, TypeVar, get_origin

from rh_prefect.catalog import Model, Param
from rh_prefect.catalog.descriptions import docstring
from rh_prefect.catalog.input_class_builder import item_type
from rh_prefect.media.media import Media
from rh_prefect.models import input_for
from rh_prefect.tasks.generate import generate, run_job, titled
from rh_prefect.tasks.paid_task import PaidTask
from rh_prefect.works.options import Options
from rh_prefect.works.outputs.result import Result

P = ParamSpec("P")
T = TypeVar("T")

File: TypeAlias = Media | Result | str | PathLike[str]
"""What a file may be given as."""

HOME = "rh_prefect.tasks.endpoints"
"""Where every model's task can be imported from."""

RETURNS = "The outputs, already in the storage, with what they cost."


OPTION_DOCS: Final[Mapping[str, str]] = {
    "unchecked": "Parameters that are sent as they are, by name: for values and parameters that the catalogue lacks.",
    "take": "Which of several results of the request: a run pays once for each number.",
    "same": "Whether this call may ask for what another call of the run has asked for, and share its result. By "
    "default such a call is refused before it pays.",
    "label": "A name for the output, for people: a part of the names of its task run and its file.",
    "reuse": "`always` takes the result of an identical request of any run from the storage, at no cost.",
    "on_unknown": "What to do about a submission whose response was lost: `raise` raises an error, `resubmit` submits "
    "it again and may pay twice.",
    "attempts": "Maximum number of tasks paid for this job, failed ones included, until its flow run is run again.",
    "deadline": "Seconds to wait for the task; by default without a limit. After the deadline the task continues to "
    "run, and the next run waits for it.",
    "budget": "Maximum total cost of all jobs of this run, in the account's currency; a job that would exceed it "
    "is not started.",
    "credentials": "Name of a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and "
    "RH_BASE_URL.",
    "storage": "Name of a `MediaStorage` block; by default RH_STORAGE_URL.",
    "scope": "Your own idempotency key, such as an order's number: in one scope a request is paid for once, in "
    "whichever process or flow run it is made. By default the scope is the flow run.",
}
"""The options of `generate`, in the words of its docstring, which `python -OO` drops."""


def endpoint(fn: Callable[P, Coroutine[Any, Any, Result]], *, model: str) -> PaidTask[P]:
    """Creates a model's task from a function, with the retries of `generate`."""
    return PaidTask(
        fn,
        name=model,
        tags=[f"model:{model}"],
        task_run_name=_namer(model),
        cache_policy=generate.cache_policy,
        retries=generate.retries,
        retry_delay_seconds=generate.retry_delay_seconds,
        retry_jitter_factor=generate.retry_jitter_factor,
        retry_condition_fn=generate.retry_condition_fn,
    )


def build(model: Model) -> PaidTask[...]:
    """Builds the task of a model."""
    # Only the name: if the function itself is pickled, the catalogue must not be pickled with it.
    name = model.name

    async def run(**arguments: Any) -> Result:
        return await _run(name, arguments)

    run.__module__, run.__name__, run.__qualname__ = HOME, model.snake_name, model.snake_name
    run.__doc__ = docstring(model, options=option_docs(), returns=RETURNS)
    run.__signature__ = signature(model)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    return endpoint(run, model=name)


@dataclass(frozen=True, slots=True)
class Omitted(Generic[T]):
    """A default in a signature that behaves like its value and marks that no argument was given.

    Prefect fills in defaults before it calls a task. What the caller did not give must not be sent, or the same
    call through `generate` would be another job.
    """

    value: T

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Omitted) else other))

    def __hash__(self) -> int:
        return hash(repr(self.value))


def signature(model: Model) -> inspect.Signature:
    """Makes the signature of a model's task: the model's parameters, then the options of `generate`."""
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
    """The options of `generate`, which every model's task also takes."""
    found = inspect.signature(generate.fn, eval_str=True).parameters
    return {name: param for name, param in found.items() if name != "request"}


def option_docs() -> Mapping[str, str]:
    """Returns the descriptions of the options of `generate`; see `OPTION_DOCS`."""
    return {name: OPTION_DOCS.get(name, "") for name in ("unchecked", *options())}


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


def _namer(model: str) -> Callable[..., str]:
    def name(parameters: dict[str, Any]) -> str:
        return titled(model, parameters, label=parameters.get("label"))

    return name


async def _run(model: str, arguments: dict[str, Any]) -> Result:
    scope = arguments.pop("scope", None)
    chosen = {name: arguments.pop(name) for name in options() if name in arguments}
    params = {name: value for name, value in arguments.items() if not isinstance(value, Omitted)}
    return await run_job(input_for(model)(**params), Options(**chosen), scope=scope)
