"""Builds commands from the signatures and docstrings of the package's flows.

A flow's source is read and not imported: Prefect takes seconds to import, and a wrong option is reported before that.
"""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Parameter, validators
from pydantic import Field
from pydantic.fields import FieldInfo

from rh_prefect.flow_runs import parameter_types as types

_FLOWS = Path(__file__).parents[1] / "flows"
_NAMES = {**vars(types), "Annotated": Annotated, "Any": Any, "Field": Field, "Literal": Literal}
_LIMITS = {"gt": "gt", "ge": "gte", "lt": "lt", "le": "lte"}
"""Pydantic's names of the limits of a number, and cyclopts's."""
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class FlowSignature:
    """The signature and the documentation of a flow, from its source, with types that the command line takes."""

    function: str
    doc: str
    parameters: Mapping[str, inspect.Parameter]

    @property
    def required(self) -> list[str]:
        """The parameters without a default."""
        return [name for name, parameter in self.parameters.items() if parameter.default is _EMPTY]


def composed_flows() -> list[FlowSignature]:
    """Returns this package's flows that pay for jobs, except `any_model` and `batch`."""
    modules = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(_FLOWS.glob("*.py")))
    found = [_signature(node) for module in modules if _pays(module) for node in _flows_in(module)]
    return [flow for flow in found if flow.function != "any_model"]


@cache
def flow_signature(module: str, function: str) -> FlowSignature:
    """Reads one flow's signature; `module` is its file below `rh_prefect/flows`, without the suffix."""
    tree = ast.parse((_FLOWS / f"{module}.py").read_text(encoding="utf-8"))
    return next(_signature(node) for node in _flows_in(tree) if node.name == function)


def options(
    flow: FlowSignature, *, without: Sequence[str] = (), types: Mapping[str, Any] | None = None
) -> list[inspect.Parameter]:
    """Converts a flow's parameters to command options, all optional, since a resumed run has its own values.

    `without` are parameters that are not options, `types` the types that differ from the flow's.
    """
    return [
        _option(parameter, (types or {}).get(name, parameter.annotation))
        for name, parameter in flow.parameters.items()
        if name not in without
    ]


def as_command(
    run: Callable[..., None], flow: FlowSignature, parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Builds a command from a function, with the given parameters as its signature and a flow's docstring.

    The function takes options by keyword and all of them, the rest as `*args`; with `resume`, only what is given: the
    rest is the resumed run's own, and a default is no other value than the run's.
    """
    signature = inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def command(*args: Any, **named: Any) -> None:
        bound = signature.bind(*args, **named)
        if "resume" not in bound.arguments:
            bound.apply_defaults()
        run(*bound.args, **bound.kwargs)

    command.__signature__ = signature  # type: ignore[attr-defined]  # how a function states its own
    # The annotations of the function itself would replace those of the signature.
    command.__name__, command.__doc__, command.__annotations__ = flow.function, flow.doc, {}
    return command


def _pays(module: ast.Module) -> bool:
    """Returns whether a module's flows use this package's own `flow` decorator."""
    return "rh_prefect.flow_runs.flow" in {node.module for node in module.body if isinstance(node, ast.ImportFrom)}


def _flows_in(module: ast.Module) -> Iterator[ast.AsyncFunctionDef]:
    for node in module.body:
        if isinstance(node, ast.AsyncFunctionDef) and any(
            isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "flow"
            for decorator in node.decorator_list
        ):
            yield node


def _signature(node: ast.AsyncFunctionDef) -> FlowSignature:
    taken, defaults = node.args.args, node.args.defaults
    missing: list[ast.expr | None] = [None] * (len(taken) - len(defaults))
    found = {
        one.arg: inspect.Parameter(
            one.arg,
            inspect.Parameter.KEYWORD_ONLY,
            default=_EMPTY if default is None else ast.literal_eval(default),
            annotation=_type(one.annotation),
        )
        for one, default in zip(taken, [*missing, *defaults])
        if one.arg != "wait"  # a run of the command line waits in its process
    }
    return FlowSignature(node.name, ast.get_docstring(node) or "", found)


def _type(annotation: ast.expr | None) -> Any:
    return str if annotation is None else eval(ast.unparse(annotation), _NAMES)  # noqa: S307  # this package's own source


def _option(parameter: inspect.Parameter, taken: Any) -> inspect.Parameter:
    shown = Parameter(negative=(), validator=_limits(taken))
    if parameter.default is not _EMPTY:
        return parameter.replace(annotation=Annotated[_plain(taken), shown])
    return parameter.replace(annotation=Annotated[_plain(taken) | None, shown], default=None)


def _plain(taken: Any) -> Any:
    """Returns a type without its limits, which the flow checks with its own messages."""
    if get_origin(taken) in (UnionType, typing.Union):
        return reduce(or_, map(_plain, get_args(taken)))
    return get_args(taken)[0] if get_origin(taken) is Annotated else taken


def _limits(taken: Any) -> validators.Number | None:
    """Returns the limits of a number in a type such as `Annotated[int, Field(ge=1)] | None`."""
    if get_origin(taken) in (UnionType, typing.Union):
        return next(filter(None, map(_limits, get_args(taken))), None)
    if get_origin(taken) is not Annotated:
        return None
    limits = [limit for field in get_args(taken)[1:] if isinstance(field, FieldInfo) for limit in field.metadata]
    bounds = {name: getattr(limit, old) for limit in limits for old, name in _LIMITS.items() if hasattr(limit, old)}
    return validators.Number(**bounds) if bounds else None
