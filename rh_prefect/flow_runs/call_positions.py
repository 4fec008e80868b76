"""The position of a call among its run's calls, counted in program order, in the caller's thread, without I/O.

The place travels with the task object: Prefect hands it to the thread or process that runs the task.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from itertools import count, zip_longest
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, TypeVar, overload
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext
from prefect.flows import Flow
from prefect.task_runners import TaskRunner
from prefect.tasks import Task

from rh_prefect.flow_runs.argument_hashes import argument_hash, arguments_of
from rh_prefect.flow_runs.prefect_internals import RunContext, run_contexts, runs_in_order
from rh_prefect.works.journal.identity import Place
from rh_prefect.works.outputs.result import Result

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State
    from prefect.futures import PrefectFuture, PrefectFutureList

P = ParamSpec("P")
R = TypeVar("R")
_V = TypeVar("_V")
_Called = TypeVar("_Called", bound="Task[Any, Any] | Flow[..., Any]")

NOT_OF_THE_REQUEST = frozenset(
    {"budget", "credentials", "deadline", "max_attempts", "on_unknown", "return_state", "storage", "wait_for"}
)
"""Options that say how a job is run, not what it is."""


class PerObject(Generic[_V]):
    """A mapping from objects, by identity, to values; an entry is removed with its object."""

    def __init__(self, make: Callable[[], _V]) -> None:
        self._make = make
        self._values: dict[int, _V] = {}
        self._lock = threading.RLock()

    def __getitem__(self, owner: object) -> _V:
        with self._lock:
            if id(owner) not in self._values:
                self._values[id(owner)] = self._make()
                # Runs before the id can be given to another object.
                weakref.finalize(owner, self._values.pop, id(owner), None).atexit = False
            return self._values[id(owner)]

    def __len__(self) -> int:
        return len(self._values)


serial_of: PerObject[int] = PerObject(count(1).__next__)
"""A number for each object, as long as it lives; `id` alone is used again."""


class _Counts:
    """The calls of one attempt of one run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[tuple[int, str, str | None]] = Counter()
        self._of_runs: dict[object, Place] = {}

    def place(self, name: str, digest: str | None, *, caller: int) -> Place:
        """Returns the position of a call that is made now; `caller` is 0 for the run itself."""
        with self._lock:
            return self._next(name, digest, caller)

    def place_of_run(self, run_id: object, name: str, digest: str | None, *, caller: int) -> Place:
        """Returns the position of a run that this run has started; it is the same on every retry."""
        with self._lock:
            if run_id not in self._of_runs:
                self._of_runs[run_id] = self._next(name, digest, caller)
            return self._of_runs[run_id]

    def _next(self, name: str, digest: str | None, caller: int) -> Place:
        self._numbers[caller, name, digest] += 1
        return Place(in_order=caller == 0, given=digest, number=self._numbers[caller, name, digest])


class _Outside:
    """A stand-in for the run of a call that is made outside of any run."""


_counts: PerObject[_Counts] = PerObject(_Counts)
_OUTSIDE = _Outside()


def take_place(name: str, arguments: object) -> Place:
    """Assigns the next position to the call that the caller makes now."""
    runs = run_contexts()
    run_places(runs)
    caller = 0 if next(runs_in_order(sys._getframe(1)), False) else _caller()
    return _counts[runs[0] if runs else _OUTSIDE].place(name, argument_hash(arguments), caller=caller)


def run_places(runs: Sequence[RunContext]) -> dict[UUID, Place]:
    """Returns the positions of the runs that contain a call; positions of child flows lack the number.

    A run that no task runner of ours has started has the place of its call; it is taken here, once, which is why the
    first call of this must come from the caller's own thread.

    Args:
        runs: The runs that the call is in, innermost first.
    """
    in_order = runs_in_order(sys._getframe(1))
    places: dict[UUID, Place] = {}
    is_own = next(in_order, False)
    for run, around in zip_longest(runs, runs[1:]):
        # A run is in program order where all that lies between it and this call is.
        is_own = next(in_order, False) and is_own
        caller = 0 if is_own else _caller()
        if isinstance(run, TaskRunContext):
            carried = place_carried(run.task)
            places[run.task_run.id] = carried or _counts[around or _OUTSIDE].place_of_run(
                run.task_run.id, run.task.name, argument_hash(run.parameters), caller=caller
            )
        elif run.flow is not None and run.flow_run is not None and isinstance(around, TaskRunContext):
            places[run.flow_run.id] = place_carried(run.flow) or _counts[around].place_of_run(
                run.flow_run.id, run.flow.name, argument_hash(run.parameters), caller=caller
            )
        elif run.flow is not None and run.flow_run is not None:
            places[run.flow_run.id] = place_carried(run.flow) or Place(in_order=is_own)
    return places


