"""The receiver of webhooks in a separate process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.emulator_process import EmulatorProcess
from benchmarks.harness import Bench

_TOKEN = {"RH_WEBHOOK_TOKEN": "benchmark-" + "0" * 32}


@contextmanager
def receiver(bench: Bench, emulator: EmulatorProcess) -> Iterator[dict[str, str]]:
    """Runs `rh-prefect webhook serve`.

    Yields:
        What a client's environment needs to receive them.
    """
    command = [sys.executable, "-m", "rh_prefect.cli", "webhook", "serve", "--port", "0"]
    env = {**bench.server.env, **emulator.env, **_TOKEN, "RH_STATE_DIR": str(bench.folder / "receiver")}
    with (bench.folder / "receiver.log").open("a") as log:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            yield {**_TOKEN, "RH_WEBHOOK_URL": url}
        finally:
            process.terminate()
