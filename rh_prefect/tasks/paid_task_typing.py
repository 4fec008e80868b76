"""`PaidTask`: a Prefect task with one paid call, typed for type checkers to return a `Result`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, overload

from prefect.tasks import Task

from rh_prefect.tasks.task_or_call import PlainTask

if TYPE_CHECKING:
    from typing import Self

    from prefect.client.schemas.objects import State
    from prefect.futures import PrefectFuture, PrefectFutureList

    from rh_prefect.works.result import Result

    P = ParamSpec("P")

    class PaidTask(Task[P, Coroutine[Any, Any, Result]]):
        """A task with one paid call.

        Its types differ from Prefect's, where the future of an async task contains a coroutine.
        """

        # Not as overloads, for which type checkers do not say which option is misspelt.
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]:  # type: ignore[override]
            """Runs the job as a task run, inside or outside of a flow."""

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

        def with_options(self, **options: Any) -> Self:
            """Returns the same task with other options; see `prefect.Task.with_options`."""

else:
    PaidTask = PlainTask
