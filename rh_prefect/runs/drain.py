"""Sends what Prefect still holds back of logs and events, while there is a server that takes it."""

from __future__ import annotations

import asyncio
import inspect

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker


async def drain() -> None:
    """Waits until Prefect has sent all; at the process's end, without a server, it would try for a minute."""
    for drained in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(drained):
            await asyncio.wait_for(drained, 30)
