"""Saved ComfyUI workflows, and v1's own ways to ask how a task is."""

from __future__ import annotations

from rh_prefect.client import responses, task_states
from rh_prefect.client.core import Core, usable_id
from rh_prefect.client.parsing import plain, table
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.wire import TaskView


class Workflows:
    """Reads workflows; `Client.submit` starts them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def json(self, workflow_id: str) -> dict[str, object]:
        """Fetches a workflow's graph in API format: nodes by id, each with `class_type` and `inputs` (api.md 3.4).

        An input that is a list of two is a link to another node, not a value.

        Raises:
            InputError: The id is none.
            ConnectFailed: No connection.
            ResponseLost: No readable answer, or no graph in it.
            ApiError: By the table of codes.
        """
        ask = RequestInfo(f"graph of workflow {workflow_id}")
        body = {"workflowId": usable_id(workflow_id, of="a workflow")}
        data = responses.with_data(await self._core.call_v1("api/openapi/getJsonApiFormat", body, ask), ask)
        graph = plain(table(data.get("prompt")))
        if not isinstance(graph, dict) or not graph:
            raise responses.no_answer(ask, "the answer holds no graph")
        return graph

    async def status_v1(self, task_id: str) -> TaskView:
        """Asks how a task is by the deprecated status endpoint, which gives no reasons and no results (api.md 3.10).

        Raises:
            InputError: The id is none.
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: `TaskNotFound`, or another by the table of codes.
        """
        ask = RequestInfo(f"v1 status of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        answer = await self._core.call_v1("task/openapi/status", body, ask)
        return task_states.read_v1_status(answer, ask, task_id=task_id)

    async def outputs_v1(self, task_id: str) -> TaskView:
        """Asks for a task's results by the deprecated outputs endpoint (api.md 3.11).

        Queued, running and failed are states and no errors. Of a running task it may tell the `progress_url`, which no
        other endpoint does.

        Raises:
            InputError: The id is none.
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: `TaskNotFound`, or another by the table of codes.
        """
        ask = RequestInfo(f"v1 outputs of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        answer = await self._core.call_v1("task/openapi/outputs", body, ask)
        return task_states.read_v1_outputs(answer, ask, task_id=task_id)
