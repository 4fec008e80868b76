"""What ComfyUI itself answers through the native proxy (api.md 3.25)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rh_prefect.client.parsing import first_text, flag, rows, table, text
from rh_prefect.client.wire.task import Failure, read_failure, read_node_errors
from rh_prefect.client.wire.value import Value


class ComfyFile(Value):
    """A file on the machine that ran the graph."""

    name: str
    subfolder: str = ""
    kind: str = "output"
    node_id: str = ""


class ComfyPrompt(Value):
    """A graph that was taken; a refused node in `node_errors` means that it runs only in part."""

    prompt_id: str
    node_errors: dict[str, str] = Field(default_factory=dict)


class ComfyQueue(Value):
    """The ids of the graphs that a machine runs, and of those that wait."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


class ComfyRun(Value):
    """How a graph is.

    Attributes:
        prompt_id: Its id.
        state: Nothing is written down about a graph before it ends, so a queued one is `pending` as well; an
            `interrupted` one was cancelled.
        files: What its nodes saved.
        failure: Why it failed.
    """

    prompt_id: str
    state: Literal["pending", "succeeded", "failed", "interrupted"] = "pending"
    files: tuple[ComfyFile, ...] = ()
    failure: Failure | None = None


def read_comfy_prompt(source: dict[str, object]) -> ComfyPrompt | None:
    """Reads the answer to a prompt; None where it names no id."""
    prompt_id = first_text(source, "prompt_id")
    return ComfyPrompt(prompt_id=prompt_id, node_errors=read_node_errors(source)) if prompt_id else None


def read_comfy_run(entry: dict[str, object], *, prompt_id: str) -> ComfyRun:
    """Reads one entry of the history."""
    status = table(entry.get("status"))
    files = tuple(file for node, saved in table(entry.get("outputs")).items() for file in _files_of(node, table(saved)))
    said = first_text(status, "status_str").lower()
    failure = _read_failure(status.get("messages"))
    if said == "error" or failure:
        state: Literal["failed", "interrupted"] = "interrupted" if _was_interrupted(status) else "failed"
        return ComfyRun(prompt_id=prompt_id, state=state, files=files, failure=failure)
    done = flag(status.get("completed")) or said == "success" or bool(files)
    return ComfyRun(prompt_id=prompt_id, state="succeeded" if done else "pending", files=files)


def read_comfy_queue(source: dict[str, object]) -> ComfyQueue:
    """Reads the queue: each entry begins with a number and the graph's id."""
    return ComfyQueue(running=_ids(source.get("queue_running")), waiting=_ids(source.get("queue_pending")))


def _ids(listed: object) -> tuple[str, ...]:
    entries = (rows(entry) for entry in rows(listed))
    return tuple(text(entry[1]) for entry in entries if len(entry) > 1 and text(entry[1]))


def _was_interrupted(status: dict[str, object]) -> bool:
    return any(rows(message)[:1] == ["execution_interrupted"] for message in rows(status.get("messages")))


def _files_of(node: str, saved: dict[str, object]) -> list[ComfyFile]:
    found = [read_comfy_file(table(row), node_id=node) for listed in saved.values() for row in rows(listed)]
    return [file for file in found if file is not None]


def read_comfy_file(row: dict[str, object], *, node_id: str = "") -> ComfyFile | None:
    """Reads one file; None where it has no name."""
    name = first_text(row, "filename", "name")
    kind = first_text(row, "type") or "output"
    return ComfyFile(name=name, subfolder=first_text(row, "subfolder"), kind=kind, node_id=node_id) if name else None


def _read_failure(messages: object) -> Failure | None:
    for message in rows(messages):
        event = rows(message)
        if len(event) > 1 and event[0] in {"execution_error", "execution_interrupted"}:
            return read_failure(event[1]) or Failure(exception_message=str(event[0]))
    return None
