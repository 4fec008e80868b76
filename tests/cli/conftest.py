"""Commands that are typed in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes.typed_commands import Terminal


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys)
