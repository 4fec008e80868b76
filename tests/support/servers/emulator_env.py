"""An emulator, and the environment variables that point the package to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import DEFAULT, Emulator

HELPFUL = replace(DEFAULT, moderated_at_submit=("1501", ""), preview_unpriced=None)
"""The content check is part of the submit, and what the catalogue cannot price has a price preview."""

StartEmulator = Callable[..., Emulator]


@pytest.fixture
def start_rh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartEmulator]:
    """Starts an emulator with the given options; `RH_…` points at it and at folders of this test."""
    with ExitStack() as stack:

        def start(**options: Any) -> Emulator:
            # Two seconds of a video or sound are as good as ten where a test does not look at lengths, and rendering
            # and edits take half of the CPU of a test.
            emulator = stack.enter_context(Emulator(**{"long_side": 96, "fps": 6, "max_seconds": 2, **options}))
            for name, value in environment(emulator, tmp_path).items():
                monkeypatch.setenv(name, value)
            return emulator

        yield start


@pytest.fixture
def rh(start_rh: StartEmulator) -> Emulator:
    """A fresh emulator with an instant clock."""
    return start_rh(moderated=["forbidden"], assumptions=HELPFUL)


@pytest.fixture
def full_length_rh(start_rh: StartEmulator) -> Emulator:
    """One whose videos and sounds are as long as a request asks for."""
    return start_rh(max_seconds=None)


@pytest.fixture
def charging_rh(start_rh: StartEmulator) -> Emulator:
    """One that charges for failed tasks, too."""
    return start_rh(assumptions=replace(DEFAULT, refund_failed_models=False))


@pytest.fixture
def slow_rh(start_rh: StartEmulator) -> Emulator:
    """One whose tasks run until they are cancelled, or `slow_rh.clock` is moved on."""
    return start_rh(clock="real", factor=0)


def environment(emulator: Emulator, folder: Path) -> dict[str, str]:
    return {
        "RH_API_KEY": emulator.key,
        "RH_BASE_URL": emulator.url,
        "RH_STORAGE_URL": str(folder / "out"),
        "RH_STATE_DIR": str(folder / "state"),
        "RH_POLL_SECONDS": "0.02",
        "RH_GRACE_SECONDS": "1",
        "RH_INPUT_ROOTS": str(folder),
        "RH_ALLOW_PRIVATE_LINKS": "1",
    }
