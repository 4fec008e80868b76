"""`flow_with`: Prefect's own `@flow`, with hooks of ours beside the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from prefect.flows import Flow, FlowDecorator, FlowStateHook

from rh_prefect.flow_runs.call_positions import count_calls, count_submits

FlowEvent: TypeAlias = Literal["completion", "failure", "cancellation", "crashed", "running"]


def flow_with(hooks: Mapping[FlowEvent, FlowStateHook[..., Any]]) -> FlowDecorator:
    """Makes a decorator that is used and typed like `prefect.flow` and attaches hooks to each flow that it makes.

    The user's hooks come first and stay. `some_flow.with_options(on_cancellation=[…])` replaces all hooks of that
    event, as it always does in Prefect; name ours in that list too.

    Args:
        hooks: What to call at which event. Name the parameters `flow`, `flow_run` and `state`: a worker calls a hook
            by keyword and in a process of its own, the flow's own process by position.
    """
    return _HookedDecorator(dict(hooks))


class _HookedDecorator(FlowDecorator):
    def __init__(self, hooks: dict[FlowEvent, FlowStateHook[..., Any]]) -> None:
        self._hooks = hooks

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
            if fn is None:
                return partial(self, **options)
            return self._attach(super().__call__(fn, **options))

    def _attach(self, made: Flow[..., Any]) -> Flow[..., Any]:
        count_calls(made)
        count_submits(made.task_runner)
        for event, hook in self._hooks.items():
            there = getattr(made, f"on_{event}_hooks")
            if hook not in there:
                # A list of its own: Prefect keeps the very list that the user gave, perhaps to several flows.
                setattr(made, f"on_{event}_hooks", [*there, hook])
        return made
