"""A real receiver of webhooks, in this process or in a separate one."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from rh_prefect.flow_runs.suspended_run_resumer import SHORTEST, SuspendedRunResumer
from rh_prefect.webhook import create_app
from rh_prefect.webhook.delivery_confirmation import Confirmer
from rh_prefect.webhook.server import BoundedProtocol
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work_in_progress import Callback
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.servers.prefect_server import free_port

TOKEN = "canary-token-of-the-receiver"
HASTE = 50.0


@contextmanager
def receiver(*, protocol: type[BoundedProtocol] = BoundedProtocol) -> Iterator[Callback]:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / HASTE)

    resumer = SuspendedRunResumer(shortest=SHORTEST / HASTE)
    app = create_app(token=SecretStr(TOKEN), confirmer=Confirmer(sleep=sleep, on_end=resumer.notify), resumer=resumer)
    config = uvicorn.Config(app, http=protocol, ws="none", log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Prefect's settings of a test are context variables, which a new thread would not see.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(lambda: server.run(sockets=[listener]),), daemon=True)
        thread.start()
        try:
            yield Callback(f"http://127.0.0.1:{listener.getsockname()[1]}", SecretStr(TOKEN))
        finally:
            server.should_exit = True
            thread.join()
            LOOP.call_sync(resumer.close())


class ReceiverProcess:
    """`rh-prefect webhook serve` as a person runs it, on one port, however often it is started."""

    def __init__(self, env: Mapping[str, str], *, log: Path) -> None:
        self._env = {**os.environ, **env}
        self._log = log
        self._port = free_port()
        self._process: WarmProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> dict[str, str]:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> dict[str, str]:
        """Starts it, and returns what it tells to export once it takes deliveries."""
        command = [*RH, "webhook", "serve", "--port", str(self._port)]
        with self._log.open("ab") as errors:
            self._process = WarmProcess(command, env=self._env, stderr=errors)
        exported: dict[str, str] = {}
        while "RH_WEBHOOK_URL" not in exported:
            line = self._process.stdout.readline()
            assert line, self._log.read_text()
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exported[name] = value
        return exported

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            with self._process as process:
                process.send_signal(number)
                process.communicate()
            self._process = None
