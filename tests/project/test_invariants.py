"""What looks at the world after each fault can fail: each way in which money, files or tasks go wrong is named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator
from rh_prefect.errors import explain
from rh_prefect.local_files import PART
from rh_prefect.media.media import Media
from rh_prefect.settings import get_settings
from rh_prefect.tasks import generate
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.record_types import Answer, End, Resolution
from rh_prefect.works.journal.works_journal import default_works
from rh_prefect.works.stored_result import StoredResult
from tests.support.world.invariants import Evidence, Paid, Place, Told, broken, gather
from tests.support.world.job_records import KEY, TASK, intent, ticket, unknown

JOB = f"run/{KEY}"
OTHER = "2031112223334445058"
PICTURE, HALF = "a" * 64, "b" * 64
SECRET = "rh-key-0123456789abcdef"

TOLD = Told("SubmissionUnknown", f"adopt {JOB} TASK_ID", JOB)


def ended(task_id: str = TASK, *, status: Any = "SUCCESS", code: str = "") -> End:
    return End(status=status, task_id=task_id, code=code, next_task=explain(code).next_task)


def submit(n: int = 1, *, answer: Answer | None = None, end: End | None = None, by: Resolution | None = None) -> Submit:
    return Submit(n, intent(), answer=answer, end=end, resolution=by)


def jobs(*submits: Submit, job: str = JOB) -> dict[str, JobView]:
    return {job: JobView(job.rpartition("/")[2], submits)}


def paid(task_id: str = TASK, **facts: Any) -> Paid:
    said = {"endpoint": "some/model", "payload": {"prompt": "a lighthouse"}, "outputs": (PICTURE,)}
    return Paid(task_id, **(said | facts))


def result(task_id: str = TASK, *, name: str = "run/a.png", sha256: str = PICTURE) -> StoredResult:
    output = Media(uri=name, kind="image", mime="image/png", size=1, sha256=sha256)
    asked = intent()
    return StoredResult(
        job=JOB,
        task_id=task_id,
        outputs=(output,),
        **asked.model_dump(include={"base", "site", "account", "model", "endpoint", "payload"}),
        submitted_at=asked.at,
        ended_at=asked.at,
    )


DONE = Evidence(
    paid=(paid(),),
    jobs=jobs(submit(answer=ticket(), end=ended())),
    files={"run/a.png": PICTURE, "results/b/1.json": "c" * 64},
    results=(result(),),
    words={"journal run": b'{"account": "acc"}'},
)
"""One job, paid for once, and its file is in the store."""

RUNNING = Evidence(paid=(paid(status="RUNNING", outputs=()),), jobs=jobs(submit(answer=ticket())))
"""One job whose task runs."""

ASKED = Evidence(paid=(paid(),), jobs=jobs(submit(answer=unknown())), told=(TOLD,))
"""One job of which nobody knows, and the user was told so; its task is there."""


def again(first: Submit, other: Paid | None = None) -> Evidence:
    """The job after a first submission; the other task was paid for, too."""
    return replace(DONE, paid=(paid(), other or paid(OTHER)), jobs=jobs(first, submit(2, answer=ticket(), end=ended())))


FAILED = paid(OTHER, status="FAILED", outputs=())

DURING: dict[str, Evidence] = {
    "a task runs": RUNNING,
    "nobody knows, and that was said": ASKED,
    "not to be cancelled, and that was said": replace(
        RUNNING, was_cancelled=True, told=(Told("cancel", f"task {TASK} goes on"),)
    ),
    "a ticket that waits on this machine": replace(ASKED, paid=RUNNING.paid, late=frozenset({TASK})),
}
"""What is fine before the end."""

AT_THE_END: dict[str, Evidence] = {
    "all is done": DONE,
    "paid for again after a failure": again(
        submit(answer=ticket(OTHER), end=ended(OTHER, status="FAILED", code="1504")), FAILED
    ),
    "forgotten, and paid for again": replace(
        again(submit(answer=unknown(), by=Resolution(outcome="forgotten"))), told=(TOLD,)
    ),
    "a place that failed before its test file was deleted": replace(
        DONE, files={**DONE.files, "rh-prefect-check-0123.txt": "e" * 64}
    ),
}
"""What is fine then, and before."""

BROKEN: dict[str, tuple[Evidence, str]] = {
    "paid twice": (
        replace(DONE, paid=(paid(), paid(OTHER))),
        f"task {OTHER} (some/model, SUCCESS) was paid for and belongs to no job",
    ),
    "paid twice by one job": (
        again(submit(answer=ticket(OTHER))),
        f"submit 2 follows submit 1, which is ticket (task {OTHER})",
    ),
    "paid twice after a success": (
        again(submit(answer=ticket(OTHER), end=ended(OTHER))),
        f"submit 2 follows submit 1, which is ended (task {OTHER}, SUCCESS",
    ),
    "paid again for what must fail again": (
        again(submit(answer=ticket(OTHER), end=ended(OTHER, status="FAILED", code="1501")), FAILED),
        f"submit 2 follows submit 1, which is ended (task {OTHER}, FAILED 1501",
    ),
    "paid again though nobody knows": (
        replace(again(submit(answer=unknown())), told=(TOLD,)),
        "submit 2 follows submit 1, which is unknown",
    ),
    "one task for two submits": (
        replace(DONE, jobs={**DONE.jobs, **jobs(*DONE.jobs[JOB].submits, job="run/fedcba9876543210fedcba98")}),
        f"task {TASK} is of 2 submits",
    ),
    "a task that was never paid for": (replace(DONE, paid=()), f"task {TASK} is recorded and was never paid"),
    "paid and unnamed": (
        Evidence(paid=(paid(),)),
        f"task {TASK} succeeded, was not collected, and is named nowhere",
    ),
    "nobody knows, and nobody was told": (replace(ASKED, told=()), f"nobody was told that {JOB} is unknown"),
    "a truncated file at a final name": (
        replace(DONE, files={**DONE.files, "run/a.png": HALF}),
        f"run/a.png is not what RunningHub served for task {TASK}",
    ),
    "a truncated file in no result": (
        replace(DONE, files={**DONE.files, "run/b.png": HALF}),
        "run/b.png is not what RunningHub served for any task",
    ),
    "half a file left behind": (
        replace(DONE, files={**DONE.files, f"run/.a.png{PART}": HALF}),
        f"run/.a.png{PART} was left behind half-written",
    ),
    "a result whose file is gone": (
        replace(DONE, files={"results/b/1.json": "c" * 64}),
        f"run/a.png is in the result of task {TASK} and not in the store",
    ),
    "a live task after cancel": (replace(RUNNING, was_cancelled=True), f"task {TASK} goes on after the cancellation"),
    "a slot left held": (replace(DONE, held=2), "2 slots are held, and nothing runs"),
    "in the end: a job that is not done": (
        replace(RUNNING, paid=(paid(),)),
        f"{JOB} is not done: ticket (task {TASK})",
    ),
    "in the end: a task that is not over": (RUNNING, f"task {TASK} is still RUNNING"),
}


@pytest.mark.parametrize("name", [*DURING, *AT_THE_END])
def test_what_is_fine_is_not_complained_of(name: str) -> None:
    assert broken({**DURING, **AT_THE_END}[name], secrets=[SECRET], is_over=name in AT_THE_END) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str) -> None:
    evidence, words = BROKEN[name]
    found = broken(evidence, secrets=[SECRET], is_over=name.startswith("in the end"))
    assert any(words in problem for problem in found), found


@pytest.mark.parametrize("where", ["journal run", "state/inputs/1.json", "the log"])
def test_a_key_is_found_wherever_it_stands(where: str) -> None:
    words: Mapping[str, bytes] = {**DONE.words, where: f"Bearer {SECRET}, and more".encode()}
    assert broken(replace(DONE, words=words), secrets=[SECRET]) == [f"a secret stands in {where}"]


async def test_it_sees_what_really_lies_there(rh: Emulator, tmp_path: Path) -> None:
    result = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="gulls")
    journal = default_works(get_settings())
    out, state = tmp_path / "out", tmp_path / "state"

    async def look() -> list[str]:
        evidence = await gather(rh, journals=[journal], place=Place(str(out)), folder=state)
        return broken(evidence, secrets=[rh.key], is_over=True)

    assert await look() == []
    published = Path(result.first_output.uri)
    published.write_bytes(published.read_bytes()[:-100])
    name = published.relative_to(out).as_posix()
    whose = ("any task", f"task {result.task_id}")
    assert await look() == [f"{name} is not what RunningHub served for {which}" for which in whose]
    (state / "notes.txt").write_text(f"the key is {rh.key}")
    assert f"a secret stands in {state / 'notes.txt'}" in await look()
    async with httpx.AsyncClient(trust_env=False) as http:
        (sent,) = rh.recorder.paid
        bearer = {"Authorization": f"Bearer {rh.key}"}
        again = await http.post(f"{rh.url}/openapi/v2/{sent.endpoint}", json=sent.payload, headers=bearer)
    orphan = f"task {again.json()['taskId']} ({sent.endpoint}, SUCCESS) was paid for and belongs to no job"
    async with asyncio.timeout(300):
        while orphan not in await look():  # noqa: ASYNC110, a task of the emulator
            await asyncio.sleep(0.1)  # its result is another one, which has to be made
