"""Renders task results in background threads; `RandomSource` makes reproducible random values."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import string
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rh_prefect.emulator.file_store import FileStore
from rh_prefect.emulator.render import Rendered, Renderer
from rh_prefect.emulator.render.metadata_and_padding import pad, stamp
from rh_prefect.emulator.render.request import Stopped, number
from rh_prefect.emulator.tasks import Failure, Output, OutputSpec, Task, Tasks

_SEED_BITS: Final = 32
_NUMBERS: Final = 2**64
_LETTERS: Final = string.ascii_lowercase


class RandomSource:
    """Draws the random values of tasks.

    Every draw depends on the seed, the request, and the number of equal requests before it. The same seed
    and the same requests give the same results again; the order of different requests does not matter.
    """

    def __init__(self, seed: int | None = None, *, options: RuntimeOptions) -> None:
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        self._options = options
        self._drawn: Counter[str] = Counter()
        self._lock = threading.Lock()

    def variant(self, request: str, *, seed: object = None) -> str:
        """Draws the variant of a request's result.

        Args:
            request: The request; equal requests have equal texts.
            seed: The seed of the request, if any; the result then depends on this seed alone.

        Returns:
            Digits, which without a seed differ at each call; empty if the emulator is deterministic.
        """
        if self._options.deterministic:
            return ""
        return str(self._draw(f"variant {request}") if seed is None else number(f"seed {seed}", below=_NUMBERS))

    def node_seed(self, request: str, below: int) -> int:
        """Draws the seed of a node, as RunningHub does at each start of a saved workflow."""
        subject = f"node seed {request}"
        return (number(subject, below=_NUMBERS) if self._options.deterministic else self._draw(subject)) % below

    def token(self, subject: str, *, length: int = 8) -> str:
        """Draws lower-case letters for a file name."""
        drawn = self._draw(f"token {subject}")
        return "".join(_LETTERS[drawn // len(_LETTERS) ** place % len(_LETTERS)] for place in range(length))

    def _draw(self, subject: str) -> int:
        with self._lock:
            self._drawn[subject] += 1
            count = self._drawn[subject]
        return number(f"{self.seed} {count} {subject}", below=_NUMBERS)


if TYPE_CHECKING:
    from rh_prefect.emulator.state import RuntimeOptions

_WORKERS: Final = 2
_PATIENCE: Final = 20.0
_LOOK_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)


class RenderQueue:
    """Renders the results of tasks in the background."""

    def __init__(
        self,
        renderer: Renderer,
        file_store: FileStore,
        tasks: Tasks,
        *,
        lock: threading.RLock,
        random: RandomSource,
        least_bytes: int = 0,
        failed_code: str,
    ) -> None:
        self._failed_code = failed_code
        self._renderer = renderer
        self._file_store = file_store
        self._tasks = tasks
        self._lock = lock
        self._random = random
        self._least_bytes = least_bytes
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="rh-emulator-render")

    def begin(self, task: Task) -> None:
        """Starts the rendering of a task, unless the task will fail."""
        if task.failure is None:
            # Drawn now, in the order of the submits: the pool works in any order.
            variants = [self._variant(output) for output in task.spec.outputs]
            self._pool.submit(self._make, task, variants)

    async def settle(self, task: Task) -> None:
        """Waits for the results of a task that is due, until its end by a cancel, and for a limited time."""
        if not self._tasks.is_due(task):
            return
        outputs: asyncio.Future[list[Output]] = asyncio.wrap_future(task.outputs)
        end = time.monotonic() + _PATIENCE
        while self._tasks.is_due(task) and time.monotonic() < end:
            await asyncio.wait([outputs], timeout=_LOOK_SECONDS)

    def close(self) -> None:
        """Stops the rendering."""
        self._renderer.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _variant(self, output: OutputSpec) -> str:
        """Draws the variant of an output, which makes the results of otherwise equal requests different.

        A graph contains its seeds, so equal graphs give equal results.
        """
        if output.node_id is not None:
            return ""
        seed = output.payload.get("seed")
        is_drawn = isinstance(seed, int | float) and seed < 0  # -1 asks for a random seed
        return self._random.variant(fingerprint(output), seed=None if is_drawn else seed)

    def _make(self, task: Task, variants: list[str]) -> None:
        if task.ended is not None:
            return
        try:
            outputs = self._render(task, variants)
        except Stopped:
            return
        except Exception as error:  # any error of the renderer fails the task
            _log.warning("task %s of %s could not be rendered: %s", task.id, task.endpoint, error)
            with self._lock:
                task.failure = Failure(self._failed_code, "")
            outputs = []
        task.outputs.set_result(outputs)

    def _render(self, task: Task, variants: list[str]) -> list[Output]:
        drawn = zip(task.spec.outputs, variants, strict=True)
        made = [(output, rendered) for output, variant in drawn for rendered in self._render_output(output, variant)]
        return [self._save(task, index, output, rendered) for index, (output, rendered) in enumerate(made, start=1)]

    def _render_output(self, output: OutputSpec, variant: str) -> list[Rendered]:
        text = fingerprint(output)
        return self._renderer.render(output.model, output.payload, output.inputs, seed_text=text, variant=variant)

    def _save(self, task: Task, index: int, output: OutputSpec, rendered: Rendered) -> Output:
        url, text, path = None, rendered.text, rendered.path
        if text is not None and output.node_id is not None:  # a graph saves texts to files
            path, text = self._file_store.folder / f"{task.id}-{index}.txt", None
            path.write_text(rendered.text or "", encoding="utf-8")
        if path is not None:
            path = stamp(path, output.metadata, to=self._file_store.folder / f"{task.id}-{index}.png")
            path = pad(path, least_bytes=self._least_bytes)
            token = self._random.token(f"{task.id} {index}")
            url = self._file_store.add_result(
                path, task_id=task.id, index=index, token=token, extension=rendered.extension
            )
        return Output(url, text, rendered.extension, output.node_id)


def fingerprint(output: OutputSpec) -> str:
    """Returns the hash of a request by its content: links differ from upload to upload, but stored files do not."""
    plain = {key: value for key, value in output.payload.items() if key not in output.inputs}
    files = {key: [Path(path).name for path in paths] for key, paths in output.inputs.items()}
    text = json.dumps([output.model.endpoint, plain, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
