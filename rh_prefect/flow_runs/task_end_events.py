"""Notifies waiting processes of the end of a task through Prefect events, which the receiver emits.

An event is not trusted: the notified job reads the journal or queries RunningHub.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final
from weakref import WeakSet

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_URL

from rh_prefect.prefect_internals import emit
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.loop_thread import LOOP, end_task

FINISHED: Final = "runninghub.task.finished"
_RESOURCE: Final = "runninghub.task."
_LONGEST_PAUSE: Final = 30.0
_NAMES: Final = uuid.UUID("6f1c2b0e-5d0f-4f52-9f0b-6f3a1f1f6c55")
_log = logging.getLogger("rh_prefect")


def announce(task_id: str, *, job: str, model: str, status: str, flow_run: str | None) -> None:
    """Emits an event about the end of a task; Prefect treats repeated events as one.

    Does nothing if no Prefect API is configured, because an event would start a temporary server.
    """
    if not PREFECT_API_URL.value():
        return
    emit(
        event=FINISHED,
        id=uuid.uuid5(_NAMES, f"{job}/{task_id}"),
        resource={"prefect.resource.id": f"{_RESOURCE}{task_id}", "prefect.resource.name": model},
        flow_run=flow_run,
        payload={"job": job, "task_id": task_id, "status": status},
    )


def subscribe(listener: Poller) -> None:
    """Registers a listener for ends of tasks with this process's subscription; call it on the loop thread.

    The subscription uses the Prefect API in the caller's settings. If the subscription fails, the listener is told
    that no events arrive.
    """
    url = PREFECT_API_URL.value()
    if not url:
        return
    # By loop, because a forked child has another loop, on which its parent's subscription does not run.
    key = (asyncio.get_running_loop(), url)
    if key not in _open:
        _open[key] = Subscription()
        LOOP.on_close(_open[key].close)
    _open[key].add(listener)


class Subscription:
    """A subscription to one Prefect API, which reconnects after every interruption."""

    def __init__(self) -> None:
        self._listeners: WeakSet[Poller] = WeakSet()
        self._filter = EventFilter(event=EventNameFilter(name=[FINISHED]))
        self._task: asyncio.Task[None] | None = None
        # True before the connection exists: Prefect then also sends the events of the last minute.
        self._is_on = True

    def add(self, listener: Poller) -> None:
        """Adds a listener; the first listener opens the connection."""
        if listener not in self._listeners:
            self._listeners.add(listener)
            listener.set_receiving(is_on=self._is_on)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._listen())

    async def close(self) -> None:
        """Ends the connection to Prefect; the listeners are not notified of further ends."""
        if self._task is not None:
            await end_task(self._task)

    async def _listen(self) -> None:
        breaks = 0
        while True:
            try:
                async with get_events_subscriber(filter=self._filter, reconnection_attempts=0) as events:
                    breaks = 0
                    self._turn(is_on=True)
                    async for event in events:
                        self._notify(event.resource.id)
                why = "it was closed"
            except Exception as error:  # waiting continues without events
                why = f"{type(error).__name__}: {error}"
            self._turn(is_on=False)
            breaks += 1
            if breaks == 2:  # a single interruption is normal: servers are restarted
                _log.warning(
                    "the ends of tasks are detected only by polling, because Prefect's events are not received: %s", why
                )
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.25 * 2**breaks))

    def _turn(self, *, is_on: bool) -> None:
        self._is_on = is_on
        for listener in tuple(self._listeners):
            listener.set_receiving(is_on=is_on)

    def _notify(self, resource: str) -> None:
        if resource.startswith(_RESOURCE):
            for listener in tuple(self._listeners):
                listener.wake(resource.removeprefix(_RESOURCE))


_open: dict[tuple[asyncio.AbstractEventLoop, str], Subscription] = {}
