"""Connects, in Prefect, the task run that made a file with the task runs that use it; emits files as Prefect assets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from prefect.assets import Asset, AssetProperties
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.context import AssetContext, TaskRunContext
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, ValidationError

from rh_prefect.bounded_caches_and_locks import LruCache
from rh_prefect.media.media import Media
from rh_prefect.media.storage_urls import is_local, local_path, shown_url
from rh_prefect.prefect_internals import emit

_FILES_KNOWN = 10_000
"""Maximum number of files for which a process remembers the task run."""

_made: LruCache[tuple[UUID | None, str], UUID] = LruCache(_FILES_KNOWN)
"""The id of the task run that made a file, by the id of the flow run and the hash of the file's content."""

_makers: LruCache[str, bool] = LruCache(_FILES_KNOWN)
"""The ids of this package's task runs that have made files."""


def note_made(files: Iterable[Media]) -> None:
    """Records that the caller's task run has made files."""
    if (context := TaskRunContext.get()) is not None:
        _makers[str(context.task_run.id)] = True
        for file in files:
            _made[context.task_run.flow_run_id, file.sha256] = context.task_run.id


def add_inputs(run: TaskRun, parameters: Mapping[str, Any]) -> None:
    """Connects a task run with the task runs that made the files in its parameters.

    Prefect itself finds whole results by the identity of their parts. But a request contains only files from results,
    and unrelated results share parts such as an empty tuple.
    """
    for name, value in parameters.items():
        others = [one for one in run.task_inputs.get(name, ()) if str(getattr(one, "id", "")) not in _makers]
        made = dict.fromkeys(_made.get((run.flow_run_id, file.sha256)) for file in _files_in(value))
        run.task_inputs[name] = [*others, *(TaskRunResult(id=one) for one in made if one is not None)]


def _files_in(value: object) -> Iterator[Media]:
    if isinstance(value, Media):
        yield value
    elif isinstance(value, BaseModel):
        yield from _files_in(list(vars(value).values()))
    elif isinstance(value, Mapping):
        yield from _files_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _files_in(one)


def emit_asset(file: Media, *, sources: Iterable[str] = (), flow_run: UUID | None = None, **facts: Any) -> None:
    """Emits the event with which Prefect records a file and its sources as assets; sends no request.

    `sources` are addresses of files; a caller outside of the flow run's context passes `flow_run`; `facts` are JSON.
    """
    asset = _asset(file.uri, file.name) if PREFECT_API_URL.value() else None
    if asset is None:
        return
    emit(
        event="prefect.asset.materialization.succeeded",
        resource=AssetContext.asset_as_resource(asset),
        related=[
            *(AssetContext.asset_as_related(one) for one in map(_asset, sources) if one is not None),
            AssetContext.related_materialized_by("rh_prefect"),
        ],
        flow_run=flow_run,
        payload={**facts, "sha256": file.sha256, "kind": file.kind, "size": file.size},
    )


def _asset(uri: str, name: str | None = None) -> Asset | None:
    """Returns the asset for a file, with a link's signature removed; None if the address is too long."""
    place = f"file://{local_path(uri)}" if is_local(uri) else shown_url(uri)
    try:
        return Asset(key="".join(_NOT_ALLOWED.get(sign, sign) for sign in place), properties=AssetProperties(name=name))
    except ValidationError:
        return None


_NOT_ALLOWED = dict.fromkeys("\n\r\t\0 #?&%\"'<>[]{}|\\^`", "_")
"""Characters that are not allowed in the key of an asset."""
