from __future__ import annotations

import gc
import weakref

from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.flow_runs.suspended_runs import SuspendedRunResumer
from rh_prefect.works.loop_thread import LOOP


async def test_a_watch_that_was_closed_is_not_kept(closed_port: int) -> None:
    """Each restart of the receiver's watch left a function in the list of what the process's end calls."""
    watches: list[weakref.ref[SuspendedRunResumer]] = []
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}):
        for _ in range(3):
            resumer = SuspendedRunResumer()
            for _ in range(2):
                resumer.start()
                await LOOP.call(resumer.close())
            watches.append(weakref.ref(resumer))
            del resumer
    await LOOP.call(_a_turn())
    gc.collect()
    assert [watch() for watch in watches] == [None] * 3


async def _a_turn() -> None:
    """What the loop still had to do is done."""
