"""What the account holds and may run, and the library that its loader nodes can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from rh_prefect.client import Account as AccountFacts
from rh_prefect.client import ApiKey, Page, QueueStatus, Resource, ResourceKind
from rh_prefect.tasks.platform.base import ask, one_of, repeatable


@repeatable("account status")
async def account_status(*, credentials: str | None = None) -> AccountFacts:
    """Reads what the account holds; costs nothing.

    Args:
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.account(), credentials)


@repeatable("queue status")
async def queue_status(*, credentials: str | None = None) -> QueueStatus:
    """Reads how many tasks the key may run, runs and has waiting; costs nothing.

    Args:
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.queue_status(), credentials)


@repeatable("list of API keys")
async def list_api_keys(*, credentials: str | None = None) -> tuple[ApiKey, ...]:
    """Lists the account's keys, masked, with what each may spend and has spent; costs nothing.

    Args:
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
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
    """Searches the public models that loader nodes can name, a page at a time; costs nothing.

    Args:
        kind: UNET, CHECKPOINT, LORA or GGUF.
        name: A part of its name.
        base_models: Only those made for one of these.
        tags: Only those with one of these tags, by their ids.
        page: From 1.
        size: 50 at most.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Returns:
        The page; `node_model_name` is what a loader node takes.

    Raises:
        InputError: There is no such kind or page; nothing was sent.
    """
    one_of("kind", kind, get_args(ResourceKind))
    return await ask(
        lambda client: client.platform.resources(
            kind, name=name, base_models=base_models, tags=tags, page=page, size=size
        ),
        credentials,
    )
