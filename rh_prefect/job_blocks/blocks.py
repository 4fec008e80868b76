"""The job blocks: a model, a workflow or an app, saved with its defaults and started by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from prefect.blocks.abstract import JobBlock
from pydantic import ConfigDict, Field, SecretStr, model_validator

from rh_prefect import catalog
from rh_prefect.errors import InputError
from rh_prefect.job_blocks.job_handle import RunningHubJobRun, start
from rh_prefect.workflow_inputs import AppInput, InstanceType, WorkflowInput
from rh_prefect.works.job_options import JobOptions, Options
from rh_prefect.works.journal.scope import delivered_at_end
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result

if TYPE_CHECKING:
    from rh_prefect.models import ModelInput
    from rh_prefect.works.job_options import Request

    class Overrides(JobOptions, total=False):
        """The values for one run: `params` and `nodes` are merged into the saved ones; other values are replaced."""

        params: Mapping[str, Any]  # the model's parameters
        nodes: Mapping[str, Any]  # media in any of its forms
        seed: int | None
        instance_type: InstanceType
        retain_seconds: int | None
        use_personal_queue: bool
        access_password: str | SecretStr | None
        workflow: dict[str, Any] | None
        add_metadata: bool
        scope: str | None


class RunningHubJob(JobBlock[Result], ABC):
    """The base class of the job blocks; it is not registered as a block type."""

    # A wrong field's value may be a password: it must not be in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    _logo_url = "https://www.runninghub.cn/favicon.png"  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = "https://www.runninghub.cn/runninghub-api-doc-cn/"  # type: ignore[assignment]  # as above

    label: str | None = Field(
        default=None,
        description="A readable name for the output; the names of its task run and of its file contain it.",
    )
    credentials: str | None = Field(
        default=None,
        description=(
            "Name of the RunningHub Credentials block of the account that pays; by default RH_API_KEY and RH_BASE_URL."
        ),
    )
    storage: str | None = Field(
        default=None, description="Name of the Media Storage block that the outputs go to; by default RH_STORAGE_URL."
    )

    # Prefect's own `trigger` is a coroutine that takes nothing.
    def trigger(self, **overrides: Unpack[Overrides]) -> RunningHubJobRun:  # type: ignore[override]
        """Starts a run and returns once it is paid for and recorded; waiting continues in the background.

        Args:
            **overrides: Values for this run only: `params` of a model, the fields of a workflow or an app, and the
                options of `generate` (`take`, `same`, `label`, `scope`, `reuse`, `on_unknown`, `attempts`, `deadline`,
                `budget`, `credentials`, `storage`).

        Returns:
            The run.

        Raises:
            InputError: A parameter, a node, a field or a file is wrong; nothing was sent.
            RunningHubError: The job was not submitted, or the outcome is unknown; see `rh_prefect.errors`.
        """
        return LOOP.call_sync(self._start(overrides))

    async def trigger_async(self, **overrides: Unpack[Overrides]) -> RunningHubJobRun:
        """The asynchronous form of `trigger`."""
        with delivered_at_end():  # a run that starts when the caller is cancelled is lost
            return await LOOP.call(self._start(overrides))

    @model_validator(mode="after")
    def _check_defaults(self) -> Self:
        """Raises an error if no job could start with the saved values."""
        try:
            self._check()
        except InputError as error:
            raise ValueError(error.message) from None
        return self

    @abstractmethod
    def _check(self) -> None:
        """Raises `InputError` if the saved values are invalid with any arguments of `trigger`."""

    @abstractmethod
    def _request(self, overrides: Mapping[str, Any]) -> Request:
        """Builds the request from the saved values, overridden by the arguments of `trigger`."""

    async def _start(self, overrides: Mapping[str, Any]) -> RunningHubJobRun:
        values = dict(overrides)
        scope = values.pop("scope", None)
        saved = {"label": self.label, "credentials": self.credentials, "storage": self.storage}
        job_options = {name: values.pop(name) for name in JobOptions.__annotations__ if name in values}
        options = Options(**{**saved, **job_options})
        return await start(self._request(values), options, scope=scope)


class RunningHubGraphJob(RunningHubJob, ABC):
    """The base class of blocks that run a graph on RunningHub's machines; not registered as a block type."""

    instance_type: InstanceType = Field(
        default="default", title="Machine", description="The machine: default (24 GB), plus (48 GB) or ultra."
    )
    retain_seconds: int | None = Field(
        default=None,
        description="How long the machine is kept warm after the end, 10 to 180 seconds; this time is charged.",
    )
    use_personal_queue: bool = Field(
        default=False, description="Whether to queue when the account's own machines are busy; exclusive keys only."
    )
    access_password: SecretStr | None = Field(
        default=None, description="The password of an encrypted workflow or app; it is never recorded."
    )

    nodes: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description='Values by node id and field, as in {"6.text": "a lighthouse"}; a file is a URI (file:///…).',
    )
    seed: int | None = Field(
        default=None, description="Sets every seed that the nodes do not set; if empty, seeds are new for each run."
    )

    def _check(self) -> None:
        self._request({})

    def _values(self, overrides: Mapping[str, Any], **values: str) -> dict[str, Any]:
        """Returns the fields of the input: `values`, the block's fields that the input also has, and the overrides."""
        shared = set(WorkflowInput.model_fields) & set(type(self).model_fields)
        saved = {name: getattr(self, name) for name in shared}
        return {**values, **saved, **overrides, "nodes": {**self.nodes, **overrides.get("nodes", {})}}


