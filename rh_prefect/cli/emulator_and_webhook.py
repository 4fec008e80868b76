"""`rh-prefect emulator` and `rh-prefect webhook serve`: servers in the foreground."""

from __future__ import annotations

import logging
import secrets
import sys
from contextlib import suppress
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from cyclopts.types import NonNegativeFloat, Port, PositiveInt
from pydantic import SecretStr

from rh_prefect.errors import ConfigError
from rh_prefect.settings import get_settings


def emulator(
    *,
    host: str = "127.0.0.1",
    port: Port = 8765,
    files_port: Port = 0,
    clock: Literal["instant", "polls", "real"] = "real",
    factor: NonNegativeFloat = 1.0,
    limit: PositiveInt = 50,
    long_side: Annotated[int, Parameter(validator=validators.Number(gte=16))] = 640,
    fps: PositiveInt = 24,
    key: str | None = None,
    deterministic: bool = False,
    random_seed: int | None = None,
) -> None:
    """Serve a local RunningHub emulator.

    Args:
        port: The API's port; 0 selects a free port.
        files_port: The file host's port; 0 selects a free port.
        clock: How tasks progress: at the first poll, at the n-th poll, or by time.
        factor: Number of emulator seconds per real second; 0 stops the clock.
        limit: Number of tasks that the key may run at once.
        long_side: Long side of pictures and videos, in pixels.
        fps: Frames per second of videos.
        key: The key's value; default: the key created at the first start, stored in RH_STATE_DIR.
        deterministic: Return the same results for the same requests.
        random_seed: Seed of all results; by default a random number.
    """
    options = dict(locals())
    from rh_prefect.emulator import Emulator, serve

    def announce(running: Emulator) -> None:
        print(f"Emulator started; recorded requests: {running.url}/_emulator/recorder", flush=True)
        print(f"--random-seed {running.random_seed} reproduces the results of this run\n", flush=True)
        print(f"export RH_BASE_URL={running.url}\nexport RH_API_KEY={running.key}", flush=True)

    serve(Emulator(**{**options, "key": key or _kept_key()}), announce)


def serve_(*, host: str = "127.0.0.1", port: Port = 8788) -> None:
    """Serve the receiver in the foreground. RunningHub must be able to reach it at RH_WEBHOOK_URL.

    Args:
        host: The address to listen on; 0.0.0.0 for all addresses of this machine.
        port: The port; 0 selects a free port.
    """
    from rh_prefect.webhook import serve

    settings = get_settings()
    token = settings.webhook_token or SecretStr(secrets.token_urlsafe(32))

    def announce(address: str) -> None:
        print(f"webhooks are received at {address}\n", flush=True)
        if settings.webhook_token is None:
            print(f"export RH_WEBHOOK_TOKEN={token.get_secret_value()}", flush=True)
        print(f"export RH_WEBHOOK_URL={settings.webhook_url or address}", flush=True)
        if settings.webhook_url is None:
            print("\nInstead of this address, use the address at which RunningHub can reach the receiver.", flush=True)

    _log_to_terminal()
    serve(announce, host=host, port=port, token=token)


def _log_to_terminal() -> None:
    """Logs only this package's lines to the terminal, because other lines would show addresses with secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("rh_prefect")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _kept_key() -> str:
    """Returns the key of this user's emulators; the key is stored, so that saved blocks stay valid after a restart."""
    from rh_prefect import local_files

    path = get_settings().state_dir / "emulator-key"
    try:
        local_files.make_folder(path.parent)
        with suppress(FileExistsError), local_files.create(path) as file:
            file.write(secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"The emulator's key cannot be saved in {path}: {error}. What to do: pass --key, or set RH_STATE_DIR to a "
            "writable folder."
        ) from error
