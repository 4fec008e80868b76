"""Runs several `rh-prefect` commands in one process, one after another."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import warm_process


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run_each(commands: Sequence[Sequence[str]], *, env: Mapping[str, str], cwd: Path) -> list[Done]:
    done = warm_process.run(["-m", "tests.support.processes.cli_process"], env=env, cwd=cwd, text=json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [Done(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def _run(words: list[str]) -> dict[str, object]:
    from rh_prefect.cli import main

    sys.argv = ["rh-prefect", *words]
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except Exception as error:
            code = 1
            print(f"Traceback: {error!r}", file=errors)
    return {"returncode": code, "stdout": out.getvalue(), "stderr": errors.getvalue()}


if __name__ == "__main__":
    print(json.dumps([_run(words) for words in json.load(sys.stdin)]))
