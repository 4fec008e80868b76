"""`rh-prefect demo`: runs a shipped pipeline on an emulator, once without a Prefect server and once as a flow."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from rh_prefect.cli.init import write_example
from rh_prefect.cli.options import Given, words_of
from rh_prefect.cli.prefect_server import prefect_api
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.emulator.recorder import Recorder

PROMPT = "A lighthouse above a stormy sea at dawn, gulls in the wind"


def demo(
    *,
    folder: Path = Path("rh-demo"),
    prompt: str = PROMPT,
    shots: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=12))] = 3,
    stay: bool = False,
) -> None:
    """Make a film on this machine, and run it again as a pipeline and as a flow. No key, no network, nothing to pay.

    Args:
        folder: Folder for the film, the database and the logs.
        prompt: What the film shows.
        shots: Number of shots, 1 to 12.
        stay: Keep the dashboard running until you press Ctrl-C.
    """
    if not prompt.strip():
        raise InputError("demo: --prompt is empty. What to do: give a sentence after --prompt, or leave --prompt out.")
    from rh_prefect.emulator import Emulator

    folder = folder.resolve()
    print(f"The pipeline `film` runs in {folder}, on an emulator of RunningHub.")
    with Emulator(clock="real", factor=20, limit=50, long_side=640, fps=24) as rh:
        # The settings of the user, such as RH_RECORDS, are of paid runs.
        for name in [one for one in os.environ if one.upper().startswith("RH_")]:
            del os.environ[name]
        # Before Prefect is imported, which reads its settings once: no run may reach a server of the user.
        os.environ.update(
            PREFECT_API_URL="",
            PREFECT_HOME=str(folder / "prefect"),
            RH_STORAGE_URL=str(folder / "out"),
            RH_STATE_DIR=str(folder / "state"),
            RH_POLL_SECONDS="0.3",
            RH_ALLOW_PRIVATE_LINKS="1",
            RH_BASE_URL=rh.url,
            RH_API_KEY=rh.key,
        )
        file, given = folder / "film.yaml", Given(set=[f"prompt={prompt}", f"shots={shots}"])
        from rh_prefect.cli.run_pipeline import run

        _plan_and_run_twice(file, given, rh.recorder)
        if stay:
            print(_next_steps(folder))
        print("\nWith PREFECT_API_URL or --dashboard, the same run is a flow run, which finds the same results:")
        _print_command(run, file, given, dashboard=True)
        with contextlib.nullcontext() if stay else prefect_api():
            run(file, given=given, dashboard=True)
    if not stay:
        print(_next_steps(folder))


def _next_steps(folder: Path) -> str:
    """Returns the commands that show the demo's results, to be copied into another terminal."""
    programs = Path(sys.executable).parent
    lines = [] if shutil.which("rh-prefect") else [f"export PATH={shlex.quote(str(programs))}:$PATH"]
    lines += [f"cd {shlex.quote(str(folder))}", f"export RH_STORAGE_URL={shlex.quote(str(folder / 'out'))}"]
    lines += ["rh-prefect open       # the film", "rh-prefect gallery    # a page with everything that was made"]
    lines.append(f"PREFECT_HOME={shlex.quote(str(folder / 'prefect'))} prefect server start    # the dashboard")
    listed = "".join(f"\n  {line}" for line in lines)
    return (
        f"\nThe results are kept. To see them:\n{listed}\n\nThe commands above ran on an emulator, which ends with "
        "this command. To pay for the same film at RunningHub, also export RH_API_KEY=<your key>, and repeat the "
        "commands. To repeat them at no cost, run `rh-prefect emulator` in another terminal, and export the variables "
        "that it prints."
    )


def _plan_and_run_twice(file: Path, given: Given, books: Recorder) -> None:
    from rh_prefect.cli.pipelines import plan
    from rh_prefect.cli.run_pipeline import run

    if not file.exists():
        write_example("film", file)
    _call(plan, file, given)
    _call(run, file, given)
    submitted, charged = len(books.submissions), books.charged
    _call(run, file, given)
    print(
        f"\nThe emulator recorded: {submitted} tasks submitted and {charged:.2f} CNY charged by the first run, "
        f"{len(books.submissions) - submitted} tasks and {books.charged - charged:.2f} CNY by the second."
    )


def _call(command: Callable[..., None], file: Path, given: Given) -> None:
    """Prints a command, and executes it."""
    _print_command(command, file, given)
    command(file, given=given)


def _print_command(command: Callable[..., None], file: Path, given: Given, **options: bool) -> None:
    words = [file.name, *words_of(**asdict(given), **options)]
    print(f"\n$ rh-prefect {command.__name__} {shlex.join(words)}", flush=True)
