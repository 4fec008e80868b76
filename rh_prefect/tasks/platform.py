"""RunningHub's platform as tasks: workflows, AI apps, quick create, and what can be asked for nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import SecretStr
from typing_extensions import TypedDict

from rh_prefect.blocks.lookup import load_credentials
from rh_prefect.client import Account as AccountFacts
from rh_prefect.client import App, Asset, Client, QueueStatus, TaskView
from rh_prefect.jobs.account import Options, account
from rh_prefect.jobs.result import Result
from rh_prefect.jobs.thread import LOOP
from rh_prefect.settings import get_settings
from rh_prefect.tasks.generate import can_help, run_job
from rh_prefect.workflows import AppInput, InstanceType, QuickCreateInput, WorkflowInput

T = TypeVar("T")


class JobOptions(TypedDict, total=False):
    """The options of every paid task; see `rh_prefect.tasks.generate.generate`."""

    label: str | None
    reuse: Literal["never", "always"]
    on_unknown: Literal["raise", "resubmit"]
    max_attempts: int
    budget: float | None
    deadline: float | None
    credentials: str | None
    storage: str | None
    key: str | None


@task(
    task_run_name="workflow {workflow_id}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=can_help,
)
async def run_workflow(
    workflow_id: str,
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    instance_type: InstanceType = "default",
    retain_seconds: int | None = None,
    use_personal_queue: bool = False,
    workflow: dict[str, Any] | None = None,
    add_metadata: bool = True,
    access_password: str | None = None,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a saved ComfyUI workflow, pays for it once, and brings its outputs into your storage.

    Args:
        workflow_id: RunningHub's id of the workflow.
        nodes: `<node id>.<field>` -> value, as in `{"6.text": "a lighthouse", "10.image": photo}`; each is checked
            against the saved graph before anything is sent.
        seed: Sets every seed that `nodes` does not set.
        instance_type: `default` (24 GB), `plus` (48 GB) or `ultra`.
        retain_seconds: How long the machine is kept warm, 10 to 180; it costs.
        use_personal_queue: Queue when the account's own machines are busy.
        workflow: A whole API-format graph to run in place of the saved one.
        add_metadata: Whether pictures carry the graph in their metadata.
        access_password: Of an encrypted workflow; it reaches no record of ours.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs of all save nodes, in the storage.

    Raises:
        InputError: A node or field does not exist, or is fed by another node; nothing was sent.
        JobFailed: The workflow failed; names the node and its exception.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    asked = WorkflowInput(
        id=workflow_id,
        nodes=dict(nodes or {}),
        seed=seed,
        instance_type=instance_type,
        retain_seconds=retain_seconds,
        use_personal_queue=use_personal_queue,
        workflow=workflow,
        add_metadata=add_metadata,
        access_password=None if access_password is None else SecretStr(access_password),
    )
    return await run_job(asked, Options(**options), scope=scope)


@task(
    task_run_name="app {webapp_id}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=can_help,
)
async def run_app(
    webapp_id: str,
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    instance_type: InstanceType = "default",
    retain_seconds: int | None = None,
    use_personal_queue: bool = False,
    access_password: str | None = None,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs an AI app, pays for it once, and brings its outputs into your storage.

    Args:
        webapp_id: RunningHub's id of the app.
        nodes: `<node id>.<field>` -> value; `app_call_example` lists what an app takes.
        seed: Sets every seed that the app shows and `nodes` does not set.
        instance_type: `default` (24 GB), `plus` (48 GB) or `ultra`.
        retain_seconds: How long the machine is kept warm, 10 to 180; it costs.
        use_personal_queue: Queue when the account's own machines are busy.
        access_password: Of an encrypted app; it reaches no record of ours.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs, in the storage.

    Raises:
        InputError: A field does not exist, or its value is none of its options; nothing was sent.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    asked = AppInput(
        id=webapp_id,
        nodes=dict(nodes or {}),
        seed=seed,
        instance_type=instance_type,
        retain_seconds=retain_seconds,
        use_personal_queue=use_personal_queue,
        access_password=None if access_password is None else SecretStr(access_password),
    )
    return await run_job(asked, Options(**options), scope=scope)


@task(
    task_run_name="quick create {webapp_id}/{code}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=can_help,
)
async def quick_create(
    webapp_id: str,
    code: str,
    nodes: Sequence[Mapping[str, Any]],
    *,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a module of the site's quick create, pays for it once, and brings its outputs into your storage.

    Args:
        webapp_id: The module's id.
        code: Its `quickCreateCode`, as its page shows it.
        nodes: Its `nodeInfoList`, as its page shows it.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs, in the storage.
    """
    asked = QuickCreateInput(id=webapp_id, code=code, nodes=tuple(dict(node) for node in nodes))
    return await run_job(asked, Options(**options), scope=scope)


