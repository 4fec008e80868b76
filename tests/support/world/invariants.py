"""The invariants after any failure: reads the emulator's records, the journal and the store, and lists the violations.

evidence = await gather(rh, journals=[FlowRunJournal(run)], place=Place("/tmp/out"), told=[...])
assert not broken(evidence, secrets=[rh.key])                   # after a run that failed
assert not broken(evidence, secrets=[rh.key], is_over=True)     # after the run that made up for it
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import httpx

from rh_prefect.emulator import Emulator
from rh_prefect.local_files import PART
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.stored_result import FOLDER, StoredResult
from tests.support.world.job_records import is_hopeless

RECORDS_OF_NO_JOB = ("media", "cancel", "format")
NO_FILES = (f"{FOLDER}/", "batches/", "edits/", "inputs/", "runs/", "scopes/", "works/", "rh-prefect-check-")
"""How the names of those files in a store begin that are no task's output.

The last is what tries a place; it stays where the place fails before it can be deleted.
"""


@dataclass(frozen=True)
class Paid:
    """A task that RunningHub was paid for: what was asked, where it stands, and the hashes of the files it serves."""

    task_id: str
    endpoint: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    status: str = "SUCCESS"
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What the user was told: an error, or a line of a report."""

    kind: str
    message: str
    job: str = ""


@dataclass(frozen=True)
class Place:
    """Where the files are, as fsspec takes it."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that is looked at."""

    paid: tuple[Paid, ...] = ()  # every task that was paid for
    jobs: Mapping[str, JobView] = field(default_factory=dict)  # what the journal has, by the job's full name
    late: frozenset[str] = frozenset()  # task ids in records of tickets that came too late, and in the spool
    files: Mapping[str, str] = field(default_factory=dict)  # all that lies in the store, by name: its hash
    results: tuple[StoredResult, ...] = ()  # the stored results among them
    told: tuple[Told, ...] = ()  # what the user was told
    words: Mapping[str, bytes] = field(default_factory=dict)  # all that was written down, by where
    was_cancelled: bool = False  # whether the run was cancelled and has not been started again since
    held: int = 0  # slots that this process holds while none of its runs goes on

    @property
    def submits(self) -> Iterator[tuple[str, Submit]]:
        for job, view in self.jobs.items():
            for submit in view.submits:
                yield job, submit

    def names(self, task_id: str) -> bool:
        return any(task_id in one.message for one in self.told)


def broken(evidence: Evidence, *, secrets: Iterable[str] = (), is_over: bool = False) -> list[str]:
    rules: list[Callable[[Evidence], Iterator[str]]] = [_paid_twice, _unaccounted, _uncollected, _wrong_files]
    rules += [_running, _held]
    if is_over:
        rules.append(_undone)
    found = [problem for rule in rules for problem in rule(evidence)]
    return found + [problem for secret in secrets for problem in _leaks(evidence, secret)]


def _paid_twice(evidence: Evidence) -> Iterator[str]:
    """One job has one task, and further ones only by record: after a failure, a cancellation, or when forgotten."""
    tasks = Counter(submit.task_id for _, submit in evidence.submits if submit.task_id)
    yield from (f"task {task} is of {count} submits" for task, count in tasks.items() if count > 1)
    paid = {one.task_id for one in evidence.paid}
    yield from (f"task {task} is recorded and was never paid for" for task in tasks if task not in paid)
    for job, view in evidence.jobs.items():
        for before, after in zip(view.submits, view.submits[1:], strict=False):
            if not _may_be_followed(before):
                yield f"{job}: submit {after.n} follows submit {before.n}, which is {_stands(before)}"


def _may_be_followed(submit: Submit) -> bool:
    if submit.end is not None:
        return submit.end.status != "SUCCESS" and not is_hopeless(submit.end.code)
    return submit.state in ("refused", "forgotten")


def _stands(submit: Submit) -> str:
    end = submit.end
    return f"{submit.state} (task {submit.task_id}{f', {end.status} {end.code}'.rstrip() if end else ''})"


def _unaccounted(evidence: Evidence) -> Iterator[str]:
    """Each payment belongs to a job, or to a submit of which the user was told that nobody knows."""
    known = {submit.task_id for _, submit in evidence.submits} | evidence.late
    unclear = [(job, submit) for job, submit in evidence.submits if not submit.task_id and _is_unclear(submit)]
    for task in evidence.paid:
        if task.task_id in known:
            continue
        match = next((one for one in unclear if _is_asked(one[1], task)), None)
        if match is None:
            yield f"task {task.task_id} ({task.endpoint}, {task.status}) was paid for and belongs to no job"
        else:
            unclear.remove(match)
            yield from _untold(evidence, match[0], f"task {task.task_id} was paid for and")


