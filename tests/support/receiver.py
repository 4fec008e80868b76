"""A real receiver of webhooks, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from rh_prefect.jobs.callback import Callback
from rh_prefect.webhook import create_app
from rh_prefect.webhook.confirm import Confirmer

TOKEN = "canary-token-of-the-receiver"


@contextmanager
def receiver(*, haste: float = 50.0) -> Iterator[Callback]:
    """Serves the receiver in a thread.

    Args:
        haste: How much shorter than in earnest its pauses are.
    """

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / haste)

    app = create_app(token=SecretStr(TOKEN), confirmer=Confirmer(sleep=sleep))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
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


@contextmanager
def receiver_process(env: Mapping[str, str], *, log: Path) -> Iterator[dict[str, str]]:
    """Runs `rh-prefect webhook serve` as a person does.

    Args:
        env: Its environment.
        log: A file for what it writes to standard error.

    Yields:
        What it tells to export.
    """
    command = [sys.executable, "-m", "rh_prefect.cli", "webhook", "serve", "--port", "0"]
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        exported: dict[str, str] = {}
        try:
            while "RH_WEBHOOK_URL" not in exported:
                line = child.stdout.readline()
                assert line, log.read_text()
                if line.startswith("export "):
                    name, _, value = line.removeprefix("export ").strip().partition("=")
                    exported[name] = value
            yield exported
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(30)
