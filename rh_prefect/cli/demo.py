"""`rh-prefect demo`: the whole machine on this desk, with Prefect's own server and the emulator."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from rh_prefect.cli import servers
from rh_prefect.cli.arguments import check_call

PROMPT = "A lighthouse above a stormy sea at dawn, gulls in the wind"
NARRATION = "Far out, where the land ends, a light keeps watch. Night after night it tells the ships the way home."


def demo(
    *,
    folder: Annotated[Path, Parameter(help="Where everything goes: the film, the database, the logs.")] = Path(
        "rh-demo"
    ),
    prompt: Annotated[str, Parameter(help="What the film shows.")] = PROMPT,
    shots: Annotated[int, Parameter(help="How many shots, 1 to 12.", validator=validators.Number(gte=1, lte=12))] = 3,
    stay: Annotated[bool, Parameter(help="Keep the dashboard up until Ctrl-C.", negative="")] = False,
) -> None:
    """Make a film on this machine: no key, no network, nothing to pay."""
    check_call("demo", {"prompt": prompt, "folder": str(folder)}, needs=("prompt",))
    folder = folder.resolve()
    print(f"makes a film in {folder}, on Prefect's own server and an emulator of RunningHub")
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(servers.prefect_server(folder / "prefect"))
        settings = stack.enter_context(
            servers.emulator(folder, "--clock", "real", "--factor", "20", "--long-side", "640", "--fps", "24")
        )
        # Before Prefect is imported: it reads its settings once.
        os.environ.update(
            servers.QUIET,
            PREFECT_API_URL=url,
            PREFECT_HOME=str(folder / "prefect"),
            RH_STORAGE_URL=str(folder / "out"),
            RH_STATE_DIR=str(folder / "state"),
            RH_POLL_SECONDS="0.3",
            RH_ALLOW_PRIVATE_LINKS="1",
            **settings,
        )
        _film(prompt, shots)
        if stay:
            print(f"dashboard: {url.removesuffix('/api')}  (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def _film(prompt: str, shots: int) -> Any:
    from rh_prefect.cli.flows import run_flow

    narration = NARRATION if prompt == PROMPT else prompt
    return run_flow("film", {"prompt": prompt, "narration": narration, "shots": shots})
