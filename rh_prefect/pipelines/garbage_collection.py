"""Limits Python's garbage collector during a run: most objects stay until the run ends, so a pass frees little."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_FULL = 2
"""The generation of a pass over all objects that are not frozen."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Pauses the collector during the block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def survivors_frozen() -> Iterator[None]:
    """Excludes the objects that survive a full pass from later passes, until the block ends.

    Otherwise each full pass of a long run would block the event loop for longer than the one before.
    """

    def freeze(phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] == _FULL:
            gc.freeze()

    gc.callbacks.append(freeze)
    try:
        yield
    finally:
        gc.callbacks.remove(freeze)
        gc.unfreeze()
