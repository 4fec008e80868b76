"""One of many concurrent processes; in its own module, so that each process imports little."""

from __future__ import annotations

import asyncio
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

from rh_prefect.works.journal.journal import FolderJournal

LONG = "x" * 200_000


def create_at_once(folder: str, n: int, start: Barrier, won: SimpleQueue[int]) -> None:
    journal = FolderJournal(folder, scope="run")
    start.wait()
    if asyncio.run(journal.create("abc-intent-1", {"token": f"t{n}", "text": str(n) + LONG})):
        won.put(n)
