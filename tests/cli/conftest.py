"""Commands that are typed in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rh_prefect.emulator import Emulator
from tests.support.processes.typed_commands import Terminal


class Here(Terminal):
    """A folder in which commands are typed, and what RunningHub was paid for."""

    def __init__(self, capsys: pytest.CaptureFixture[str], rh: Emulator) -> None:
        super().__init__(capsys)
        self.folder, self.rh = Path.cwd(), rh

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def takes(self, name: str) -> dict[str, int]:
        """The entries of a takes file."""
        file = self.folder / f"{name}.takes.yaml"
        found: dict[str, int] = yaml.safe_load(file.read_text())["takes"] if file.exists() else {}
        return found

    def paid(self) -> int:
        return len(self.rh.recorder.paid)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys)


@pytest.fixture
def here(rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(capsys, rh)
