"""`rh-prefect webhook`: is told by RunningHub when tasks end, and wakes whoever waits for them."""

from __future__ import annotations

import logging
import secrets
import sys
from typing import Annotated

from cyclopts import Parameter
from pydantic import SecretStr

from rh_prefect.cli.emulator import PORT
from rh_prefect.settings import get_settings


def serve_(
    *,
    host: Annotated[str, Parameter(help="The address to listen on; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 takes a free one.", validator=PORT)] = 8788,
) -> None:
    """Serve the receiver in the foreground. RunningHub must reach it at RH_WEBHOOK_URL."""
    from rh_prefect.webhook import serve

    settings = get_settings()
    token = settings.webhook_token or SecretStr(secrets.token_urlsafe(32))

    def announce(address: str) -> None:
        print(f"webhooks are received at {address}\n", flush=True)
        if settings.webhook_token is None:
            print(f"export RH_WEBHOOK_TOKEN={token.get_secret_value()}", flush=True)
        print(f"export RH_WEBHOOK_URL={settings.webhook_url or address}", flush=True)
        if settings.webhook_url is None:
            print("\nIn place of this address, give the one at which RunningHub reaches it.", flush=True)

    _log_to_terminal()
    serve(announce, host=host, port=port, token=token)


def _log_to_terminal() -> None:
    """Shows this package's lines alone; others would show addresses."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("rh_prefect")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
