"""`RunningHubApp`: an AI app, with the values that its fields get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import Field

from rh_prefect.job_blocks.block import DOCUMENTATION, LOGO
from rh_prefect.job_blocks.graph import RunningHubGraphJob
from rh_prefect.job_blocks.job_run import RunningHubJobRun
from rh_prefect.workflows import AppInput

if TYPE_CHECKING:
    from rh_prefect.job_blocks.graph import GraphOverrides


class RunningHubApp(RunningHubGraphJob):
    """An AI app on RunningHub, saved with its defaults and run by its block's name.

    Example:
        Start a saved app with a picture, do something else, and fetch what it made:
        ```python
        from rh_prefect import RunningHubApp

        app = RunningHubApp.load("BLOCK_NAME")
        run = app.trigger(nodes={"10.image": "photo.jpg"}, scope="portraits")
        print(run.task_id)
        print(run.fetch_result().first_output.uri)
        ```
    """

    _block_type_name = "RunningHub App"
    _block_type_slug = "runninghub-app"
    _logo_url = LOGO  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = DOCUMENTATION  # type: ignore[assignment]  # as above
    _description = "An AI app on RunningHub, with the values that its fields get."

    webapp_id: str = Field(title="App id", description="RunningHub's id of the app, as digits.")
    nodes: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description='Values by node id and field, as in {"3.sampler_name": "euler"}; a file is a path or a URI.',
    )
    seed: int | None = Field(
        default=None, description="Sets every seed that the app shows and the nodes do not set; else new for each run."
    )

    # Prefect's own `trigger` is a coroutine that takes nothing.
    def trigger(self, **overrides: Unpack[GraphOverrides]) -> RunningHubJobRun:  # type: ignore[override]
        """Starts a run and returns as soon as it is paid for and recorded; the waiting goes on in the background.

        Args:
            **overrides: Values for this run only: the block's fields, and the options of `generate` (`label`, `key`,
                `scope`, `reuse`, `on_unknown`, `max_attempts`, `deadline`, `budget`, `credentials`,
                `storage`).

        Returns:
            The run.

        Raises:
            InputError: A field does not exist, or its value is none of its options; nothing was sent.
            RunningHubError: It was not submitted, or nobody knows; see `rh_prefect.errors`.
        """
        return self._trigger(overrides)

    async def trigger_async(self, **overrides: Unpack[GraphOverrides]) -> RunningHubJobRun:
        """The coroutine of `trigger`."""
        return await self._trigger_async(overrides)

    def _check(self) -> None:
        self._request({})

    def _request(self, overrides: Mapping[str, Any]) -> AppInput:
        saved = {"id": self.webapp_id, "seed": self.seed, **self._machine()}
        return AppInput(**saved | dict(overrides) | {"nodes": {**self.nodes, **overrides.get("nodes", {})}})
