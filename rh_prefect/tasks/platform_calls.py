"""Tasks for RunningHub's platform: the account, the library, workflows, apps, tasks and webhooks.

`credentials` names a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL are used.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar, get_args

from rh_prefect.blocks.lookup import load_pool_context
from rh_prefect.client import Account as AccountFacts
from rh_prefect.client import (
    ApiKey,
    App,
    AppListing,
    AppSort,
    Client,
    Page,
    QueueStatus,
    Resource,
    ResourceKind,
    Style,
    TaskView,
    WebhookEvent,
)
from rh_prefect.errors import ConnectFailed, InputError, TransportError
from rh_prefect.settings import get_settings
from rh_prefect.tasks.task_or_call import PlainTask, plain_task
from rh_prefect.works.loop_thread import LOOP

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Body: TypeAlias = Callable[P, Coroutine[Any, Any, R]]


async def ask(
    question: Callable[[Client], Coroutine[Any, Any, T]], credentials: str | None, *, of_task: str | None = None
) -> T:
    """Sends a request on the package's loop thread, over the connections that jobs use.

    In a pool, the request uses the account that has the task `of_task`, otherwise the first account.
    """
    payer = await load_pool_context(credentials)

    async def call() -> T:
        pool = payer.pool
        account = pool.accounts[0] if pool.is_single or of_task is None else await pool.find_owner(of_task)
        return await question(account.provider.client)

    return await LOOP.call(call())


def repeatable(name: str | Callable[..., str]) -> Callable[[Body[P, R]], PlainTask[P, R]]:
    """Creates a task that is retried if no response arrives, for requests that are safe to repeat."""
    return lambda body: plain_task(
        body, run_name=name, can_help=lambda error: isinstance(error, TransportError), delays=[2, 10]
    )


def once(name: str) -> Callable[[Body[P, R]], PlainTask[P, R]]:
    """Creates a task that is retried only if the request was not sent, for requests that create or end something."""
    return lambda body: plain_task(
        body, run_name=name, can_help=lambda error: isinstance(error, ConnectFailed), delays=[2, 10]
    )


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises an error if a value is not one of the allowed words."""
    if value not in allowed:
        raise InputError(
            f"{name} cannot be {value!r}; allowed values: {', '.join(allowed)}. Nothing was sent. What to do: pass one "
            "of these."
        )


def require_text(name: str, value: object) -> str:
    """Returns a value; raises `InputError` if it is not a string or if it is blank."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a non-blank string, not {value!r}. Nothing was sent. What to do: pass one.")
    return value


@repeatable("account status")
async def account_status(*, credentials: str | None = None) -> AccountFacts:
    """Returns the account's money and coins, its currency and the type of its key; costs nothing."""
    return await ask(lambda client: client.account(), credentials)


@repeatable("queue status")
async def queue_status(*, credentials: str | None = None) -> QueueStatus:
    """Returns the key's task limit, and its numbers of running and waiting tasks; costs nothing."""
    return await ask(lambda client: client.queue_status(), credentials)


@repeatable("list of API keys")
async def list_api_keys(*, credentials: str | None = None) -> tuple[ApiKey, ...]:
    """Lists the account's keys, masked, with the limit and the cost of each; costs nothing."""
    return await ask(lambda client: client.platform.api_keys(), credentials)


@repeatable("{kind} resources, page {page}")
async def list_resources(
    kind: ResourceKind,
    *,
    name: str = "",
    base_models: Sequence[str] = (),
    tags: Sequence[str] = (),
    page: int = 1,
    size: int = 50,
    credentials: str | None = None,
) -> Page[Resource]:
    """Searches the public models that loader nodes can name, at most 50 on a page; costs nothing.

    Args:
        kind: UNET, CHECKPOINT, LORA or GGUF.
        name: A part of the model's name.
        base_models: Only models for one of these base models.
        tags: Only models with one of these tags, given by id.
        page: The number of the page, from 1.
        size: The number of models on a page.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Returns:
        The page; pass `node_model_name` to a loader node.
    """
    one_of("kind", kind, get_args(ResourceKind))
    return await ask(
        lambda client: client.platform.resources(
            kind, name=name, base_models=base_models, tags=tags, page=page, size=size
        ),
        credentials,
    )


