"""`RunningHubModel`: one of RunningHub's models, with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import Field

from rh_prefect import catalog
from rh_prefect.errors import InputError
from rh_prefect.job_blocks.block import DOCUMENTATION, LOGO, RunningHubJob
from rh_prefect.job_blocks.job_run import RunningHubJobRun

if TYPE_CHECKING:
    from rh_prefect.jobs.options import JobOptions
    from rh_prefect.models import ModelInput

    class ModelOverrides(JobOptions, total=False):
        """What a run of a model can be given; `params` are laid over the saved ones, all else replaces them."""

        params: Mapping[str, Any]  # whatever the model takes
        scope: str | None


class RunningHubModel(RunningHubJob):
    """One of RunningHub's models, saved with its parameters and run by its block's name.

    Example:
        Start a saved model with another prompt, do something else, and fetch what it made:
        ```python
        from rh_prefect import RunningHubModel

        model = RunningHubModel.load("BLOCK_NAME")
        run = model.trigger(params={"prompt": "a harbour at night"}, scope="harbours")
        print(run.task_id)
        print(run.fetch_result().first_output.uri)
        ```
    """

    _block_type_name = "RunningHub Model"
    _block_type_slug = "runninghub-model"
    _logo_url = LOGO  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = DOCUMENTATION  # type: ignore[assignment]  # as above
    _description = "One of RunningHub's models, with its parameters."

    model: str = Field(description="The model's name or endpoint, as in z-image/turbo; see `rh-prefect models search`.")
    # Each model has parameters of its own; the whole call is checked when it is started.
    params: dict[str, Any] = Field(
        default_factory=dict,
        title="Parameters",
        description='Parameters by their Python names, as in {"aspect_ratio": "16:9"}; a file is a path or a URI.',
    )

    # Prefect's own `trigger` is a coroutine that takes nothing.
    def trigger(self, **overrides: Unpack[ModelOverrides]) -> RunningHubJobRun:  # type: ignore[override]
        """Starts a run and returns as soon as it is paid for and recorded; the waiting goes on in the background.

        Args:
            **overrides: Values for this run only: `params`, and the options of `generate` (`label`, `key`, `scope`,
                `reuse`, `on_unknown`, `max_attempts`, `deadline`, `budget`, `credentials`, `storage`).

        Returns:
            The run.

        Raises:
            InputError: A parameter or a file is wrong; nothing was sent.
            RunningHubError: It was not submitted, or nobody knows; see `rh_prefect.errors`.
        """
        return self._trigger(overrides)

    async def trigger_async(self, **overrides: Unpack[ModelOverrides]) -> RunningHubJobRun:
        """The coroutine of `trigger`."""
        return await self._trigger_async(overrides)

    def _check(self) -> None:
        catalog.get(self.model)

    def _request(self, overrides: Mapping[str, Any]) -> ModelInput:
        from rh_prefect.models import input_for

        unknown = sorted(set(overrides) - {"params"})
        if unknown:
            raise InputError(
                f"RunningHubModel {self.model}: there is nothing called {', '.join(unknown)} to override. What to do: "
                "name a model's parameters in `params`. Nothing was sent."
            )
        return input_for(self.model)(**{**self.params, **overrides.get("params", {})})
