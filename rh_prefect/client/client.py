"""RunningHub's API as async methods, one per endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, get_args

import httpx
from pydantic import SecretStr

from rh_prefect.client import responses
from rh_prefect.client.assets import Assets
from rh_prefect.client.download import Progress, download, is_data_url, write_data
from rh_prefect.client.endpoint_groups import Apps, Platform, QuickCreate, Webhooks, Workflows
from rh_prefect.client.json_values import first_text
from rh_prefect.client.native_comfyui import NativeProxy
from rh_prefect.client.request_sender import PACE_SECONDS, V1_KEY, Session, usable_id
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.upload_body import FileBody, RawBody, readable
from rh_prefect.client.wire.account_files_and_assets import (
    Account,
    Download,
    PricePreview,
    QueueStatus,
    Upload,
    read_price,
)
from rh_prefect.client.wire.task import TaskView
from rh_prefect.errors import ConfigError, InputError, MediaError, PriceUnknown
from rh_prefect.settings import checked_site

DEFAULT_BASE_URL: Final = "https://www.runninghub.cn"
V1Submit = Literal["/task/openapi/create", "/task/openapi/ai-app/run", "/task/openapi/quick-ai-app/run"]
"""The v1 endpoints that start a workflow, an AI app and a quick-create module."""

LEGACY_UPLOAD_BYTES: Final = 30 * 1024 * 1024
"""Maximum size of a legacy upload; for a larger file, RunningHub answers with code 809."""
_NO_PRICE: Final = "PRICE_CONFIG_NOT_FOUND"
"""RunningHub's message for a price preview without a price."""

