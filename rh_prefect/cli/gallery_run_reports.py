"""Reads the reports of runs of pipelines and batches: failed steps with their reasons, and the files of runs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC

from rh_prefect.gallery.entries import Entry
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.run.csv_report import REPORTS, report_name
from rh_prefect.table_files import allow_long_cells
from rh_prefect.works.journal.scope import LOCAL_RUN

_FLOW_RUN = re.compile(r"(\d{4}-\d\d-\d\d)-([0-9a-f]{12})")
"""Matches the folder of a flow run's report: its day and the last part of its id."""

_LATEST = 100
"""Number of the flow runs created last, among which the one that ended last is searched."""

_FLOW_RUN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-([0-9a-f]{12})")


def with_reports(store: MediaStore, entries: Sequence[Entry]) -> list[Entry]:
    """Adds the failed steps of all reports, except steps that have a result now, and the step names of edits.

    The newest entries come first.
    """
    found: dict[str, Entry] = {}
    made = {entry.job.rpartition("/")[2] or entry.request for entry in entries}  # the recipe of an edit
    times = {entry.run: entry.at for entry in reversed(entries)}
    steps: dict[str, tuple[str, str]] = {}
    for run in runs_of(store):
        for row in _rows(store, run):
            jobs = row["jobs"].split()
            keys = {row["recipe"], *(job.rpartition("/")[2] for job in jobs)}
            if row["state"] == "failed" and not keys & made:
                name = jobs[0] if jobs else f"{run}/{row['step']}"
                found[name] = _failure(row, run, name, at=time_of(run) or times.get(run, ""))
            elif not jobs:
                for file in _files(store, row):
                    steps.setdefault(file, (row["step"], run))  # of the run that made it
    named = (_named_by(one, steps) for one in entries)
    return sorted([*named, *found.values()], key=lambda one: (one.at, one.run), reverse=True)


def _named_by(entry: Entry, steps: Mapping[str, tuple[str, str]]) -> Entry:
    """Returns an edit with its step, and with its run if the edit belongs to no job."""
    if entry.task or entry.file is None:
        return entry
    step, run = steps.get(entry.saved_as) or steps.get(entry.file.uri) or ("", "")
    return replace(entry, label=step or entry.label, run=entry.run or run)


def _failure(row: dict[str, str], run: str, name: str, *, at: str) -> Entry:
    return Entry(
        model=row["model"],
        request=name,
        task=row["tasks"].partition(" ")[0],
        prompt=row["subject"],
        label=row["step"],
        run=run,
        cost=row["cost"],
        at=at,
        reason=row["reason"],
    )


def runs_of(store: MediaStore) -> list[str]:
    """Returns the runs that have a report, sorted."""
    names = (name.split("/") for name in store.list(REPORTS))
    return [name[1] for name in names if len(name) == 3 and name[2] == "report.csv"]


def report_of(store: MediaStore, run: str) -> str:
    """Returns the name of a run's report; the run may be given by the id or the name of a flow run.

    If a flow ran several pipelines, the result is the report of the first one.
    """
    runs = runs_of(store)
    if run in runs:
        return run
    found = _FLOW_RUN_ID.fullmatch(run) or _FLOW_RUN_ID.fullmatch(_named(store, run))
    return next((one for one in runs if found and f"-{found[1]}" in one), run)


def _named(store: MediaStore, name: str) -> str:
    """Returns the id of the flow run with this name, from the markers of flow runs; empty if there is none."""
    names = (one for one in store.list(REPORTS) if one.endswith(".json") and one.count("/") == 1)
    notes = (json.loads(store.read_bytes(one)) for one in names)
    return next((note.get("flow_run", "") for note in notes if note.get("flow_run_name") == name), "")


def files_of(store: MediaStore, run: str) -> set[str]:
    """Returns the names of the files in a run's report, made or reused; empty if the run has no report."""
    if not store.exists(report_name(run)):
        return set()
    return {name for row in _rows(store, run) for name in _files(store, row)}


def jobs_of(store: MediaStore, run: str) -> set[str]:
    """Returns the keys of the jobs whose results a run has, made or reused; empty if the run has no report."""
    if not store.exists(report_name(run)):
        return set()
    rows = (row for row in _rows(store, run) if row["state"] in ("made", "reused"))
    return {job.rpartition("/")[2] for row in rows for job in row["jobs"].split()}


def _files(store: MediaStore, row: Mapping[str, str]) -> list[str]:
    files = re.split(f" (?={re.escape(store.uri('x')[:-1])})", row["files"])
    return [name for file in files if (name := store.name_of(file)) is not None]


def last_run(store: MediaStore, entries: Sequence[Entry]) -> str:
    """Returns the newest run: the run of the newest output, or a later run that made nothing new."""
    times = {one.run: one.at for one in reversed(entries) if one.run}
    runs = runs_of(store)
    for run in runs:
        if time := time_of(run):
            times[run] = max(times.get(run, ""), time)
    flow_runs = [run for run in runs if _FLOW_RUN.fullmatch(run)]
    newest_day = [run for run in flow_runs if run[:10] == flow_runs[-1][:10]]
    # A schedule creates its runs days before they start.
    for run in {*newest_day, *flow_runs[-_LATEST:]}:
        times[run] = store.modified(report_name(run)).astimezone(UTC).isoformat()
    # The names of runs without a flow run begin with their start times.
    newest_local = max(filter(time_of, times), default="")
    candidates = [newest_local, *(run for run in times if not time_of(run))]
    return max(candidates, key=lambda run: times.get(run, ""))


def of_run(
    entries: Sequence[Entry], run: str, files: Collection[str], jobs: Collection[str], contents: Mapping[str, str]
) -> list[Entry]:
    """Returns the outputs of a run, and the results of other runs that this run reused, under this run's names."""
    names = {contents[name]: name for name in files if name in contents}
    flow_run = _FLOW_RUN.fullmatch(run)
    found = []
    for one in entries:
        name = names.get(one.file.sha256, "") if one.file is not None else ""
        # Another run may have replaced a saved file since, so that a name proves nothing about the result of a job.
        is_result = one.job.rpartition("/")[2] in jobs if one.job else bool(name)
        is_file = one.file is not None and one.file.uri in files
        if (
            is_result
            or is_file
            or run in (one.run, one.run_name, one.flow)
            or (flow_run and one.run.endswith(flow_run[2]))
        ):
            found.append(replace(one, saved_as=name or one.saved_as))
    return found


def time_of(run: str) -> str:
    """Returns the start time of a run in ISO 8601, in UTC; empty for a flow run, whose id contains no time."""
    found = LOCAL_RUN.fullmatch(run)
    return "{}-{}-{}T{}:{}:{}".format(*found.groups()) if found else ""


def _rows(store: MediaStore, run: str) -> Iterator[dict[str, str]]:
    allow_long_cells()
    text = store.read_bytes(report_name(run)).decode(errors="replace")
    for row in csv.DictReader(io.StringIO(text, newline="")):
        yield {name: row.get(name) or "" for name in _COLUMNS}


_COLUMNS = ("step", "model", "state", "cost", "files", "reason", "subject", "tasks", "jobs", "recipe")
