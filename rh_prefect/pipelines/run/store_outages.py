"""Repeats an action while the storage or the records do not respond."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rh_prefect.client.http_connections import chance
from rh_prefect.errors import JournalError, StoreError

STORE_PAUSES = (5.0, 30.0)
"""Seconds before each repetition, for a step."""

_log = logging.getLogger("rh_prefect")
T = TypeVar("T")


async def while_store_is_away(make: Callable[[], Awaitable[T]], *, jitter: Callable[[], float] = chance) -> T:
    """Runs an action; repeats it after each pause while the storage or the records do not respond."""
    for pause in STORE_PAUSES:
        try:
            return await make()
        except (StoreError, JournalError) as error:
            if error.is_permanent:
                raise
            seconds = pause * (1 + jitter() / 2)
            _log.warning("%s Trying again in %.0f s.", error, seconds)
        await asyncio.sleep(seconds)
    return await make()
