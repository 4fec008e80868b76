"""Finds the outputs of the jobs and edits in a storage, and the sources of each output."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from rh_prefect.display_texts import beginning_of_prompt
from rh_prefect.gallery.entries import Entry, contents_in, cost_text, shortened_params, texts_in
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines import named_file_saver, stored_edits
from rh_prefect.pipelines.named_file_saver import SavedName
from rh_prefect.pipelines.stored_edits import EditResult
from rh_prefect.works import stored_result
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.stored_result import StoredResult

_PROMPT_SHOWN = 200

_HASH = 64
"""The length of a file name that is the SHA-256 of the file's content, as hex digits."""

_R = TypeVar("_R", bound=Record)
_log = logging.getLogger("rh_prefect")


def entries_of(store: MediaStore, records: MediaStore) -> list[Entry]:
    """Returns all outputs in a storage, the newest first."""
    jobs = [entry for result in stored_result.read_all(store) for entry in _of_result(result)]
    is_beside = records.url == store.url  # then the files are here, even if the storage was moved
    edits = [_of_edit(recipe, one) for recipe, one in _edits(records) if is_beside or one.store in ("", store.url)]
    found = _with_origins(jobs, edits)
    names = {content: name for name, content in saved_contents(store, records).items()}
    found = [replace(one, saved_as=names.get(one.file.sha256, "")) if one.file is not None else one for one in found]
    return sorted(found, key=lambda one: (one.at, one.request, one.take), reverse=True)


def _of_result(result: StoredResult) -> Iterator[Entry]:
    entry = Entry(
        model=result.model,
        request=result.base,
        task=result.task_id,
        prompt=beginning_of_prompt(result.payload, _PROMPT_SHOWN),
        params=shortened_params(result.payload),
        sources=contents_in(result.payload),
        take=result.take,
        label=result.label or "",
        flow=result.flow,
        run=result.run.get("flow_run") or ("" if result.is_adopted else result.flow_run),
        run_name=result.run.get("flow_run_name", ""),
        cost=cost_text(result),
        seed=result.seed,
        at=result.ended_at,
        seconds=result.run_seconds,
        job=result.job,
    )
    for file in result.outputs:
        yield replace(entry, file=file)
    for text in () if result.outputs else result.texts:
        yield replace(entry, text=text)


def _of_edit(recipe: str, result: EditResult) -> Entry:
    name = PurePosixPath(result.file.uri).stem if result.file is not None else ""
    return Entry(
        model=result.edit,
        label="" if len(name) == _HASH else name,  # of a step, its report has the name
        request=recipe,
        file=result.file,
        text="" if result.file is not None else result.text or "",
        params=shortened_params(result.params),
        sources=contents_in(result.params),
        at=result.at,
    )


def _edits(records: MediaStore) -> Iterator[tuple[str, EditResult]]:
    for name in records.list(stored_edits.FOLDER):
        folder, _, last = name.rpartition("/")
        if last == "result.json" and (one := _read(records, name, EditResult)) is not None:
            yield folder.rpartition("/")[2], one


def saved_contents(store: MediaStore, records: MediaStore) -> dict[str, str]:
    """Returns the hash of the result saved under each name; for a converted picture, the hash before conversion."""
    found = (_read(records, name, SavedName) for name in records.list(named_file_saver.FOLDER) if "content-" in name)
    saved: dict[str, dict[str, str]] = {}
    for one in found:
        if one is not None:
            saved.setdefault(one.name, {})[one.sha256] = one.source or one.sha256
    contents = {}
    for name, results in saved.items():
        # Only the file tells which result it has: the return to an earlier one leaves no record.
        current = next(iter(results)) if len(results) == 1 else _content(store, name)
        if current in results:
            contents[name] = results[current]
    return contents


def _content(store: MediaStore, name: str) -> str:
    return store.digest(name) if store.exists(name) else ""


def _read(store: MediaStore, name: str, kind: type[_R]) -> _R | None:
    try:
        return kind.model_validate_json(store.read_bytes(name))
    except ValidationError:
        _log.warning("The record %s is damaged and was left out.", store.uri(name))
        return None


def _with_origins(jobs: Sequence[Entry], edits: Sequence[Entry]) -> list[Entry]:
    """Adds the edits; an edit of the outputs of jobs gets the run of its newest source."""
    by_content = {one.file.sha256: one for one in jobs if one.file is not None}
    by_text = {one.text: one for one in jobs if one.text}
    found, rest = list(jobs), list(edits)
    while rest:
        waiting = []
        for edit in rest:
            sources = [by_content[one] for one in edit.sources if one in by_content]
            sources += [by_text[one] for one in texts_in(edit.params) if one in by_text]
            if not sources:
                waiting.append(edit)
                continue
            last = max(sources, key=lambda one: one.at)
            made = replace(edit, run=last.run, run_name=last.run_name, flow=last.flow)
            found.append(made)
            if made.file is not None:
                by_content.setdefault(made.file.sha256, made)
        if len(waiting) == len(rest):
            break
        rest = waiting
    # The rest belongs to no run: edits of files that no job has made, and subtitles of a parsed answer.
    return [*found, *rest]