_ENDPOINT: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class Client:
    """A client for one RunningHub account.

    A client belongs to one event loop. No repr, log, error or value contains the key. Every method, including those of
    the attributes, raises `InputError` for an invalid id, page or request (nothing was sent); `ConnectFailed` if there
    is no connection; `ResponseLost` if there is no readable response; and the `ApiError` for RunningHub's code, such as
    `KeyRejected`, `Busy` or `TaskNotFound`. The methods' docstrings list only additional errors.

    Args:
        api_key: The account's key.
        base_url: The site: `https://www.runninghub.cn`, `https://www.runninghub.ai`, or an emulator.
        submit_timeout: The hard time limit for a submission, in seconds; afterwards, the response counts as lost.
        pace_seconds: Seconds for which any other call is retried while RunningHub is too busy.
        transport: Replaces the network, for tests.

    Attributes:
        workflows: Saved ComfyUI workflows, and v1's task status.
        apps: AI apps.
        quick_create: The style library of quick create.
        webhooks: Records of webhook deliveries.
        platform: The account's keys and the public models.
        assets: Registered media for Seedance and SparkVideo.
        comfy: ComfyUI's own API, on a 24 GB machine.
        comfy_plus: ComfyUI's own API, on a 48 GB machine.

    Raises:
        ConfigError: The key or the base URL is not valid.

    Example:
        ```python
        async with Client(key) as client:
            task = await client.submit("alibaba/wan-2.6/text-to-video", {"prompt": "a paper boat", "duration": "5"})
            task = await client.query(task.task_id)
        ```
    """

    def __init__(
        self,
        api_key: str | SecretStr,
        *,
        base_url: str = DEFAULT_BASE_URL,
        submit_timeout: float = 60.0,
        pace_seconds: float = PACE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        # This replaces the plain key before anything else can fail: a traceback may show the variables of this frame.
        api_key = _usable_key(api_key)
        self._base_url = httpx.URL(checked_site(base_url))
        self._session = Session(
            api_key, self._base_url, submit_timeout=submit_timeout, pace_seconds=pace_seconds, transport=transport
        )
        self.workflows = Workflows(self._session)
        self.apps = Apps(self._session)
        self.quick_create = QuickCreate(self._session)
        self.webhooks = Webhooks(self._session)
        self.platform = Platform(self._session)
        self.assets = Assets(self._session)
        self.comfy = NativeProxy(self._session, "proxy")
        self.comfy_plus = NativeProxy(self._session, "proxy-plus")

    def __repr__(self) -> str:
        return f"<Client site={self.site!r} account={self.account_id!r}>"

    @property
    def site(self) -> str:
        """The host name of the base URL, such as "www.runninghub.cn"."""
        return self._base_url.host

    @property
    def account_id(self) -> str:
        """A fingerprint of the key (12 hex digits) that identifies the account."""
        return hashlib.sha256(self._session.key.get_secret_value().encode()).hexdigest()[:12]

    async def submit(self, endpoint: str, payload: Mapping[str, object], *, webhook_url: str | None = None) -> TaskView:
        """Creates a task, which costs money. The request is sent once and never retried.

        Args:
            endpoint: The model's path, as in `alibaba/wan-2.6/text-to-video`; `run/workflow/ID` or `run/ai-app/ID`; one
                of `V1Submit`; or one of `NativeSubmit`, with a graph in API format as the payload's `prompt`.
            payload: The wire parameters, without the key.
            webhook_url: The URL that RunningHub calls when the task ends; not for native submissions.

        Returns:
            The task; it may have ended already.

        Raises:
            InputError: The request cannot be written as JSON; nothing was sent.
            ConnectFailed: The request was not sent.
            ResponseLost: The task may have been accepted.
            ApiError: RunningHub answered with a code; `OutcomeUnknown` if the task may have been accepted.
        """
        if (machine := self._machine_of(endpoint)) is not None:
            return await machine.submit(payload)
        ask = RequestInfo(f"submit to {endpoint}", paid=True)
        body = dict(payload) if webhook_url is None else {**payload, "webhookUrl": webhook_url}
        is_v1 = endpoint in get_args(V1Submit)
        path, key_field = (endpoint.lstrip("/"), V1_KEY) if is_v1 else (f"openapi/v2/{_path(endpoint)}", None)
        session = self._session
        client, limit = session.pools.submits, session.submit_timeout
        request = session.json_request(client, path, body, ask, key_field=key_field)
        status, content = await session.exchange(client, request, ask, deadline=limit)
        return responses.submitted(responses.read(status, content, ask))

    async def query(self, task_id: str) -> TaskView:
        """Returns a task's state, even if the task failed."""
        if (machine := self._machine_of(task_id)) is not None:
            return await machine.query(task_id)
        ask, task_id = RequestInfo(f"query of task {task_id}"), usable_id(task_id, of="a task")
        return responses.parse_query(await self._session.call("openapi/v2/query", {"taskId": task_id}, ask), task_id)

    async def cancel(self, task_id: str) -> None:
        """Cancels a queued or running task; a query returns the outcome."""
        if (machine := self._machine_of(task_id)) is not None:
            await machine.cancel(task_id)
            return
        ask, task_id = RequestInfo(f"cancellation of task {task_id}"), usable_id(task_id, of="a task")
        (await self._session.call_v1("task/openapi/cancel", {"taskId": task_id}, ask)).checked()

    async def queue_status(self) -> QueueStatus:
        """Returns the key's task limit and number of running tasks; this is the cheapest way to check a key."""
        # A job that waits for a slot calls this again anyway.
        ask = RequestInfo("queue status", pace_seconds=2.0)
        answer = await self._session.call("openapi/v2/queue/status", None, ask)
        return QueueStatus.read(answer.with_data())

    async def account(self, *, pace_seconds: float | None = None) -> Account:
        """Returns the account's balance.

        Args:
            pace_seconds: Seconds for which the request is repeated while RunningHub is too busy; None for the client's
                default.
        """
        ask = RequestInfo("account status", pace_seconds=pace_seconds)
        # This endpoint alone spells the field in lower case.
        answer = await self._session.call("uc/openapi/accountStatus", {}, ask, key_field="apikey")
        return Account.read(answer.with_data())

    async def price_preview(self, endpoint: str, payload: Mapping[str, object]) -> PricePreview:
        """Returns the price of a submission and creates nothing. Raises `PriceUnknown` if the response has no price."""
        ask = RequestInfo(f"price preview of {endpoint}")
        if endpoint in get_args(V1Submit) or self._machine_of(endpoint) is not None:
            raise PriceUnknown(
                f"{ask.doing}: RunningHub has no price preview for this endpoint. Nothing was sent. What to do: run it "
                "without a budget."
            )
        answer = await self._session.call(f"openapi/v2/price-preview/{_path(endpoint)}", dict(payload), ask)
        price, what = None, "RunningHub has no price"
        if _NO_PRICE not in answer.reason:  # whose code, 1501, is also the code of the content check
            answer.checked()
            price, what = read_price(answer.source) or read_price(answer.data), "the response has no price"
        if price is None:
            raise PriceUnknown(
                f"{ask.doing}: {what}. Nothing was paid. What to do: look for the price on the model's page."
            )
        return price

    async def upload(self, path: Path, *, name: str, mime: str) -> Upload:
        """Sends a file, streamed from disk; RunningHub keeps the file for a day.

        Args:
            path: A local file.
            name: The name that is sent; its extension matters.
            mime: The file's MIME type.

        Raises:
            MediaError: The file cannot be read, or changed during the upload.
        """
        ask = RequestInfo(f"upload of {path}")
        body = await asyncio.to_thread(FileBody, path, name=name, mime=mime)
        return await self._uploaded("openapi/v2/media/upload/binary", body, ask)

    async def upload_legacy(
        self, path: Path, *, name: str, mime: str, file_type: Literal["input", "image", "video", "audio"] = "input"
    ) -> Upload:
        """Sends a file of at most 30 MB to the deprecated endpoint, like `upload`; the result has no `url`.

        `file_type` is sent as `fileType`, a field from older versions of the API.

        Raises:
            MediaError: The file is too large, cannot be read, or changed during the upload.
        """
        ask = RequestInfo(f"legacy upload of {path}")
        fields, secrets = {"fileType": file_type}, {V1_KEY: self._session.key}
        body = await asyncio.to_thread(FileBody, path, name=name, mime=mime, fields=fields, secrets=secrets)
        if body.size > LEGACY_UPLOAD_BYTES:
            limit = "the legacy upload accepts 30 MB at most (RunningHub's code 809)"
            raise MediaError(
                f"{path} is too large: it has {body.size} bytes, and {limit}. What to do: use `upload`, or pass a URL."
            )
        return await self._uploaded("task/openapi/upload", body, ask)

    async def upload_lora(self, path: Path, *, name: str) -> str:
        """Uploads a LoRA under a name, unless RunningHub already has a file with the same MD5.

        Returns:
            The LoRA's `file_name` for an RHLoraLoader node; no other loader node finds the file.

        Raises:
            MediaError: The file cannot be read, or changed during the upload.
            LinkExpired: The signed upload URL was rejected.
        """
        if not name.strip():
            raise InputError(f"{path}: a LoRA needs a name. Nothing was sent. What to do: pass `name`.")
        ask = RequestInfo(f"upload of LoRA {path}")
        body = await asyncio.to_thread(RawBody, path)
        params = {"loraName": name, "md5Hex": await asyncio.to_thread(_md5, path)}
        data = (await self._session.call_v1("api/openapi/getLoraUploadUrl", params, ask)).with_data()
        file_name, url = first_text(data, "fileName"), first_text(data, "url")
        if not file_name:
            raise responses.no_answer(ask, "the response contains no file name")
        if url and not url.startswith(("http://", "https://")):
            raise responses.no_answer(ask, "the upload URL is not valid")
        if url:  # without one, RunningHub has the file already
            await self._session.put(url, body, ask)
        return file_name

    async def _uploaded(self, path: str, body: FileBody, ask: RequestInfo) -> Upload:
        client = self._session.pools.uploads
        request = client.build_request("POST", path, content=body, headers=body.headers)
        upload = Upload.read((await self._session.resent(client, request, ask)).with_data(), size=body.size)
        if not upload.url and not upload.file_name:
            raise responses.no_answer(ask, "the response contains no file name")
        return upload

    async def download(self, url: str, to: Path, *, progress: Progress | None = None) -> Download:
        """Downloads a result, or the missing rest of a result, from the file host.

        Args:
            url: The URL; a `data:` URL is decoded. The API key is not sent: file hosts are third parties.
            to: The local file. An earlier partial download is resumed if the resume file next to it (`to` +
                `.resume`) and the server agree that the remote file is unchanged; a finished file is kept.
                `discard_partial` removes the local file and the resume file.
            progress: Called with the number of bytes on disk and, if known, the total number of bytes.

        Raises:
            LinkExpired: The link no longer works.
            ResponseLost: The body was cut or has the wrong length. The next call continues with the missing rest if the
                server sent an ETag or a date; otherwise, it begins again.
            StoreError: The bytes cannot be written.
        """
        if (machine := self._machine_of(url)) is not None:
            return await machine.fetch(url, to)
        if is_data_url(url):
            return await asyncio.to_thread(write_data, url, to)
        async with self._session.downloads:
            return await download(self._session.pools.files, url, to, progress=progress)

    def _machine_of(self, name: str) -> NativeProxy | None:
        """Returns the native-proxy machine that an endpoint, task or URL belongs to; None if it belongs to none."""
        return next((machine for machine in (self.comfy, self.comfy_plus) if machine.owns(name)), None)

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._session.pools.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _path(endpoint: str) -> str:
    path = endpoint.strip("/")
    # Below /openapi/v2/, no v1 endpoint exists, and the response would look lost.
    is_v1 = path.startswith("task/openapi/")
    if is_v1 or not _ENDPOINT.fullmatch(path):
        others = f", or one of the v1 endpoints {', '.join(get_args(V1Submit))}" if is_v1 else ""
        raise InputError(
            f"{endpoint!r} is not a valid endpoint. Nothing was sent. What to do: pass a model's path, as in "
            f"alibaba/wan-2.6/text-to-video{others}."
        )
    return path


def _md5(path: Path) -> str:
    with readable(path), path.open("rb") as file:
        # RunningHub's key for the file; nothing is secured by it.
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _usable_key(api_key: str | SecretStr) -> SecretStr:
    api_key = SecretStr((api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key).strip())
    if not api_key.get_secret_value():
        raise ConfigError("The API key is missing. What to do: set RH_API_KEY, or use a RunningHubCredentials block.")
    if not re.fullmatch(r"[!-~]+", api_key.get_secret_value()):
        raise ConfigError(
            "The API key contains characters that are not allowed in a key. What to do: copy it again from "
            "RunningHub's site."
        )
    return api_key
