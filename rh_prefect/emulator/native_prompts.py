"""The prompts of the native proxy, under ComfyUI's ids, and their history."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rh_prefect.emulator.comfy.graph import class_type, parse
from rh_prefect.emulator.comfy.nodes import class_of
from rh_prefect.emulator.tasks import Output, Status, Task

_LISTS: Final = {"image": "images", "video": "gifs", "audio": "audio", "text": "text"}
"""The key under which a saving node lists its files, by kind of output; videos from VHS_VideoCombine are `gifs`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A graph that was queued at the native proxy."""

    id: str
    number: int
    task: Task
    client_id: str


class Proxy:
    """The emulated ComfyUI proxy: the prompts of all API keys."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._prompts: dict[str, Prompt] = {}

    def add(self, task: Task, *, client_id: str) -> Prompt:
        """Adds a prompt."""
        with self._lock:
            prompt = Prompt(str(uuid.uuid4()), next(self._numbers), task, client_id)
            self._prompts[prompt.id] = prompt
            return prompt

    def forget(self, prompt: Prompt) -> None:
        """Removes a prompt that was deleted from the queue, so that it has no history."""
        with self._lock:
            self._prompts.pop(prompt.id, None)

    def of(self, account: str, endpoint: str, *, client_id: str | None = None) -> Iterator[Prompt]:
        """Lists the prompts of an account on a machine, `/proxy` or `/proxy-plus`, or of one of its clients."""
        for prompt in list(self._prompts.values()):
            mine = prompt.task.spec.key.account.name == account and prompt.task.endpoint == endpoint
            if mine and client_id in (None, prompt.client_id):
                yield prompt


def history(prompt: Prompt, status: Status) -> dict[str, object]:
    """Returns a finished prompt in the format of ComfyUI's history."""
    graph = parse(prompt.task.spec.graph or {}) or {}
    outputs: dict[str, dict[str, list[object]]] = {}
    for output in prompt.task.outputs.result(timeout=0) if status == "SUCCESS" else []:
        known = class_of(class_type(graph[output.node_id or ""]), foreign=frozenset(map(class_type, graph.values())))
        name = _LISTS[(known.saves if known else None) or "image"]
        outputs.setdefault(output.node_id or "", {}).setdefault(name, []).append(_file(output))
    word = "success" if status == "SUCCESS" else "error"
    messages = [_message(prompt, status)]
    return {
        "prompt": [prompt.number, prompt.id, graph, {"client_id": prompt.client_id}, list(outputs)],
        "outputs": outputs,
        "status": {"status_str": word, "completed": status == "SUCCESS", "messages": messages},
        "meta": {},
    }


def _message(prompt: Prompt, status: Status) -> list[object]:
    """Returns the last message of a finished prompt."""
    if status == "SUCCESS":
        return ["execution_success", {"prompt_id": prompt.id}]
    if status == "CANCELLED":
        return ["execution_interrupted", {"prompt_id": prompt.id}]
    return ["execution_error", dict(prompt.task.failure.reason) if prompt.task.failure else {}]


def _file(output: Output) -> dict[str, object]:
    name = urlsplit(output.url or "").path.rpartition("/")[2]
    return {"filename": name, "subfolder": "", "type": "output"}