@repeatable("graph of workflow {workflow_id}")
async def workflow_json(workflow_id: str, *, credentials: str | None = None) -> dict[str, Any]:
    """Reads a saved workflow's graph in ComfyUI's API format; costs nothing."""
    return await ask(lambda client: client.workflows.json(workflow_id), credentials)


@repeatable("call example of app {webapp_id}")
async def app_call_example(webapp_id: str, *, credentials: str | None = None) -> App:
    """Reads the fields of an AI app, with the options of its lists; costs nothing."""
    return await ask(lambda client: client.apps.demo(webapp_id), credentials)


@repeatable("{sort} apps, page {page}")
async def list_apps(
    *,
    sort: AppSort = "RECOMMEND",
    days: int = 7,
    page: int = 1,
    size: int = 50,
    credentials: str | None = None,
) -> Page[AppListing]:
    """Lists public AI apps, at most 50 on a page; costs nothing. `days` is the period for HOTTEST."""
    one_of("sort", sort, get_args(AppSort))
    return await ask(lambda client: client.apps.list(sort=sort, days=days, page=page, size=size), credentials)


@repeatable("styles of quick create {webapp_id}")
async def quick_create_styles(webapp_id: str, *, kind: int = 2, credentials: str | None = None) -> tuple[Style, ...]:
    """Lists the styles of a quick-create module; `kind` is the module's `type`, which is 2 in each published sample."""
    return await ask(lambda client: client.quick_create.params(webapp_id, kind=kind), credentials)


@repeatable("query of task {task_id}")
async def query_task(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Returns a task's state, outputs and cost; costs nothing."""
    return storable(await ask(lambda client: client.query(task_id), credentials, of_task=task_id))


@repeatable("v1 status of task {task_id}")
async def task_status_v1(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Returns only a task's status, from the deprecated v1 endpoint; `query_task` returns more."""
    return storable(await ask(lambda client: client.workflows.status_v1(task_id), credentials, of_task=task_id))


@repeatable("v1 outputs of task {task_id}")
async def task_outputs_v1(task_id: str, *, credentials: str | None = None) -> TaskView:
    """Reads a task's outputs from the deprecated v1 endpoint; queued, running and failed are states, not errors."""
    return storable(await ask(lambda client: client.workflows.outputs_v1(task_id), credentials, of_task=task_id))


@once("cancellation of task {task_id}")
async def cancel_task(task_id: str, *, credentials: str | None = None) -> None:
    """Cancels a task; the cost up to then is not refunded."""
    await ask(lambda client: client.cancel(task_id), credentials, of_task=task_id)


def storable(view: TaskView) -> TaskView:
    """Returns the task without its progress address, because results are stored and the address contains a secret."""
    return view.model_copy(update={"progress_url": None})


@repeatable("webhook of task {task_id}")
async def webhook_detail(task_id: str, *, credentials: str | None = None) -> WebhookEvent:
    """Returns RunningHub's record of a task's webhook; raises `RequestRejected` if there is none yet.

    Pass its `event_id` to `resend_webhook`. The secret in the address of this package's receiver is masked.
    """
    event = await ask(lambda client: client.webhooks.detail(task_id), credentials, of_task=task_id)
    view = event.view and storable(event.view)
    return event.model_copy(update={"url": _hidden(event.url), "response": _hidden(event.response), "view": view})


@once("resend of webhook event {event_id}")
async def resend_webhook(event_id: str, *, url: str | None = None, credentials: str | None = None) -> None:
    """Requests a new delivery of an event from `webhook_detail`, to `url` or to the earlier address."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise InputError(
            "`url` is not an http(s) address. Nothing was sent. What to do: pass a receiver's address, or omit `url`."
        )
    await ask(lambda client: client.webhooks.resend(event_id, url=url), credentials)


def _hidden(text: str) -> str:
    token = get_settings().webhook_token
    return text.replace(token.get_secret_value(), "***") if token else text
