"""The class `Emulator`: serves the API and the file host inside a `with` block."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import Self

from rh_prefect.catalog.model import Model, Output, Param, PriceTable, Rule
from rh_prefect.emulator.accounts import ApiKeys, RateLimit
from rh_prefect.emulator.asgi_app import api_app
from rh_prefect.emulator.assets import Assets
from rh_prefect.emulator.assumptions import DEFAULT, Assumptions
from rh_prefect.emulator.broken_responses import HeldResponses
from rh_prefect.emulator.clock import Clock, Durations, Mode, typical
from rh_prefect.emulator.comfy.apps import Apps
from rh_prefect.emulator.comfy.workflows import Workflows
from rh_prefect.emulator.faults import Fault, Faults
from rh_prefect.emulator.file_host import file_app
from rh_prefect.emulator.file_store import FileStore
from rh_prefect.emulator.models_and_prices import Models, new_model
from rh_prefect.emulator.native_prompts import Proxy
from rh_prefect.emulator.progress import Progress
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.emulator.render import Renderer
from rh_prefect.emulator.render_queue import RandomSource, RenderQueue
from rh_prefect.emulator.server import ServerThread, address, listen
from rh_prefect.emulator.state import RuntimeOptions, State
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.webhooks import Webhooks
from rh_prefect.errors import ConfigError


class Emulator(State):
    """A local RunningHub API with real media, a clock, scripted faults and recorded requests.

    Equal requests give different results, as with real models, unless they name the same seed.

    The emulator has one enterprise shared key, named `main`; `keys.add` adds further keys. The emulator has a few
    workflows and AI apps; `workflows.add` and `apps.add` publish others. `recorder` has all requests and payments,
    `webhooks` posts webhooks on demand, `held` releases held responses, and `options` can change while the emulator
    runs.

    Args:
        host: The address to serve on.
        port: The API's port; 0 selects a free port.
        files_port: The file host's port.
        clock: How tasks progress: `instant` (done at the first poll), `polls` (at the n-th poll), `real` (by time).
        factor: In the mode `real`: emulator seconds per real second; 0 stops the clock until `clock.advance`.
        polls: In the mode `polls`: the poll at which a task is done.
        limit: Number of tasks that the key may run at once; by default `Assumptions.default_limits`.
        money: The wallet's content; by default `Assumptions.start_money`.
        key: The key's value; by default 32 random characters.
        long_side: The longest side of pictures and videos, in pixels.
        fps: Frames per second of videos.
        max_seconds: The longest sound or video; None for no limit.
        least_bytes: The minimum size of a result, for tests of large downloads: smaller files are padded.
        faults: The faults to start with.
        moderated: Words that fail the content check.
        durations: Durations of tasks, in the mode `real`.
        deterministic: Whether equal requests give equal results.
        random_seed: The seed of all results; by default a random number, which is in the attribute `random_seed`. The
            same seed and the same requests give the same results.
        assumptions: The values for behaviour that RunningHub has not published.
    """

    url = ""
    files_url = ""
    _folder: Path
    _server: ServerThread | None = None

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        files_port: int = 0,
        clock: Mode = "instant",
        factor: float = 1.0,
        polls: int = 2,
        limit: int | None = None,
        money: Decimal | str | int | None = None,
        key: str | None = None,
        long_side: int = 256,
        fps: int = 12,
        max_seconds: float | None = None,
        least_bytes: int = 0,
        faults: Iterable[Fault] = (),
        moderated: Iterable[str] = (),
        durations: Durations = typical,
        deterministic: bool = False,
        random_seed: int | None = None,
        assumptions: Assumptions = DEFAULT,
    ) -> None:
        self.assumptions = assumptions
        self.clock = Clock(clock, factor=factor, polls=polls)
        self.keys = ApiKeys(assumptions)
        self.key = self.keys.add("main", limit=limit, money=money, secret=key).secret
        self.faults = Faults(faults)
        self.held = HeldResponses()
        self.moderated = set(moderated)
        self.lock = threading.RLock()
        self.tasks = Tasks(self.clock, lock=self.lock, assumptions=assumptions)
        self.recorder = Recorder(self.tasks.rows, self.keys.mask, lock=self.lock)
        self.options = RuntimeOptions(
            assumptions.webhook_spacing,
            assumptions.webhook_timeout,
            assumptions.webhook_data,
            deterministic=deterministic,
        )
        self.random = RandomSource(random_seed, options=self.options)
        self.random_seed = self.random.seed
        self.workflows = Workflows()
        self.apps = Apps()
        self.models = Models()
        self.assets = Assets(self.clock, assumptions=assumptions)
        self.webhooks = Webhooks(
            self.tasks, self.recorder, self.clock, faults=self.faults, options=self.options, assumptions=assumptions
        )
        self.durations = durations
        self._least_bytes = least_bytes
        self._renderer = partial(
            Renderer,
            long_side=long_side,
            fps=fps,
            max_seconds=max_seconds,
            id_answers=assumptions.id_answers,
            lyrics_as_text=assumptions.lyrics_as_text,
        )
        self._locations = ((host, port), (host, files_port))

    def __repr__(self) -> str:
        return f"Emulator({self.url or 'not started'}, random_seed={self.random_seed})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_model(
        self,
        endpoint: str,
        *,
        output: Output = "image",
        params: Iterable[Param] = (),
        rules: Iterable[Rule] = (),
        price: PriceTable | Decimal | str | int | None = None,
    ) -> Model:
        """Adds or replaces a model; requests to endpoints without a model get code 1001.

        Args:
            endpoint: The path after `/openapi/v2/`.
            output: The kind of output.
            params: The parameters of the model; other parameters of a request are ignored.
            rules: Rules about several parameters.
            price: The price: a table, or the amount per call; None for no published price.
        """
        model = new_model(endpoint, output=output, params=params, rules=rules, price=price)
        self.models.add(model)
        return model

    def start(self) -> Self:
        """Starts serving and sets `url` and `files_url`.

        Raises:
            ConfigError: A port is taken.
        """
        api, files = self._listen()
        self.url, self.files_url = address(api), address(files)
        self._folder = Path(tempfile.mkdtemp(prefix="rh-emulator-"))
        (self._folder / "files").mkdir()
        clock, known = self.clock, self.assumptions
        self.file_store = FileStore(self._folder / "files", url=self.files_url, clock=clock, assumptions=known)
        self.render_queue = RenderQueue(
            self._renderer(self._folder / "renders"),
            self.file_store,
            self.tasks,
            lock=self.lock,
            random=self.random,
            least_bytes=self._least_bytes,
            failed_code=known.failed_model,
        )
        self.progress = Progress(self.tasks, self.faults, clock, url=self.url, assumptions=known)
        self.proxy = Proxy()
        self.rate_limit = RateLimit(clock, most=known.requests_per_minute)
        self._server = ServerThread([(api_app(self), api), (file_app(self), files)], beside=[self.webhooks.run])
        self._server.start()
        return self

    def stop(self) -> None:
        """Closes every connection and removes every file."""
        self.held.release()
        if self._server is not None:
            self.file_store.is_closed = True
            self._server.stop()
            self.render_queue.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._server = None

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        api_place, files_place = self._locations
        api = listen(*api_place)
        try:
            return api, listen(*files_place)
        except ConfigError:
            api.close()
            raise


def serve(emulator: Emulator, on_ready: Callable[[Emulator], object]) -> None:
    """Serves an emulator in the foreground until SIGINT or SIGTERM; only in the main thread.

    Args:
        emulator: The emulator, which has not started.
        on_ready: Called once, when the server is ready.

    Raises:
        ConfigError: A port is taken.
    """
    # Not an event: one that is set by a handler in the moment before it is waited for waits for its own lock.
    stopping: SimpleQueue[int] = SimpleQueue()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        stopping.put(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        with emulator:
            on_ready(emulator)
            stopping.get()
            restore()  # a second signal ends the process while the emulator waits
    finally:
        restore()
