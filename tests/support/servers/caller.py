"""A bare HTTP client for tests of the emulator: no retries, no reading between the lines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from rh_prefect.emulator import Emulator

IMAGE = "rhart-image-v1/text-to-image"
IMAGE_PRICE = "0.07"
CLIP = "kling-v2.6-pro/image-to-video"
WORDS = {"prompt": "a lighthouse", "aspectRatio": "1:1"}

Json = dict[str, Any]


def node(node_id: object, name: str, value: object) -> Json:
    return {"nodeId": node_id, "fieldName": name, "fieldValue": value}


def read(response: httpx.Response) -> Json:
    answer: Json = response.json()
    return answer


class Caller:
    def __init__(self, rh: Emulator, key: str | None = None) -> None:
        self.rh = rh
        self.key = rh.key if key is None else key
        self.http = httpx.Client(base_url=rh.url, timeout=300)

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        return self.http.post(path, json={} if body is None else body, headers=self.bearer(), **options)

    def submit(self, endpoint: str = IMAGE, body: Json | None = None, **options: Any) -> Json:
        return read(self.post(f"/openapi/v2/{endpoint}", WORDS if body is None else body, **options))

    def query(self, task_id: str) -> Json:
        return read(self.post("/openapi/v2/query", {"taskId": task_id}))

    def v1(self, path: str, **body: object) -> Json:
        return read(self.http.post(path, json={"apiKey": self.key, **body}))

    def create(self, name: str = "text-to-image", **body: object) -> Json:
        """Starts one of the emulator's own workflows by v1."""
        return self.v1("/task/openapi/create", **{"workflowId": self.rh.workflows.id_of(name), **body})

    def started(self, name: str = "text-to-image", **body: object) -> str:
        """The id of a task that was started so."""
        return str(self.create(name, **body)["data"]["taskId"])

    def outputs(self, task_id: str) -> Json:
        return self.v1("/task/openapi/outputs", taskId=task_id)

    def cancel(self, task_id: object) -> Json:
        return self.v1("/task/openapi/cancel", taskId=task_id)

    def upload(self, path: Path) -> Json:
        with path.open("rb") as file:
            files = {"file": (path.name, file)}
            return read(self.http.post("/openapi/v2/media/upload/binary", files=files, headers=self.bearer()))

    def link(self, path: Path) -> str:
        return str(self.upload(path)["data"]["download_url"])

    def other(self, name: str = "other", **options: Any) -> Caller:
        """A caller with a new key, by default of another account."""
        return Caller(self.rh, self.rh.keys.add(name, **options).secret)

    def preview(self, endpoint: str = IMAGE, body: Json | None = None) -> Json:
        return read(self.post(f"/openapi/v2/price-preview/{endpoint}", WORDS if body is None else body))

    def asset(self, path: str, **body: object) -> Json:
        return read(self.post(f"/openapi/v2/assets/{path}", body))

    def legacy(self, name: str, content: bytes, *, part: str = "file", **fields: str) -> Json:
        """The legacy upload: the key in the form."""
        form = {"apiKey": self.key, "fileType": "input", **fields}
        return read(self.http.post("/task/openapi/upload", data=form, files={part: (name, content)}))

    def wallet(self) -> Json:
        return read(self.http.post("/uc/openapi/accountStatus", json={"apikey": self.key}))

    def event(self, task_id: str) -> Json:
        """What became of a task's webhook."""
        return self.v1("/task/openapi/getWebhookDetail", taskId=task_id)

    def ended_event(self, task_id: str, *statuses: str) -> Json:
        """The event of a task once its delivery has one of these statuses."""
        end = time.monotonic() + 300
        while (found := self.event(task_id))["data"] is None or found["data"]["callbackStatus"] not in statuses:
            assert time.monotonic() < end, found
            time.sleep(0.01)
        data: Json = found["data"]
        return data

    def queue(self) -> Json:
        return read(self.http.get("/openapi/v2/queue/status", headers=self.bearer()))

    def result(self, endpoint: str = IMAGE, body: Json | None = None) -> str:
        """The link of a finished task's first result."""
        return str(self.query(self.submit(endpoint, body)["taskId"])["results"][0]["url"])
