"""`RunningHubWorkflow`: a saved ComfyUI workflow, with the values that its nodes get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import Field

from rh_prefect.job_blocks.block import DOCUMENTATION, LOGO
from rh_prefect.job_blocks.graph import RunningHubGraphJob
from rh_prefect.job_blocks.job_run import RunningHubJobRun
from rh_prefect.workflows import WorkflowInput

if TYPE_CHECKING:
    from rh_prefect.job_blocks.graph import GraphOverrides

    class WorkflowOverrides(GraphOverrides, total=False):
        """What a run of a workflow can be given; `nodes` are laid over the saved ones, all else replaces them."""

        workflow: dict[str, Any] | None
        add_metadata: bool


class RunningHubWorkflow(RunningHubGraphJob):
    """A ComfyUI workflow on RunningHub, saved with its defaults and run by its block's name.

    Example:
        Start a saved workflow with another prompt, do something else, and fetch what it made:
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
    _logo_url = LOGO  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = DOCUMENTATION  # type: ignore[assignment]  # as above
    _description = "A ComfyUI workflow on RunningHub, with the values that its nodes get."

    workflow_id: str = Field(title="Workflow id", description="RunningHub's id of the workflow, as digits.")
    nodes: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description='Values by node id and field, as in {"6.text": "a lighthouse"}; a file is a path or a URI.',
    )
    seed: int | None = Field(
        default=None, description="Sets every seed that the nodes do not set; else new for each run."
    )
    # ComfyUI's own format, which no type of ours describes.
    workflow: dict[str, Any] | None = Field(
        default=None, title="Graph", description="A whole API-format graph to run in place of the saved one."
    )
    add_metadata: bool = Field(default=True, description="Whether pictures carry the graph in their metadata.")

    # Prefect's own `trigger` is a coroutine that takes nothing.
    def trigger(self, **overrides: Unpack[WorkflowOverrides]) -> RunningHubJobRun:  # type: ignore[override]
        """Starts a run and returns as soon as it is paid for and recorded; the waiting goes on in the background.

        Args:
            **overrides: Values for this run only: the block's fields, and the options of `generate` (`label`, `key`,
                `scope`, `reuse`, `on_unknown`, `max_attempts`, `deadline`, `budget`, `credentials`,
                `storage`).

        Returns:
            The run.

        Raises:
            InputError: A node or field does not exist, or is fed by another node; nothing was sent.
            RunningHubError: It was not submitted, or nobody knows; see `rh_prefect.errors`.
        """
        return self._trigger(overrides)

    async def trigger_async(self, **overrides: Unpack[WorkflowOverrides]) -> RunningHubJobRun:
        """The coroutine of `trigger`."""
        return await self._trigger_async(overrides)

    def _check(self) -> None:
        self._request({})

    def _request(self, overrides: Mapping[str, Any]) -> WorkflowInput:
        saved = {
            "id": self.workflow_id,
            "seed": self.seed,
            "workflow": self.workflow,
            "add_metadata": self.add_metadata,
            **self._machine(),
        }
        return WorkflowInput(**saved | dict(overrides) | {"nodes": {**self.nodes, **overrides.get("nodes", {})}})
