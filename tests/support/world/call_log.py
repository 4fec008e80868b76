"""RunningHub's call log, as a person reads it who settles what a run cannot know."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rh_prefect.emulator import Emulator
from rh_prefect.emulator.recorder import Submission
from rh_prefect.works.journal.job_records_and_state import Submit, jobs_of
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.spool import Spooled
from rh_prefect.works.manual_repair import adopt, mark_refused


async def settle(
    rh: Emulator, journal: Journal, spooled: Iterable[Spooled] = (), *, states: Container[str] = ("open", "unknown")
) -> int:
    """Adopts the task of each submission that was never answered, or forgets it; returns how many there are."""
    kept = list(spooled)
    views = [view async for view in jobs_of(journal)]
    # A task whose answer only the machine keeps belongs to its own work, and not to another take.
    known = {one.answer.task_id for one in kept} | {submit.task_id for view in views for submit in view.submits}
    on_their_way, unknown = {one.key for one in kept}, 0
    for view in views:
        if view.last is None or view.last.state not in states or view.key in on_their_way:
            continue
        unknown += 1
        tasks = (one.task_id for one in rh.recorder.paid if one.task_id not in known and is_of(one, view.last))
        known.add(found := next(tasks, None))
        await (adopt(journal, view.key, found) if found else mark_refused(journal, view.key))
    return unknown


def is_of(paid: Submission, submit: Submit) -> bool:
    """Whether a task in the call log may be that of a submission."""
    asked = {key: str(value) for key, value in submit.intent.payload.items()}
    marks = " ".join(value for value in asked.values() if "sha256:" in value)
    is_same = all(str(paid.payload.get(key)) == value for key, value in asked.items() if "sha256:" not in value)
    inputs = [f"sha256:{sha}" for hashes in paid.inputs.values() for sha in hashes]
    return paid.endpoint == submit.intent.endpoint and is_same and all(one in marks for one in inputs)


def request_of(paid: Submission) -> tuple[str, str]:
    """What a task was asked for, with contents in place of links."""
    return paid.endpoint, str(sorted({**paid.payload, **paid.inputs}.items()))