@task(cache_policy=NO_CACHE)
async def workflow_json(workflow_id: str, *, credentials: str | None = None) -> dict[str, Any]:
    """Reads a saved workflow's graph in ComfyUI's API format; costs nothing.

    Args:
        workflow_id: RunningHub's id of the workflow.
        credentials: Name of a `RunningHubCredentials` block.
    """
    return await _ask(lambda client: client.workflows.json(workflow_id), credentials)


@task(cache_policy=NO_CACHE)
async def app_call_example(webapp_id: str, *, credentials: str | None = None) -> App:
    """Reads what an AI app takes, with the options of its lists; costs nothing.

    Args:
        webapp_id: RunningHub's id of the app.
        credentials: Name of a `RunningHubCredentials` block.
    """
    return await _ask(lambda client: client.apps.demo(webapp_id), credentials)


@task(cache_policy=NO_CACHE)
async def account_status(*, credentials: str | None = None) -> AccountFacts:
    """Reads what the account holds; costs nothing.

    Args:
        credentials: Name of a `RunningHubCredentials` block.
    """
    return await _ask(lambda client: client.account(), credentials)


@task(cache_policy=NO_CACHE)
async def queue_status(*, credentials: str | None = None) -> QueueStatus:
    """Reads how many tasks the key may run, runs and has waiting; costs nothing.

    Args:
        credentials: Name of a `RunningHubCredentials` block.
    """
    return await _ask(lambda client: client.queue_status(), credentials)


@task(cache_policy=NO_CACHE)
async def query_task(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Reads how a task stands, whoever started it; costs nothing.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` block.
    """
    return await _ask(lambda client: client.query(task_id), credentials)


@task(cache_policy=NO_CACHE)
async def cancel_task(task_id: str, *, credentials: str | None = None) -> None:
    """Cancels a task, whoever started it.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` block.
    """
    await _ask(lambda client: client.cancel(task_id), credentials)


@task(cache_policy=NO_CACHE)
async def upload_lora(path: str, *, name: str, credentials: str | None = None) -> str:
    """Uploads a LoRA for a RHLoraLoader node; one that RunningHub has already is not sent again.

    Args:
        path: The file on this machine.
        name: Its name at RunningHub.
        credentials: Name of a `RunningHubCredentials` block.

    Returns:
        What the node's `file_name` takes.
    """
    return await _ask(lambda client: client.upload_lora(Path(path), name=name), credentials)


@task(cache_policy=NO_CACHE)
async def register_asset(
    url: str,
    *,
    group_id: str,
    kind: Literal["Image", "Video", "Audio"],
    name: str,
    credentials: str | None = None,
) -> Asset:
    """Registers media once, so that Seedance takes real persons in it, and waits until it can be used.

    Args:
        url: A link that RunningHub can read.
        group_id: The group that it belongs to.
        kind: What it is.
        name: Its name.
        credentials: Name of a `RunningHubCredentials` block.

    Returns:
        The asset; give `asset://<asset id>` where a model takes media.
    """

    async def register(client: Client) -> Asset:
        made = await client.assets.create(url, group_id=group_id, kind=kind, name=name)
        return await client.assets.wait(made.asset_id)

    return await _ask(register, credentials)


async def _ask(question: Callable[[Client], Coroutine[Any, Any, T] | Awaitable[T]], credentials: str | None) -> T:
    """Asks RunningHub on the package's loop thread, over the connections that its jobs use."""
    paying = await load_credentials(credentials)

    async def ask() -> T:
        desk = account(paying.api_key, base_url=paying.base_url, settings=get_settings(), name=paying.account)
        return await question(desk.client)

    return await LOOP.call(ask())
