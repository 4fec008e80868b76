"""Reads a running workflow's progress, node by node, from a WebSocket (`netWssUrl`).

Progress is only for display: polling detects the end, and an error here only stops the events. RunningHub calls this
interface unstable. The files appear some seconds after the last frame.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Final

import httpx
from pydantic import SecretStr
from websockets.asyncio.client import connect

from rh_prefect.client.json_values import Value, count, loads, rows, table, text
from rh_prefect.errors import InputError
from rh_prefect.redaction import mask
from rh_prefect.settings import proxy_for

_log = logging.getLogger("rh_prefect.client")

_MUTE: Final = logging.Logger("rh_prefect.client.progress.wire", level=logging.CRITICAL + 1)
"""A logger without output for the WebSocket library, whose debug log would contain the secret address."""

_LARGEST_FRAME: Final = 16 * 1024 * 1024  # previews are pictures
_ENDS: Final = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class ProgressEvent(Value):
    """One progress event of a task."""

    node: str | None = None  # The node that runs now, or whose steps are reported
    value: int | None = None  # The steps that are done
    max: int | None = None  # All the steps
    cached: tuple[str, ...] = ()  # Nodes that need not run, since their results are known
    done: bool = False  # No further node will run: the files come next, or the task has failed; a query shows which


def watch_progress(url: SecretStr | str, *, open_timeout: float = 10.0) -> AsyncIterator[ProgressEvent]:
    """Yields the events of a task from its `progress_url`, until the task is done or the connection ends."""
    address = url.get_secret_value() if isinstance(url, SecretStr) else url
    return _watch(address, _proxy(address), open_timeout)


async def _watch(address: str, proxy: str | None, open_timeout: float) -> AsyncIterator[ProgressEvent]:
    try:
        async with connect(
            address, proxy=proxy, open_timeout=open_timeout, close_timeout=1.0, max_size=_LARGEST_FRAME, logger=_MUTE
        ) as socket:
            async for frame in socket:
                event = read_frame(frame)
                if event is not None:
                    yield event
                if event is not None and event.done:
                    return
    except Exception as error:  # best effort: see above
        _log.debug("The progress of a task is no longer available: %s.", mask(f"{type(error).__name__}: {error}"))


def _proxy(address: str) -> str | None:
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in {"ws", "wss"} or not url.host:
        raise InputError("The given URL is not a WebSocket URL. What to do: pass the progress_url of a running task.")
    return proxy_for("https" if url.scheme == "wss" else "http", url.host)


def read_frame(frame: str | bytes) -> ProgressEvent | None:
    """Parses one ComfyUI frame; returns None for a binary frame or a frame without progress."""
    source = table(loads(frame)) if isinstance(frame, str) else {}
    kind, data = text(source.get("type")), table(source.get("data"))
    node = text(data.get("node")) or None
    if kind == "executing":
        return ProgressEvent(node=node, done="node" in data and data["node"] is None)
    if kind == "progress":
        return ProgressEvent(node=node, value=count(data.get("value")), max=count(data.get("max")))
    if kind == "execution_cached":
        return ProgressEvent(cached=tuple(filter(None, (text(each) for each in rows(data.get("nodes"))))))
    return ProgressEvent(node=node or text(data.get("node_id")) or None, done=True) if kind in _ENDS else None
