"""`RunningHubApp`: an AI app, with the values that its fields get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import Field, SecretStr

from rh_prefect.job_blocks.block import DOCUMENTATION, LOGO, RunningHubJob
from rh_prefect.job_blocks.run import RunningHubJobRun
from rh_prefect.workflows import AppInput, InstanceType

if TYPE_CHECKING:
    from rh_prefect.tasks.platform import JobOptions

    class AppOverrides(JobOptions, total=False):
        """What a run of an app can be given; `nodes` are laid over the saved ones, all else replaces them."""

        nodes: Mapping[str, Any]  # media in any of its forms
        seed: int | None
        instance_type: InstanceType
        retain_seconds: int | None
        use_personal_queue: bool
        access_password: str | SecretStr | None
        scope: str | None


class RunningHubApp(RunningHubJob):
    """An AI app on RunningHub, saved with its defaults and run by its block's name.

    Example:
        Start a saved app with a picture, do something else, and fetch what it made:
        ```python
        from rh_prefect import RunningHubApp

        app = RunningHubApp.load("BLOCK_NAME")
        run = app.trigger(nodes={"10.image": "photo.jpg"}, scope="portraits")
        print(run.task_id)
        print(run.fetch_result().media.uri)
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
    instance_type: InstanceType = Field(
        default="default", title="Machine", description="The machine: default (24 GB), plus (48 GB) or ultra."
    )
    retain_seconds: int | None = Field(
        default=None, description="How long the machine is kept warm after the end, 10 to 180 seconds; it costs."
    )
    use_personal_queue: bool = Field(
        default=False, description="Whether to queue when the account's own machines are busy; exclusive keys only."
    )
    access_password: SecretStr | None = Field(
        default=None, description="The password of an encrypted app; it reaches no record."
    )

    # Prefect's own `trigger` is a coroutine that takes nothing.
    def trigger(self, **overrides: Unpack[AppOverrides]) -> RunningHubJobRun:  # type: ignore[override]
        """Starts a run and returns as soon as it is paid for and recorded; the waiting goes on in the background.

        Args:
            **overrides: Values for this run only: the block's fields, and the options of `generate` (`label`, `key`,
                `scope`, `reuse`, `on_unknown`, `max_attempts`, `deadline`, `credentials`, `storage`).

        Returns:
            The run.

        Raises:
            InputError: A field does not exist, or its value is none of its options; nothing was sent.
            RunningHubError: It was not submitted, or nobody knows; see `rh_prefect.errors`.
        """
        return self._trigger(overrides)

    async def atrigger(self, **overrides: Unpack[AppOverrides]) -> RunningHubJobRun:
        """The coroutine of `trigger`."""
        return await self._atrigger(overrides)

    def _check(self) -> None:
        self._asked({})

    def _asked(self, given: Mapping[str, Any]) -> AppInput:
        saved: dict[str, Any] = {
            "id": self.webapp_id,
            "seed": self.seed,
            "instance_type": self.instance_type,
            "retain_seconds": self.retain_seconds,
            "use_personal_queue": self.use_personal_queue,
            "access_password": self.access_password,
        }
        return AppInput(**saved | dict(given) | {"nodes": {**self.nodes, **given.get("nodes", {})}})