class RunningHubModel(RunningHubJob):
    """One of RunningHub's models, saved with its parameters and run by its block's name.

    Example:
        Start a saved model with another prompt, do something else, and fetch its outputs:
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
    _description = "One of RunningHub's models, with its parameters."

    model: str = Field(description="The model's name or endpoint, as in z-image/turbo; see `rh-prefect models search`.")
    # Each model has its own parameters; the whole call is checked when it is started.
    params: dict[str, Any] = Field(
        default_factory=dict,
        title="Parameters",
        description='Parameters by their Python names, as in {"aspect_ratio": "16:9"}; a file is a path or a URI.',
    )

    def _check(self) -> None:
        catalog.get(self.model)

    def _request(self, overrides: Mapping[str, Any]) -> ModelInput:
        from rh_prefect.models import input_for

        unknown = sorted(set(overrides) - {"params"})
        if unknown:
            raise InputError(
                f"RunningHubModel {self.model}: {', '.join(unknown)} cannot be overridden, because the block has no "
                "such field. Nothing was sent. What to do: put a model's parameters into `params`."
            )
        return input_for(self.model)(**{**self.params, **overrides.get("params", {})})


class RunningHubWorkflow(RunningHubGraphJob):
    """A ComfyUI workflow on RunningHub, saved with its defaults and run by its block's name.

    Example:
        Start a saved workflow with another prompt, do something else, and fetch its outputs:
        ```python
        from rh_prefect import RunningHubWorkflow

        workflow = RunningHubWorkflow.load("BLOCK_NAME")
        run = workflow.trigger(nodes={"6.text": "a harbour at night"}, scope="harbours")
        print(run.task_id)
        print(run.fetch_result().first_output.uri)
        ```
    """

    _block_type_name = "RunningHub Workflow"
    _block_type_slug = "runninghub-workflow"
    _description = "A ComfyUI workflow on RunningHub, with the values for its nodes."

    workflow_id: str = Field(title="Workflow id", description="RunningHub's id of the workflow, as digits.")
    # ComfyUI's own format, which no type of ours describes.
    workflow: dict[str, Any] | None = Field(
        default=None, title="Graph", description="A complete API-format graph to run instead of the saved one."
    )
    add_metadata: bool = Field(default=True, description="Whether pictures contain the graph in their metadata.")

    def _request(self, overrides: Mapping[str, Any]) -> WorkflowInput:
        return WorkflowInput(**self._values(overrides, id=self.workflow_id))


class RunningHubApp(RunningHubGraphJob):
    """An AI app on RunningHub, saved with its defaults and run by its block's name.

    Example:
        Start a saved app with a picture, do something else, and fetch its outputs:
        ```python
        from pathlib import Path

        from rh_prefect import RunningHubApp

        app = RunningHubApp.load("BLOCK_NAME")
        run = app.trigger(nodes={"10.image": Path("photo.jpg")}, scope="portraits")
        print(run.task_id)
        print(run.fetch_result().first_output.uri)
        ```
    """

    _block_type_name = "RunningHub App"
    _block_type_slug = "runninghub-app"
    _description = "An AI app on RunningHub, with the values for its fields."

    webapp_id: str = Field(title="App id", description="RunningHub's id of the app, as digits.")

    def _request(self, overrides: Mapping[str, Any]) -> AppInput:
        return AppInput(**self._values(overrides, id=self.webapp_id))
