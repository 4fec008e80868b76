"""Makes the results of tasks in the background, while they are queued and running."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rh_prefect.emulator.files import Shelf
from rh_prefect.emulator.random_source import Chance
from rh_prefect.emulator.render import Rendered, Renderer
from rh_prefect.emulator.render.padding import pad
from rh_prefect.emulator.render.stamp import stamp
from rh_prefect.emulator.tasks import Breakdown, Output, Piece, Task, Tasks

_WORKERS: Final = 2
_PATIENCE: Final = 20.0

_log = logging.getLogger(__name__)


class Workshop:
    """Renders what tasks ask for.

    Args:
        renderer: Makes the media.
        shelf: Where results go.
        tasks: Whose results they are.
        lock: Guards the tasks.
        chance: What results are drawn from.
        least_bytes: The least size of a result; smaller ones are padded.
        failed_code: The code of a task whose results cannot be made.
    """

    def __init__(
        self,
        renderer: Renderer,
        shelf: Shelf,
        tasks: Tasks,
        *,
        lock: threading.RLock,
        chance: Chance,
        least_bytes: int = 0,
        failed_code: str,
    ) -> None:
        self._failed_code = failed_code
        self._renderer = renderer
        self._shelf = shelf
        self._tasks = tasks
        self._lock = lock
        self._chance = chance
        self._least_bytes = least_bytes
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="rh-emulator-render")

    def begin(self, task: Task) -> None:
        """Starts on a task's results, unless it is going to fail."""
        if task.breakdown is None:
            # Drawn now, in the order of the submits: the pool works in any order.
            variants = [self._variant(piece) for piece in task.order.pieces]
            self._pool.submit(self._make, task, variants)

    async def settle(self, task: Task) -> None:
        """Waits for the results of a task that is due; not for ever, for a client that waits has a deadline."""
        if self._tasks.is_due(task):
            waiting: Future[list[Output]] = task.outputs
            await asyncio.wait([asyncio.wrap_future(waiting)], timeout=_PATIENCE)

    def close(self) -> None:
        """Ends what is being made."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _variant(self, piece: Piece) -> str:
        """Draws what is different from the result of an equal request.

        A graph carries its seeds, and everything else in it gives the same result each time.
        """
        if piece.node_id is not None:
            return ""
        return self._chance.variant(fingerprint(piece), seed=piece.payload.get("seed"))

    def _make(self, task: Task, variants: list[str]) -> None:
        if task.ended is not None:
            return
        try:
            outputs = self._render(task, variants)
        except Exception as error:  # a failing render is a failing task, whatever went wrong
            _log.warning("task %s of %s could not be rendered: %s", task.id, task.endpoint, error)
            with self._lock:
                task.breakdown = Breakdown(self._failed_code, "")
            outputs = []
        task.outputs.set_result(outputs)

    def _render(self, task: Task, variants: list[str]) -> list[Output]:
        drawn = zip(task.order.pieces, variants, strict=True)
        made = [(piece, rendered) for piece, variant in drawn for rendered in self._piece(piece, variant)]
        return [self._shelve(task, index, piece, rendered) for index, (piece, rendered) in enumerate(made, start=1)]

    def _piece(self, piece: Piece, variant: str) -> list[Rendered]:
        text = fingerprint(piece)
        return self._renderer.render(piece.model, piece.payload, piece.inputs, seed_text=text, variant=variant)

    def _shelve(self, task: Task, index: int, piece: Piece, rendered: Rendered) -> Output:
        url, text, path = None, rendered.text, rendered.path
        if text is not None and piece.node_id is not None:  # a graph saves texts to files
            path, text = self._shelf.folder / f"{task.id}-{index}.txt", None
            path.write_text(rendered.text or "", encoding="utf-8")
        if path is not None:
            path = stamp(path, piece.metadata, to=self._shelf.folder / f"{task.id}-{index}.png")
            path = pad(path, least_bytes=self._least_bytes)
            token = self._chance.token(f"{task.id} {index}")
            url = self._shelf.add_result(path, task_id=task.id, index=index, token=token, extension=rendered.extension)
        return Output(url, text, rendered.extension, piece.node_id)


def fingerprint(piece: Piece) -> str:
    """Names a request by what it asks for: links differ from upload to upload, files on the shelf do not."""
    plain = {key: value for key, value in piece.payload.items() if key not in piece.inputs}
    files = {key: [Path(path).name for path in paths] for key, paths in piece.inputs.items()}
    text = json.dumps([piece.model.endpoint, plain, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
