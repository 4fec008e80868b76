"""What a run shows of its files in Prefect: which task runs made and use them, and the assets that they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from prefect.assets import Asset, AssetProperties
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.context import AssetContext, TaskRunContext
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, ValidationError

from rh_prefect.bounded_caches import LruCache
from rh_prefect.flow_runs.prefect_internals import emit
from rh_prefect.media.media import Media
from rh_prefect.media.urls import is_local, local_path

_FILES_KNOWN = 10_000
"""Of how many files one process remembers the task run that made them."""

_made: LruCache[tuple[UUID | None, str], UUID] = LruCache(_FILES_KNOWN)
"""The task run that made a content, by the flow run and the content."""


def note_made(files: Iterable[Media]) -> None:
    """Records the files that the caller's task run has made."""
    context = TaskRunContext.get()
    for file in files if context is not None else ():
        _made[context.task_run.flow_run_id, file.sha256] = context.task_run.id  # type: ignore[union-attr]


def add_inputs(run: TaskRun, parameters: Mapping[str, Any]) -> None:
    """Connects a task run with those that made the files in its parameters.

    Prefect finds only whole results: in a request there are their files.
    """
    for name, value in parameters.items():
        known = run.task_inputs.setdefault(name, [])
        found = (_made.get((run.flow_run_id, file.sha256)) for file in _files_in(value))
        inputs = {one.id: one for one in known if isinstance(one, TaskRunResult)}
        missing = dict.fromkeys(made for made in found if made is not None and made not in inputs)
        run.task_inputs[name] = [*known, *(TaskRunResult(id=made) for made in missing)]


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


def emit_asset(file: Media, *, flow_run: UUID | None = None, **facts: Any) -> None:
    """Emits the event by which Prefect knows a file as an asset; sends no request.

    `flow_run` is for a caller outside of its context; `facts` are of plain JSON.
    """
    if not PREFECT_API_URL.value():
        return
    place = f"file://{local_path(file.uri)}" if is_local(file.uri) else file.uri
    try:
        asset = Asset(key="".join(_KEPT.get(sign, sign) for sign in place), properties=AssetProperties(name=file.name))
    except ValidationError:  # its address is too long
        return
    emit(
        event="prefect.asset.materialization.succeeded",
        resource=AssetContext.asset_as_resource(asset),
        related=[
            {"prefect.resource.id": "rh_prefect", _ROLE: "asset-materialized-by"},
            *([{"prefect.resource.id": f"prefect.flow-run.{flow_run}", _ROLE: "flow-run"}] if flow_run else ()),
        ],
        payload={**facts, "sha256": file.sha256, "kind": file.kind, "size": file.size},
    )


_ROLE = "prefect.resource.role"
_KEPT = dict.fromkeys("\n\r\t\0 #?&%\"'<>[]{}|\\^`", "_")
"""Signs that the key of an asset cannot have."""