def _is_unclear(submit: Submit) -> bool:
    return submit.state in ("open", "unknown", "forgotten")


def _untold(evidence: Evidence, job: str, what: str) -> Iterator[str]:
    if not any(one.kind == "SubmissionUnknown" and one.job == job for one in evidence.told):
        yield f"{what} nobody was told that {job} is unknown"


def _is_asked(submit: Submit, task: Paid) -> bool:
    return submit.intent.endpoint == task.endpoint and plain(submit.intent.payload) == plain(task.payload)


def plain(payload: Mapping[str, Any]) -> dict[str, str]:
    """What of a payload is the same in the journal, which has files by content, and on the wire, which has links."""
    texts = {key: str(value) for key, value in payload.items()}
    return {key: text for key, text in texts.items() if "sha256:" not in text and "http://" not in text}


def _uncollected(evidence: Evidence) -> Iterator[str]:
    """What succeeded lies in the store, or is named."""
    recorded = {submit.task_id for _, submit in evidence.submits} | evidence.late
    collected = {one.task_id for one in evidence.results}
    for task in evidence.paid:
        is_named = task.task_id in recorded or evidence.names(task.task_id) or _is_unknown(evidence, task)
        if task.status == "SUCCESS" and task.task_id not in collected and not is_named:
            yield f"task {task.task_id} succeeded, was not collected, and is named nowhere"


def _is_unknown(evidence: Evidence, task: Paid) -> bool:
    return any(_is_unclear(submit) and _is_asked(submit, task) for _, submit in evidence.submits)


def _wrong_files(evidence: Evidence) -> Iterator[str]:
    """No file is at its final name that is not, byte for byte, what RunningHub served, or what an edit recorded."""
    served = {(task.task_id, output) for task in evidence.paid for output in task.outputs}
    hashes = {sha256 for _, sha256 in served}
    edits = b"".join(data for name, data in evidence.words.items() if "/edits/" in name).decode()
    for name, sha256 in evidence.files.items():
        if name.endswith(PART):
            yield f"{name} was left behind half-written"
        elif not name.startswith(NO_FILES) and sha256 not in hashes and sha256 not in edits:
            yield f"{name} is not what RunningHub served for any task"
    for result in evidence.results:
        for output in result.outputs:
            if output.uri not in evidence.files:
                yield f"{output.uri} is in the result of task {result.task_id} and not in the store"
            elif evidence.files[output.uri] != output.sha256 or (result.task_id, output.sha256) not in served:
                yield f"{output.uri} is not what RunningHub served for task {result.task_id}"


def _running(evidence: Evidence) -> Iterator[str]:
    """After a cancellation nothing goes on, but for what the user was told of."""
    if not evidence.was_cancelled:
        return
    for task in evidence.paid:
        told = evidence.names(task.task_id) or any(
            one.job == job
            for one in evidence.told
            for job, submit in evidence.submits
            if submit.task_id == task.task_id
        )
        if task.status in ("QUEUED", "RUNNING") and not told and not _is_unknown(evidence, task):
            yield f"task {task.task_id} goes on after the cancellation"


def _held(evidence: Evidence) -> Iterator[str]:
    """Where no run goes on, no slot is taken: those of the next run would wait for it for ever."""
    if evidence.held:
        yield f"{evidence.held} slots are held, and nothing runs"


def _undone(evidence: Evidence) -> Iterator[str]:
    """In the end each job has its files, and RunningHub has no task that is not over."""
    collected = {one.task_id for one in evidence.results}
    for job, view in evidence.jobs.items():
        last = view.last
        if last is None or (last.end is not None and is_hopeless(last.end.code) and last.end.status == "FAILED"):
            continue
        if last.task_id not in collected:
            yield f"{job} is not done: {_stands(last)}"
    tasks = {submit.task_id for _, submit in evidence.submits} | evidence.late
    for task in evidence.paid:
        if task.status in ("QUEUED", "RUNNING") and task.task_id in tasks:
            yield f"task {task.task_id} is still {task.status}"


def _leaks(evidence: Evidence, secret: str) -> Iterator[str]:
    for where, words in evidence.words.items():
        if any(form in words for form in forms(secret)):
            yield f"a secret stands in {where}"


