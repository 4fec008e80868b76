"""Records of jobs for tests, with defaults."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rh_prefect.errors import api_error, explain
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.job_records_and_state import JobView
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import BROKEN, Answer, End, Intent, Owner, Record, Resolution, current_owner
from rh_prefect.works.journal.works_journal import default_works
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

KEY = "0123456789abcdef01234567"
TASK = "2031112223334445057"
BASE = "b" * 40
SOMEWHERE_ELSE = Owner(host="elsewhere", boot="other", pid=1, started="1")


def intent(**facts: Any) -> Intent:
    said = {
        "owner": SOMEWHERE_ELSE,
        "account": "acc",
        "site": "site",
        "model": "some/model",
        "endpoint": "some/model",
        "payload": {"prompt": "a lighthouse"},
        "base": BASE,
    }
    return Intent(**(said | facts))


def ticket(task_id: str = TASK) -> Answer:
    return Answer(outcome="ticket", task_id=task_id)


def unknown(reason: str = "read timeout") -> Answer:
    return Answer(outcome="unknown", reason=reason, retry="unknown")


def adopted_late(**facts: Any) -> dict[str, Record]:
    """The task of a forgotten submission, which a person has adopted for the next one."""
    forgotten, adopted = Resolution(outcome="forgotten"), Resolution(outcome="adopted", task_id=TASK)
    first = {"intent-1": intent(**facts), "answer-1": unknown(), "resolution-1": forgotten, "late-1": ticket()}
    return {**first, "intent-2": intent(**facts), "answer-2": unknown(), "resolution-2": adopted}


def refused(code: str, reason: str = "") -> Answer:
    return Answer.of(api_error(code, reason, doing="submit", submitting=True))


def failed(code: str, *, task_id: str = "1", attempt: int = 1) -> End:
    return End(
        status="FAILED",
        task_id=task_id,
        code=code,
        attempt=attempt,
        next_task="never" if code == BROKEN else explain(code).next_task,
        advice=explain(code).failure_advice,
    )


def is_hopeless(code: str) -> bool:
    """Whether a task that failed with this code would fail again with the same request."""
    return code == BROKEN or explain(code).next_task == "never"


async def write(journal: Journal, records: Mapping[str, Record], *, key: str = KEY) -> None:
    """Records them under `<key>-<name>`."""
    for name, record in records.items():
        assert await journal.create(f"{key}-{name}", record.model_dump(mode="json"))


def view_of(records: Mapping[str, Record]) -> JobView:
    """The job whose records are `<KEY>-<name>`."""
    found = {f"{KEY}-{name}": record.model_dump(mode="json") for name, record in records.items()}
    return JobView.parse(MemoryJournal(MemoryPlace(), "run"), KEY, found)


async def write_claimed(scope: str, records: Mapping[str, Record], *, key: str = KEY) -> None:
    """Writes the records of a work, whose submissions a scope outside of flows has claimed."""
    works = default_works(get_settings())
    claims = {name.replace("intent", "claim"): Record() for name in records if name.startswith("intent")}
    await write(works.notes_of(scope), claims, key=key)
    await write(works, records, key=key)


def dead_owner() -> Owner:
    """A process of this host that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = owner_of(process.pid)
        process.kill()
    return owner


def owner_of(pid: int) -> Owner:
    """A living process of this host, as it would describe itself."""
    return current_owner().model_copy(update={"pid": pid, "started": started(pid)})


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def wait_until_dead(pid: int) -> None:
    """Waits for a child's end and leaves it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
