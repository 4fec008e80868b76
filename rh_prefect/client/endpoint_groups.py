"""Client methods for keys, the model library, webhook deliveries, saved workflows, AI apps and quick create."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rh_prefect.client import responses
from rh_prefect.client.json_values import Page, plain, table
from rh_prefect.client.request_sender import Requests, usable_id, usable_page
from rh_prefect.client.responses import ApiResponse, RequestInfo, read_webhook_payload
from rh_prefect.client.wire.account_files_and_assets import ApiKey, Resource, read_resource_page
from rh_prefect.client.wire.apps import App, AppListing, Style, read_app, read_app_page, read_style
from rh_prefect.client.wire.task import TaskView, WebhookEvent
from rh_prefect.redaction import MASK

ResourceKind = Literal["UNET", "CHECKPOINT", "LORA", "GGUF"]


class Platform(Requests):
    """Requests about the account's API keys and the public models."""

    async def api_keys(self) -> tuple[ApiKey, ...]:
        """Lists the account's keys, masked."""
        answer = await self._session.call("openapi/v2/api-key/list", None, RequestInfo("list of API keys"))
        return tuple(map(ApiKey.read, answer.with_rows()))

    async def resources(
        self,
        kind: ResourceKind,
        *,
        name: str = "",
        base_models: Sequence[str] = (),
        tags: Sequence[str] = (),
        page: int = 1,
        size: int = 50,
    ) -> Page[Resource]:
        """Searches the public models that loader nodes can use, at most 50 on a page; `tags` are tag ids."""
        usable_page(page, size, largest=50)
        ask = RequestInfo(f"page {page} of the {kind} resources")
        ids = [int(tag) if tag.isascii() and tag.isdigit() else tag for tag in tags]  # clients send numbers
        filters: dict[str, object] = {"resourceName": name, "baseModels": list(base_models), "tags": ids}
        body = {"resourceType": kind, "current": page, "size": size, **{k: v for k, v in filters.items() if v}}
        answer = await self._session.call("openapi/v2/resource/list", body, ask)
        return read_resource_page(answer.with_data(), number=page)


class Webhooks(Requests):
    """Queries webhook deliveries. `read_delivery` reads the bodies of deliveries."""

    async def detail(self, task_id: str) -> WebhookEvent:
        """Returns the delivery state of a task's webhook; raises the error for code 1 if there is none yet."""
        ask = RequestInfo(f"webhook of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        data = (await self._session.call_v1("task/openapi/getWebhookDetail", body, ask)).with_data()
        view = read_webhook_payload(data.get("eventData"), task_id=task_id)
        event = WebhookEvent.read(data, task_id=task_id, view=view)
        if not event.event_id:
            raise responses.no_answer(ask, "the response contains no event id")
        return event

    async def resend(self, event_id: str, *, url: str | None = None) -> None:
        """Requests another delivery of the event with this id, to `url` or to the event's original address."""
        ask = RequestInfo(f"resend of webhook event {event_id}")
        body: dict[str, object] = {"webhookId": usable_id(event_id, of="a webhook event")}
        if url is not None:
            body["webhookUrl"] = url
        (await self._session.call_v1("task/openapi/retryWebhook", body, ask)).checked()


class Workflows(Requests):
    """Reads workflows; `Client.submit` starts them."""

    async def json(self, workflow_id: str) -> dict[str, object]:
        """Fetches a workflow's graph in API format: nodes by id, each with `class_type` and `inputs`.

        An input that is a list of two items is a link to another node, not a value.
        """
        ask = RequestInfo(f"graph of workflow {workflow_id}")
        body = {"workflowId": usable_id(workflow_id, of="a workflow")}
        data = (await self._session.call_v1("api/openapi/getJsonApiFormat", body, ask)).with_data()
        graph = plain(table(data.get("prompt")))
        if not isinstance(graph, dict) or not graph:
            raise responses.no_answer(ask, "the response contains no graph")
        return graph

    async def status_v1(self, task_id: str) -> TaskView:
        """Returns a task's state from the deprecated status endpoint, without reasons and results."""
        return await self._v1("status", task_id, responses.by_word)

    async def outputs_v1(self, task_id: str) -> TaskView:
        """Returns a task's results from the deprecated outputs endpoint.

        If the task is queued, running or failed, returns this state and raises no error. Only this endpoint returns the
        `progress_url` of a running task.
        """
        return await self._v1("outputs", task_id, responses.by_outputs)

    async def _v1(self, what: str, task_id: str, read: Callable[[ApiResponse, str], TaskView | None]) -> TaskView:
        ask = RequestInfo(f"v1 {what} of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        return responses.read_v1(await self._session.call_v1(f"task/openapi/{what}", body, ask), read, task_id)


AppSort = Literal["RECOMMEND", "HOTTEST", "NEWEST"]


class Apps(Requests):
    """Finds AI apps; `Client.submit` starts them."""

    async def demo(self, webapp_id: str) -> App:
        """Returns the inputs that an app accepts; raises the error for code 901 if the site has no such app."""
        ask = RequestInfo(f"call example of app {webapp_id}")
        query = f"apiKey={MASK}&webappId={usable_id(webapp_id, of='an AI app')}"
        client = self._session.pools.calls
        request = self._session.masked_request(client, "GET", f"api/webapp/apiCallDemo?{query}")
        answer = await self._session.resent(client, request, ask)
        return read_app(answer.with_data(), webapp_id=webapp_id)

    async def list(
        self, *, page: int = 1, size: int = 50, sort: AppSort = "RECOMMEND", days: int = 7
    ) -> Page[AppListing]:
        """Lists public apps, at most 50 on a page; `days` is the period for the sort order HOTTEST."""
        usable_page(page, size, largest=50)
        ask = RequestInfo(f"page {page} of the app list")
        body: dict[str, object] = {"current": page, "size": size, "sort": sort}
        if sort == "HOTTEST":
            body["days"] = days
        answer = await self._session.call("openapi/v2/aiapp/list", body, ask)
        return read_app_page(answer.with_data(), number=page)


class QuickCreate(Requests):
    """The style library of quick create; `Client.submit` starts a quick-create module."""

    async def params(self, webapp_id: str, *, kind: int = 2) -> tuple[Style, ...]:
        """Lists the styles of a quick-create module; `kind` is sent as `type`, which is 2 in all samples."""
        ask = RequestInfo(f"quick-create styles of {webapp_id}")
        body = {"type": kind, "webappId": usable_id(webapp_id, of="a quick-create module")}
        # Whether this endpoint needs the key is not confirmed; like every v1 endpoint, it gets the key in the body too.
        answer = await self._session.call_v1("api/fast/creation/model/params", body, ask)
        return tuple(map(read_style, answer.with_rows()))
