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
from typing import Self, TypedDict, Unpack

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
from rh_prefect.emulator.file_store import FileStore, Loras
from rh_prefect.emulator.models_and_prices import Models, new_model
from rh_prefect.emulator.native_prompts import Proxy
from rh_prefect.emulator.progress import Progress
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.emulator.render import Renderer
from rh_prefect.emulator.render_queue import RandomSource, RenderQueue
from rh_prefect.emulator.server import ServerThread, address, listen
from rh_prefect.emulator.state import State, initial_options
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.webhooks import Webhooks
from rh_prefect.errors import ConfigError


class Options(TypedDict, total=False):
    """The arguments of `Emulator` and `serve`."""

    host: str
    port: int
    files_port: int
    clock: Mode
    factor: float
    polls: int
    limit: int
    money: Decimal | str | int
    key: str | None
    long_side: int
    fps: int
    max_seconds: float | None
    least_bytes: int
    faults: Iterable[Fault]
    moderated: Iterable[str]
    durations: Durations
    deterministic: bool
    random_seed: int | None
    assumptions: Assumptions


class Emulator:
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
    _folder: Path | None = None
    _file_store: FileStore | None = None
    _render_queue: RenderQueue | None = None
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
        self._lock = threading.RLock()
        self._tasks = Tasks(self.clock, lock=self._lock, assumptions=assumptions)
        self.recorder = Recorder(self._tasks.rows, self.keys.mask, lock=self._lock)
        self.options = initial_options(assumptions, deterministic=deterministic)
        self._random = RandomSource(random_seed, options=self.options)
        self.random_seed = self._random.seed
        self.workflows = Workflows()
        self.apps = Apps()
        self._models = Models()
        self.assets = Assets(self.clock, assumptions=assumptions)
        self.webhooks = Webhooks(
            self._tasks, self.recorder, self.clock, faults=self.faults, options=self.options, assumptions=assumptions
        )
        self._durations = durations
        self._least_bytes = least_bytes
        self._renderer = partial(Renderer, long_side=long_side, fps=fps, max_seconds=max_seconds)
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
        self._models.add(model)
        return model

    def start(self) -> Self:
        """Starts serving and sets `url` and `files_url`.

        Raises:
            ConfigError: A port is taken.
        """
        api, files = self._listen()
        self.url, self.files_url = address(api), address(files)
        self._folder = Path(tempfile.mkdtemp(prefix="rh-emulator-"))
        state = self._state(self._folder)
        self._file_store, self._render_queue = state.file_store, state.render_queue
        self._server = ServerThread([(api_app(state), api), (file_app(state), files)], beside=[self.webhooks.run])
        self._server.start()
        return self

    def stop(self) -> None:
        """Closes every connection and removes every file."""
        self.held.release()
        if self._file_store is not None:
            self._file_store.is_closed = True
        if self._server is not None:
            self._server.stop()
        if self._render_queue is not None:
            self._render_queue.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._server = self._file_store = self._render_queue = self._folder = None

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        api_place, files_place = self._locations
        api = listen(*api_place)
        try:
            return api, listen(*files_place)
        except ConfigError:
            api.close()
            raise

    def _made_render_queue(self, renderer: Renderer, file_store: FileStore) -> RenderQueue:
        return RenderQueue(
            renderer,
            file_store,
            self._tasks,
            lock=self._lock,
            random=self._random,
            least_bytes=self._least_bytes,
            failed_code=self.assumptions.failed_model,
        )

    def _state(self, folder: Path) -> State:
        for name in ("files", "renders"):
            (folder / name).mkdir()
        file_store = FileStore(folder / "files", url=self.files_url, clock=self.clock, assumptions=self.assumptions)
        known = self.assumptions
        renderer = self._renderer(folder / "renders", id_answers=known.id_answers, lyrics_as_text=known.lyrics_as_text)
        return State(
            url=self.url,
            assumptions=self.assumptions,
            clock=self.clock,
            keys=self.keys,
            tasks=self._tasks,
            recorder=self.recorder,
            faults=self.faults,
            held=self.held,
            file_store=file_store,
            render_queue=self._made_render_queue(renderer, file_store),
            durations=self._durations,
            workflows=self.workflows,
            apps=self.apps,
            assets=self.assets,
            loras=Loras(file_store, folder=self.assumptions.lora_folder),
            webhooks=self.webhooks,
            progress=Progress(self._tasks, self.faults, self.clock, url=self.url, assumptions=self.assumptions),
            proxy=Proxy(),
            options=self.options,
            random=self._random,
            models=self._models,
            rate_limit=RateLimit(self.clock, most=self.assumptions.requests_per_minute),
            moderated=self.moderated,
            lock=self._lock,
        )


def serve(on_ready: Callable[[Emulator], object], **options: Unpack[Options]) -> None:
    """Serves in the foreground until SIGINT or SIGTERM; only in the main thread.

    Args:
        on_ready: Called once, when the server is ready.
        options: The arguments of `Emulator`.

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
        with Emulator(**options) as emulator:
            on_ready(emulator)
            stopping.get()
            restore()  # a second signal ends the process while the emulator waits
    finally:
        restore()