def forms(secret: str) -> list[bytes]:
    """A secret in the forms in which it travels; base64 at each of its three alignments, without its rims."""
    word = secret.encode()
    aligned = (base64.b64encode(b"x" * shift + word)[4:-8] for shift in range(3))
    quoted = (quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode())
    return [word, *aligned, *quoted, word.hex().encode(), word.hex().upper().encode()]


async def gather(
    rh: Emulator,
    *,
    journals: Sequence[Journal],
    place: Place,
    told: Iterable[Told] = (),
    words: Mapping[str, str] | None = None,
    folder: Path | None = None,
    was_cancelled: bool = False,
    held: int = 0,
) -> Evidence:
    """Looks around; no fault of the emulator's may be left, since its files are fetched."""
    records = {one.scope: await _records(one) for one in journals}
    files = await asyncio.to_thread(_contents, place)
    kept = _kept(folder) if folder else {}
    told = tuple(told)
    written = {f"journal {scope}": json.dumps(found).encode() for scope, found in records.items()}
    written |= {f"{place.url}/{name}": data for name, data in files.items() if name.startswith(NO_FILES)}
    written |= {"what was told": repr(told).encode(), **{name: text.encode() for name, text in (words or {}).items()}}
    return Evidence(
        paid=await paid_tasks(rh),
        jobs={f"{one.scope}/{view.key}": view for one in journals for view in _views(one, records[one.scope])},
        late=_late(records.values(), kept),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        results=tuple(_results(files)),
        told=told,
        words=written | kept,
        was_cancelled=was_cancelled,
        held=held,
    )


async def _records(journal: Journal) -> dict[str, dict[str, Any]]:
    keys = [*RECORDS_OF_NO_JOB, *{name.partition("-")[0] async for name in journal.names()}]
    found = await asyncio.gather(*(journal.job(key) for key in keys))
    return dict(zip(keys, found, strict=True))


def _views(journal: Journal, records: Mapping[str, dict[str, Any]]) -> Iterator[JobView]:
    for key, found in records.items():
        if key not in RECORDS_OF_NO_JOB:
            yield JobView.parse(journal, key, found)


def _late(scopes: Iterable[Mapping[str, dict[str, Any]]], kept: Mapping[str, bytes]) -> frozenset[str]:
    late = {
        record["task_id"]
        for jobs in scopes
        for records in jobs.values()
        for name, record in records.items()
        if "-late-" in name
    }
    spooled = {json.loads(data)["answer"]["task_id"] for name, data in kept.items() if "/spool/" in name}
    return frozenset(filter(None, late | spooled))


def _kept(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _contents(place: Place) -> dict[str, bytes]:
    """Every file of the store, those included that the package itself does not list."""
    fs, root = fsspec.url_to_fs(place.url, **place.options)
    fs.invalidate_cache()
    folder = f"{root.rstrip('/')}/"
    # An S3 server may list the folder itself, once something was in it.
    names = [str(name) for name in fs.find(root)] if fs.exists(root) else []
    return {name.removeprefix(folder): bytes(fs.cat_file(name)) for name in names if name.startswith(folder)}


def _results(files: Mapping[str, bytes]) -> Iterator[StoredResult]:
    for name, data in files.items():
        if name.startswith(f"{FOLDER}/") and not name.endswith(PART):
            yield StoredResult.model_validate_json(data)


async def paid_tasks(rh: Emulator) -> tuple[Paid, ...]:
    """The paid tasks; only those are asked for their files that have ended, since a look may end a task."""
    status = {row.task_id: row.status for row in rh.recorder.tasks}
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=300) as http:

        async def one(task_id: str) -> tuple[str, ...]:
            return await _served(http, rh, task_id) if status[task_id] == "SUCCESS" else ()

        paid = rh.recorder.paid
        outputs = await asyncio.gather(*(one(each.task_id) for each in paid))
    return tuple(
        Paid(each.task_id, each.endpoint, each.payload, status[each.task_id], hashes)
        for each, hashes in zip(paid, outputs, strict=True)
    )


async def _served(http: httpx.AsyncClient, rh: Emulator, task_id: str) -> tuple[str, ...]:
    bearer = {"Authorization": f"Bearer {rh.key}"}
    asked = await http.post(f"{rh.url}/openapi/v2/query", json={"taskId": task_id}, headers=bearer)
    links = [row["url"] for row in asked.json()["results"] or () if row.get("url")]
    files = [(await http.get(link)).raise_for_status().content for link in links]
    return tuple(hashlib.sha256(file).hexdigest() for file in files)