def _caller() -> int:
    """Returns the number of the asyncio task or thread that makes the call."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return serial_of[task or threading.current_thread()]


def placed(called: _Called, place: Place) -> _Called:
    """Copies a task or flow and attaches the position of one call to the copy."""
    # Not `copy`: a task's `__reduce__` may return the existing task of its name.
    copy: _Called = object.__new__(type(called))
    copy.__dict__.update(called.__dict__, place=place)
    return copy


def place_carried(called: object) -> Place | None:
    """Returns the position attached to a task or flow; None if it has none."""
    place = getattr(called, "place", None)
    return place if isinstance(place, Place) else None


class PaidTask(Task[P, Coroutine[Any, Any, Result]]):
    """A task that makes a paid call; each call gets its position immediately, in the caller's thread."""

    place: Place | None = None
    changed: Mapping[str, Any] = MappingProxyType({})
    """The options that `with_options` has changed."""

    # Prefect's own overloads type the future of an async task as a future of a coroutine.
    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]: ...
        @overload
        def __call__(
            self, *args: Any, wait_for: Any, return_state: Literal[False] = False, **kwargs: Any
        ) -> Coroutine[Any, Any, Result]: ...
        @overload
        def __call__(
            self, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
        ) -> Coroutine[Any, Any, State[Result]]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the job as one task run, in a flow or alone."""

        @overload  # type: ignore[override]
        def submit(self, *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[Result]: ...
        @overload
        def submit(
            self, *args: Any, wait_for: Any, return_state: Literal[False] = False, **kwargs: Any
        ) -> PrefectFuture[Result]: ...
        @overload
        def submit(
            self, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
        ) -> State[Result]: ...
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """Starts the job as one task run and returns its future at once."""

        @overload  # type: ignore[override]
        def map(
            self, *args: Any, return_state: Literal[False] = False, wait_for: Any = None, **kwargs: Any
        ) -> PrefectFutureList[Result]: ...
        @overload
        def map(
            self, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
        ) -> list[State[Result]]: ...
        def map(self, *args: Any, **kwargs: Any) -> Any:
            """Starts one job for each of several values, as one task run each."""
    else:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the task; see `prefect.Task`."""
            return Task.__call__(self.at_its_place(*args, **kwargs), *args, **kwargs)

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """Starts the task; see `prefect.Task.submit`."""
            return Task.submit(self.at_its_place(*args, **kwargs), *args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            """Starts the task for each of several values; see `prefect.Task.map`."""
            flow = FlowRunContext.get()
            if flow is not None:
                # The base class goes past `submit`, to the runner, which in a plain flow does not count.
                count_submits(flow.task_runner)
            return Task.map(self, *args, **kwargs)

    def with_options(self, **options: Any) -> Self:
        """Returns the same task with other options; see `prefect.Task.with_options`."""
        copy: Any = super().with_options(**options)
        # Prefect's own method returns a plain task, whose calls get no positions.
        copy.__class__ = type(self)
        copy.__dict__["changed"] = {**self.changed, **options}
        return copy  # type: ignore[no-any-return]  # of this class

    def at_its_place(self, *args: Any, **kwargs: Any) -> PaidTask[P]:
        """Returns the task with the position of this call; calling it again assigns no other position."""
        if self.place is not None:
            return self
        copy: Any = placed(self, take_place(self.name, _non_default_arguments(self, _bound(self, args, kwargs))))
        return copy  # type: ignore[no-any-return]  # of this class


def _bound(task: Task[Any, Any] | Flow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the arguments by their names; an argument that the task does not accept causes an error later."""
    try:
        return inspect.signature(task.fn).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return {"args": args, **kwargs}


class PlacedFlow(Flow[P, R]):
    """A flow whose calls by another flow get positions, by its arguments and in program order.

    Prefect's own number counts the calls of a flow with any arguments, and by it Prefect finds the child's run of an
    earlier attempt, with its persisted result. If the order of the calls changes, that is the run of another call. So
    the arguments and the position are part of the name under which Prefect counts.
    """

    place: Place | None = None

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the flow; see `prefect.Flow`."""
            if self.place is not None or FlowRunContext.get() is None:
                return Flow.__call__(self, *args, **kwargs)
            non_defaults = _non_default_arguments(self, _bound(self, args, kwargs))
            copy = placed(self, take_place(self.name, non_defaults))
            arguments = (
                argument_hash([self.name, sorted(arguments_of(non_defaults).items()), _distinction(self.fn)]) or ""
            )
            copy.fn = _named_by_place(self.fn, arguments, copy.place)
            return Flow.__call__(copy, *args, **kwargs)

        def with_options(self, **options: Any) -> Self:
            """Returns the same flow with other options; see `prefect.Flow.with_options`."""
            copy = super().with_options(**options)
            copy.__class__ = type(self)
            return copy

        def __getstate__(self) -> dict[str, Any]:
            """Returns the flow with its original function, which another process finds by its name."""
            return {**self.__dict__, "fn": _original(self.fn)}


_named_functions: weakref.WeakKeyDictionary[Any, FunctionType] = weakref.WeakKeyDictionary()
"""Copies of flows' functions -> the originals."""

_SIMPLE = (str, bytes, int, float)
"""Types of the variables that distinguish functions and objects; others often change during a run."""

_PLACE_IN_KEY = re.compile(r"\[\w*:(\w*):(\d+):([io])\]-")


class _Named:
    """A partial function, a bound method or another object under another name, with the object's attributes."""

    def __init__(self, fn: Callable[..., Any], qualname: str) -> None:
        self.named = fn
        self.__qualname__ = qualname

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.named(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "named":
            raise AttributeError(name)
        if name == "__signature__":  # `inspect` reads it before `__call__`
            return inspect.signature(self.named)
        return getattr(self.named, name)


def _distinction(fn: object) -> list[object]:
    """Returns what distinguishes a callable from others whose flows have the same name, as far as it is comparable.

    It is not part of the position of paid calls: an object may change during a run.
    """
    if isinstance(fn, partial):
        arguments = [*map(argument_hash, fn.args), sorted(arguments_of(fn.keywords).items())]
        return ["partial", _distinction(fn.func), arguments]
    if isinstance(fn, MethodType):
        return [_distinction(fn.__func__), _distinction(fn.__self__)]
    if isinstance(fn, FunctionType):
        variables = zip(fn.__code__.co_freevars, map(_cell, fn.__closure__ or ()), strict=True)
        owner = getattr(fn, "__prefect_self__", None)  # of a flow that is a method
        return [fn.__qualname__, _simple(dict(variables)), [] if owner is None else _distinction(owner)]
    return [type(fn).__qualname__, _simple(vars(fn)) if hasattr(fn, "__dict__") else argument_hash(fn)]


def _simple(values: Mapping[str, object]) -> list[object]:
    return [[name, argument_hash(value)] for name, value in sorted(values.items()) if isinstance(value, _SIMPLE)]


def _cell(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _original(fn: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(fn, _Named):
        found: Callable[..., Any] = fn.named
        return found
    return _named_functions.get(fn, fn) if isinstance(fn, FunctionType) else fn


def _named_by_place(fn: Callable[..., Any], arguments: str, place: Place) -> Callable[..., Any]:
    """Copies a function, with a position in its name: Prefect numbers a flow's runs by its function's name and code."""
    order = "i" if place.in_order else "o"
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    qualname = f"{name}[{arguments}:{place.given or ''}:{place.number}:{order}]"
    if not isinstance(fn, FunctionType):
        return _Named(fn, qualname)
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__dict__.update(fn.__dict__)
    copy.__kwdefaults__, copy.__annotations__, copy.__doc__ = fn.__kwdefaults__, fn.__annotations__, fn.__doc__
    copy.__module__ = fn.__module__
    copy.__qualname__ = qualname
    _named_functions[copy] = fn
    return copy


def place_in_key(task_key: str) -> Place | None:
    """Returns the position in a task key that Prefect has made for a child flow; None if it has none."""
    if (found := _PLACE_IN_KEY.search(task_key)) is None:
        return None
    return Place(in_order=found[3] == "i", given=found[1] or None, number=int(found[2]))


_counting: dict[type[TaskRunner[Any]], type[TaskRunner[Any]]] = {}


def count_submits(runner: TaskRunner[Any]) -> None:
    """Makes a task runner, and its duplicates, assign a position to each submitted task."""
    kind = type(runner)
    if not getattr(kind, "counts_submits", False):
        if kind not in _counting:
            _counting[kind] = _counting_class(kind)
        runner.__class__ = _counting[kind]


def _counting_class(kind: type[TaskRunner[Any]]) -> type[TaskRunner[Any]]:
    def submit(self: Any, task: Task[Any, Any], parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if place_carried(task) is None:
            task = placed(task, take_place(task.name, _non_default_arguments(task, parameters)))
        return kind.submit(self, task, parameters, *args, **kwargs)

    # `map` calls `submit` too, in the caller's thread. A single base, since an object's class can only become one of
    # the same layout.
    body = {"submit": submit, "counts_submits": True, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), body)


def _non_default_arguments(task: Task[Any, Any] | Flow[..., Any], parameters: Mapping[str, Any]) -> dict[str, object]:
    """Returns the arguments that differ from the defaults, so that a later new default does not change the call."""
    defaults = {name: param.default for name, param in inspect.signature(task.fn).parameters.items()}
    return {
        name: value
        for name, value in parameters.items()
        if name not in NOT_OF_THE_REQUEST and value is not defaults.get(name)
    }
