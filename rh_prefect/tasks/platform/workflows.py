"""What there is to run on RunningHub's site, and what it takes; all of it costs nothing to ask."""

from __future__ import annotations

from typing import Any, get_args

from rh_prefect.client import App, AppListing, AppSort, Page, Style
from rh_prefect.tasks.platform.base import ask, one_of, repeatable


@repeatable("graph of workflow {workflow_id}")
async def workflow_json(workflow_id: str, *, credentials: str | None = None) -> dict[str, Any]:
    """Reads a saved workflow's graph in ComfyUI's API format; costs nothing.

    Args:
        workflow_id: RunningHub's id of the workflow.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.workflows.json(workflow_id), credentials)


@repeatable("call example of app {webapp_id}")
async def app_call_example(webapp_id: str, *, credentials: str | None = None) -> App:
    """Reads what an AI app takes, with the options of its lists; costs nothing.

    Args:
        webapp_id: RunningHub's id of the app.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
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
    """Lists public AI apps, a page at a time; costs nothing.

    Args:
        sort: RECOMMEND, HOTTEST or NEWEST.
        days: How far back HOTTEST looks; the other orders do without.
        page: From 1.
        size: 50 at most.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Returns:
        The page; `has_next` says whether there is another.

    Raises:
        InputError: There is no such order or page; nothing was sent.
    """
    one_of("sort", sort, get_args(AppSort))
    return await ask(lambda client: client.apps.list(sort=sort, days=days, page=page, size=size), credentials)


@repeatable("styles of quick create {webapp_id}")
async def quick_create_styles(webapp_id: str, *, kind: int = 2, credentials: str | None = None) -> tuple[Style, ...]:
    """Lists the styles that a module of quick create offers; costs nothing.

    Args:
        webapp_id: The module's id.
        kind: Its `type`; 2 in every published sample.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.quick_create.params(webapp_id, kind=kind), credentials)
