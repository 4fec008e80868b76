"""Commands of `rh-prefect` as a person types them, and those that a command prints for its reader."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from rh_prefect.cli import app, main

_PRINTED = re.compile(r"`(rh-prefect [^`]+)`")


class Terminal:
    """Runs commands in this process, in its working folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.said = ""
        """What the last command printed, on stdout and on stderr."""

    def call(self, command: str, *, fails: bool = False) -> str:
        """Runs a command, with or without `rh-prefect` before it."""
        code: Any = 0
        self._capsys.readouterr()
        try:
            main(lambda: app(shlex.split(command.removeprefix("rh-prefect "))))
        except SystemExit as end:
            code = end.code or 0
        said = self._capsys.readouterr()
        self.said = said.out + said.err
        assert bool(code) is fails, said
        return said.err if fails else said.out

    def json(self, command: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.call(f"{command} --json"))


def printed(said: str) -> list[str]:
    """The commands that a text names, in their order."""
    return _PRINTED.findall(said)
