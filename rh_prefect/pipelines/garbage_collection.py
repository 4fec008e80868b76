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


_has_frozen = False
"""Whether a run, and not the program around it, has frozen objects."""


def freeze() -> None:
    """Excludes all present objects from the passes until a run ends.

    Does nothing in a process that has frozen objects itself, as before a fork: the end of a run could not tell these
    from its own, and would return all of them to the collector.
    """
    global _has_frozen
    if _has_frozen or not gc.get_freeze_count():
        gc.freeze()
        _has_frozen = True


@contextmanager
def survivors_frozen() -> Iterator[None]:
    """Excludes the objects that survive a full pass from later passes, until the block ends.

    Otherwise each full pass of a long run would block the event loop for longer than the one before.
    """

    def after_pass(phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] == _FULL:
            freeze()

    gc.callbacks.append(after_pass)
    try:
        yield
    finally:
        gc.callbacks.remove(after_pass)
        _unfreeze()


def _unfreeze() -> None:
    global _has_frozen
    if _has_frozen:
        gc.unfreeze()
        _has_frozen = False
