"""How one task at RunningHub stands, whoever started it; and its end, if it is not wanted any more."""

from __future__ import annotations

from rh_prefect.client import TaskView
from rh_prefect.tasks.platform.base import ask, once, repeatable


@repeatable("query of task {task_id}")
async def query_task(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Reads how a task stands, with its outputs and its cost; costs nothing.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return storable(await ask(lambda client: client.query(task_id), credentials, of_task=task_id))


@repeatable("v1 status of task {task_id}")
async def task_status_v1(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Reads a task's status, and no more than that, by the deprecated v1 endpoint; `query_task` says more.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return storable(await ask(lambda client: client.workflows.status_v1(task_id), credentials, of_task=task_id))


@repeatable("v1 outputs of task {task_id}")
async def task_outputs_v1(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Reads a task's outputs by the deprecated v1 endpoint; queued, running and failed are states, not errors.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return storable(await ask(lambda client: client.workflows.outputs_v1(task_id), credentials, of_task=task_id))


@once("cancel of task {task_id}")
async def cancel_task(task_id: str, *, credentials: str | None = None) -> None:
    """Cancels a task; what it has cost by then stays paid.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    await ask(lambda client: client.cancel(task_id), credentials, of_task=task_id)


def storable(view: TaskView) -> TaskView:
    """The same without its progress address: a task's result is stored, and in that address stands a secret."""
    return view.model_copy(update={"progress_url": None})
