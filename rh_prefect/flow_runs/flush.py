"""Sends what Prefect still holds back of logs and events, while there is a server that takes it."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker


async def drain() -> None:
    """Waits until Prefect has sent all; at the process's end, without a server, it would try for a minute.

    What no server has taken within half a minute is given up: the work itself is done by then.
    """
    for drained in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(drained):
            with suppress(TimeoutError):
                await asyncio.wait_for(drained, 30)
