"""Saved ComfyUI workflows, AI apps and quick create; v1's task status."""

from __future__ import annotations

from typing import Literal

from rh_prefect.client import responses, wire
from rh_prefect.client.parsing import plain, table
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.session import Session, usable_id, usable_page
from rh_prefect.client.wire import App, AppListing, Page, Style, TaskView
from rh_prefect.redaction import MASK


class Workflows:
    """Reads workflows; `Client.submit` starts them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def json(self, workflow_id: str) -> dict[str, object]:
        """Fetches a workflow's graph in API format: nodes by id, each with `class_type` and `inputs` (api.md 3.4).

        An input that is a list of two is a link to another node, not a value.

        Raises:
            InputError: The id is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable answer, or no graph in it.
            ApiError: By the table of codes.
        """
        ask = RequestInfo(f"graph of workflow {workflow_id}")
        body = {"workflowId": usable_id(workflow_id, of="a workflow")}
        data = responses.with_data(await self._session.call_v1("api/openapi/getJsonApiFormat", body, ask), ask)
        graph = plain(table(data.get("prompt")))
        if not isinstance(graph, dict) or not graph:
            raise responses.no_answer(ask, "the answer holds no graph")
        return graph

    async def status_v1(self, task_id: str) -> TaskView:
        """Asks how a task is by the deprecated status endpoint, which gives no reasons and no results (api.md 3.10).

        Raises:
            InputError: The id is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable response.
            ApiError: `TaskNotFound`, or another by the table of codes.
        """
        ask = RequestInfo(f"v1 status of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        answer = await self._session.call_v1("task/openapi/status", body, ask)
        return responses.read_v1_status(answer, ask, task_id=task_id)

    async def outputs_v1(self, task_id: str) -> TaskView:
        """Asks for a task's results by the deprecated outputs endpoint (api.md 3.11).

        Queued, running and failed are states and no errors. Of a running task it may tell the `progress_url`, which no
        other endpoint does.

        Raises:
            InputError: The id is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable response.
            ApiError: `TaskNotFound`, or another by the table of codes.
        """
        ask = RequestInfo(f"v1 outputs of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        answer = await self._session.call_v1("task/openapi/outputs", body, ask)
        return responses.read_v1_outputs(answer, ask, task_id=task_id)


AppSort = Literal["RECOMMEND", "HOTTEST", "NEWEST"]


class Apps:
    """Finds AI apps; `Client.submit` starts them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def demo(self, webapp_id: str) -> App:
        """Asks what an app can be given (api.md 3.8).

        Raises:
            InputError: The id is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable response.
            ApiError: By the table of codes; 901 where the site has no such app.
        """
        ask = RequestInfo(f"call example of app {webapp_id}")
        query = f"apiKey={MASK}&webappId={usable_id(webapp_id, of='an AI app')}"
        answer = await self._session.call_with_key_in_query("api/webapp/apiCallDemo", query, ask)
        return wire.read_app(responses.with_data(answer, ask), webapp_id=webapp_id)

    async def list(
        self, *, page: int = 1, size: int = 50, sort: AppSort = "RECOMMEND", days: int = 7
    ) -> Page[AppListing]:
        """Lists public apps (api.md 3.9).

        Args:
            page: From 1.
            size: 50 at most.
            sort: Their order.
            days: How far back HOTTEST looks; the other orders do without.

        Raises:
            InputError: The page number or size is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable response.
            ApiError: By the table of codes.
        """
        usable_page(page, size, largest=50)
        ask = RequestInfo(f"page {page} of the app list")
        body: dict[str, object] = {"current": page, "size": size, "sort": sort}
        if sort == "HOTTEST":
            body["days"] = days
        answer = await self._session.call("openapi/v2/aiapp/list", body, ask)
        return wire.read_app_page(responses.with_data(answer, ask), number=page)


class QuickCreate:
    """The library of quick create; `Client.submit` starts it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def params(self, webapp_id: str, *, kind: int = 2) -> tuple[Style, ...]:
        """Lists the styles that a quick-create module offers (api.md 3.16).

        Args:
            webapp_id: The module's id.
            kind: Its `type`; 2 in every published sample.

        Raises:
            InputError: The id is not valid.
            ConnectFailed: No connection.
            ResponseLost: No readable response.
            ApiError: By the table of codes.
        """
        ask = RequestInfo(f"quick-create styles of {webapp_id}")
        body = {"type": kind, "webappId": usable_id(webapp_id, of="a quick-create module")}
        # Whether it wants a key is not confirmed: it gets both, as every v1 endpoint does.
        answer = await self._session.call_v1("api/fast/creation/model/params", body, ask)
        return wire.read_styles(responses.with_rows(answer, ask))
