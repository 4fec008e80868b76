"""Posts the end of each task to the webhook URL in the task's submission, with retries, event detail and resend."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx

from rh_prefect.emulator import task_formats
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.clock import Clock
from rh_prefect.emulator.faults import Fault, Faults, Subject
from rh_prefect.emulator.recorder import Delivery, Recorder
from rh_prefect.emulator.responses import message_of
from rh_prefect.emulator.tasks import ACTIVE, Task, Tasks
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.emulator.state import RuntimeOptions

_LOOK_SECONDS: Final = 0.02
_LATE_SECONDS: Final = 1.0
_FORGED: Final = "http://files.invalid/forged.png"


@dataclass(slots=True)
class Event:
    """The event about the end of a task, and the state of its delivery.

    Attributes:
        id: The id of the event: 19 digits; not the task's id.
        body: The posted body.
        status: `callbackStatus`.
        response: `callbackResponse`.
        retries: Number of retries.
    """

    id: str
    task: Task
    url: str
    body: dict[str, object]
    created: float
    updated: float
    status: str
    response: str = ""
    retries: int = field(default=0)

    def to_json(self, *, zone_hours: int) -> dict[str, object]:
        """Returns the event detail; its `eventData` is a string, and its times have no zone."""
        data = self.body["eventData"]
        return {
            "id": self.id,
            "userApiKey": "*" * 18,
            "taskId": self.task.id,
            "webhookUrl": self.url,
            "event": self.body["event"],
            "eventData": data if isinstance(data, str) else json.dumps(data),
            "callbackStatus": self.status,
            "callbackResponse": self.response,
            "retryCount": self.retries,
            "createTime": _time(self.created, zone_hours),
            "updateTime": _time(self.updated, zone_hours),
        }


class Webhooks:
    """Posts events about the ends of tasks; `send` and `forge` post on demand, from any thread."""

    def __init__(
        self,
        tasks: Tasks,
        recorder: Recorder,
        clock: Clock,
        *,
        faults: Faults,
        options: RuntimeOptions,
        assumptions: Assumptions,
    ) -> None:
        self._assumptions = assumptions
        self._tasks = tasks
        self._books = recorder
        self._clock = clock
        self._faults = faults
        self._options = options
        self._ids = itertools.count(2_060_000_000_000_000_000 + secrets.randbelow(10**15), 9_876_543)
        self._watched: list[Task] = []
        self._resent: list[Event] = []
        self._events: dict[str, Event] = {}
        self._wake: asyncio.Event | None = None
        self._client: httpx.AsyncClient | None = None

    def send(self, task_id: str, *, url: str | None = None, body: Mapping[str, object] | None = None) -> int:
        """Posts a task's event once, now.

        Args:
            task_id: The task.
            url: The URL; by default the URL of the task's submit.
            body: The body; by default the current state of the task.

        Returns:
            The receiver's HTTP status.
        """
        task = self._tasks.find(task_id)
        if task is None and (url is None or body is None):
            raise InputError(f"Unknown task {task_id}. What to do: give both url and body.")
        to = url or (task.spec.webhook if task else "")
        told = dict(body) if body is not None else self.body_of(task) if task else {}
        status = httpx.post(to, json=told, timeout=self._options.webhook_timeout, trust_env=False).status_code
        self._books.add_delivery(Delivery(0, task_id, to, told, status, self._clock.now()))
        return status

    def forge(self, task_id: str, *, url: str | None = None, status: str = "SUCCESS", result: str = _FORGED) -> int:
        """Posts a forged event.

        Args:
            task_id: The task.
            url: The URL; by default the URL of the task's submit.
            status: The forged status.
            result: The forged result file of a success.

        Returns:
            The receiver's HTTP status.
        """
        return self.send(task_id, url=url, body=forged(task_id, status=status, result=result))

    def watch(self, task: Task) -> None:
        """Delivers a task's event when the task ends; call it in the server's event loop."""
        self._watched.append(task)
        self._rouse()

    def event_of(self, task: Task) -> Event | None:
        """Finds the event of a task; None if the task has not ended."""
        return next((event for event in self._events.values() if event.task is task), None)

    def find(self, event_id: object, *, key: ApiKey) -> Event | None:
        """Finds an event of the key's account."""
        event = self._events.get(str(event_id))
        return event if event and event.task.spec.key.account is key.account else None

    def resend(self, event: Event, *, url: str = "") -> None:
        """Delivers an event again, optionally to another URL."""
        event.url = url or event.url
        event.status, event.response, event.retries = self._assumptions.webhook_waiting, "", 0
        self._resent.append(event)
        self._rouse()

    def events(self) -> list[dict[str, object]]:
        """Lists the details of all events."""
        return [self.shown(event) for event in list(self._events.values())]

    def shown(self, event: Event) -> dict[str, object]:
        """Returns the detail of an event."""
        return event.to_json(zone_hours=self._assumptions.webhook_zone_hours)

    def body_of(self, task: Task) -> dict[str, object]:
        """Returns the body for the current state of a task."""
        data = self._v1_data(task) if task.spec.is_v1 else self._v2_data(task)
        is_text = task.spec.is_v1 or self._options.webhook_data == "string"
        return {"event": "TASK_END", "taskId": task.id, "eventData": json.dumps(data) if is_text else data}

    def _v1_data(self, task: Task) -> dict[str, object]:
        known = self._assumptions
        if self._tasks.status(task) == "SUCCESS":
            return {"code": 0, "msg": "success", "data": task_formats.v1_outputs(known, task, seconds_as_number=True)}
        if known.webhook_v1_failed == "task":
            return self._v2_data(task)
        return {"code": 805, "msg": message_of(known, "805"), "data": task_formats.v1_failure(task)}

    def _v2_data(self, task: Task) -> dict[str, object]:
        return task_formats.queried(self._assumptions, task, self._tasks.status(task))

    async def run(self) -> None:
        """Delivers the events of tasks that have ended, until this coroutine is cancelled."""
        self._wake = asyncio.Event()
        self._wake.set()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._deliver_all(group)
        finally:
            self._wake = None
            if self._client is not None:
                await self._client.aclose()
                self._client = None

    async def _deliver_all(self, group: asyncio.TaskGroup) -> None:
        while self._watched or self._resent:
            while self._resent:
                group.create_task(self._try(self._resent.pop(0)))
            for task in [task for task in self._watched if self._has_ended(task)]:
                self._watched.remove(task)
                group.create_task(self._tell(task))
            if self._watched:
                await asyncio.sleep(_LOOK_SECONDS)

    def _rouse(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _has_ended(self, task: Task) -> bool:
        return self._tasks.status(task) not in ACTIVE

    async def _tell(self, task: Task) -> None:
        if self._tasks.status(task) == "CANCELLED" and not self._assumptions.webhook_on_cancel:
            return
        now = self._clock.now()
        body, waiting = self.body_of(task), self._assumptions.webhook_waiting
        event = Event(str(next(self._ids)), task, task.spec.webhook, body, now, now, waiting)
        self._events[event.id] = event
        fault = self._faults.match(Subject("webhook", task.endpoint, task.spec.payload))
        if fault is not None:
            await self._spoil(event, fault)
        if fault is None or fault.kind != "lost":
            await self._try(event)

    async def _spoil(self, event: Event, fault: Fault) -> None:
        match fault.kind:
            case "lost":
                event.status, event.response = "FAILED", f"I/O error on POST request for {event.url}"
                event.retries = self._assumptions.webhook_retries
            case "late":
                await asyncio.sleep(_LATE_SECONDS if fault.seconds is None else fault.seconds)
            case "doubled":
                await self._post(event, event.body)
            case "forged":
                lie = "FAILED" if self._tasks.status(event.task) == "SUCCESS" else "SUCCESS"
                await self._post(event, forged(event.task.id, status=lie))
            case _:
                return

    async def _try(self, event: Event) -> None:
        """Posts an event, with retries if the receiver does not accept the event."""
        for retry in range(self._assumptions.webhook_retries + 1):
            if retry:
                await self._wait(self._options.webhook_spacing)
                event.retries = retry
            if await self._post(event, event.body):
                event.status = "SUCCESS"
                return
            event.status = "FAILED"

    async def _wait(self, seconds: float) -> None:
        due = self._clock.now() + seconds
        while self._clock.now() < due:  # noqa: ASYNC110 - a test may move the clock at any time
            await asyncio.sleep(_LOOK_SECONDS)

    async def _post(self, event: Event, body: Mapping[str, object]) -> bool:
        status, event.response = await self._send(event.url, body)
        event.updated = self._clock.now()
        self._books.add_delivery(Delivery(0, event.task.id, event.url, body, status, event.updated))
        return 200 <= status < 300

    async def _send(self, url: str, body: Mapping[str, object]) -> tuple[int, str]:
        if self._client is None:  # only now: most emulators never deliver anything
            self._client = httpx.AsyncClient(trust_env=False)
        try:
            answer = await self._client.post(url, json=body, timeout=self._options.webhook_timeout)
        except Exception as error:  # an error here would end the delivery of all webhooks
            return 0, f"I/O error on POST request for {url}: {type(error).__name__}"
        return answer.status_code, answer.text[:500]


def forged(task_id: str, *, status: str, result: str = _FORGED) -> dict[str, object]:
    """Returns the body of a forged event."""
    results = [{"url": result, "outputType": "png", "text": None}] if status == "SUCCESS" else None
    data = {"taskId": task_id, "status": status, "errorCode": "", "errorMessage": "", "results": results}
    return {"event": "TASK_END", "taskId": task_id, "eventData": data}


def _time(seconds: float, zone_hours: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC) + timedelta(hours=zone_hours)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
