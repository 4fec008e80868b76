"""The Prefect API that a command works with: the configured one, or a server that the command starts for itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rh_prefect.cli import subprocesses
from rh_prefect.cli.argument_checks import is_flow_run_id
from rh_prefect.settings import get_settings


@contextlib.contextmanager
def prefect_api() -> Iterator[None]:
    """Has a Prefect API: the configured one, else a server of this command's own that keeps its runs."""
    if is_configured():
        yield
        return
    with subprocesses.prefect_server(_home()) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect.context import refresh_global_settings_context

        # Prefect reads its settings once, and has done so to say that there is no such address.
        refresh_global_settings_context()
        yield


@contextlib.contextmanager
def api_of_earlier_runs(run: str | None = None) -> Iterator[None]:
    """As `prefect_api`, for a command that looks at runs: starts the server of `rh-prefect run` only where that helps.

    Args:
        run: The run that is looked at: a flow run's id, or a scope outside of flows, which needs no Prefect; None for
            all.
    """
    is_needed = (run is None or is_flow_run_id(run)) and (_home() / "prefect.db").exists()
    with prefect_api() if is_needed or is_configured() else contextlib.nullcontext():
        yield


def _home() -> Path:
    return get_settings().state_dir / "prefect"


def is_configured() -> bool:
    """Tells whether there is a Prefect API to talk to; the terminal is this command's from here on."""
    # Before Prefect is imported, which sets its logging up then.
    for name, value in subprocesses.QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def prefect_failed(error: Exception) -> str:
    """Says in one message why the Prefect API did not do what a command asked of it.

    Args:
        error: What its client, which speaks through httpx, has raised.
    """
    from prefect.settings import PREFECT_API_URL

    where = PREFECT_API_URL.value() or "the address that Prefect chose"
    answer = getattr(error, "response", None)
    if answer is None:
        what = str(error) or type(error).__name__
        advice = "start it (`prefect server start`), or set PREFECT_API_URL to the address of one that runs"
        return f"The Prefect API at {where} does not answer: {what}. What to do: {advice}."
    if answer.status_code in (401, 403):
        advice = "set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING for a server of your own"
    elif answer.status_code == 404:
        advice = "check PREFECT_API_URL, which ends in /api"
    else:
        advice = "look at the server's log, then try again"
    said = " ".join(answer.text.split())[:200]
    return f"The Prefect API at {where} answered HTTP {answer.status_code}: {said}. What to do: {advice}."
