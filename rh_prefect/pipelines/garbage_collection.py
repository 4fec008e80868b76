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


class Freezer:
    """Excludes objects from the collector's passes until a run ends.

    It does nothing in a process that has frozen objects itself, as before a fork: the end of a run could not tell these
    from its own, and would return all of them to the collector.
    """

    def __init__(self) -> None:
        self._has_frozen = False
        self._others_froze = False  # asked until it is so: the answer counts all frozen objects, 0.1 s for a million

    def freeze(self) -> None:
        """Excludes all present objects."""
        self._others_froze = self._others_froze or (not self._has_frozen and gc.get_freeze_count() > 0)
        if not self._others_froze:
            gc.freeze()
            self._has_frozen = True

    @contextmanager
    def survivors_frozen(self) -> Iterator[None]:
        """Excludes the objects that survive a full pass from later passes, until the block ends.

        Otherwise each full pass of a long run would block the event loop for longer than the one before.
        """

        def after_pass(phase: str, info: Mapping[str, int]) -> None:
            if phase == "stop" and info["generation"] == _FULL:
                self.freeze()

        gc.callbacks.append(after_pass)
        try:
            yield
        finally:
            gc.callbacks.remove(after_pass)
            if self._has_frozen:
                gc.unfreeze()
                self._has_frozen = False


FREEZER = Freezer()
"""The freezer of this process: Python has one collector."""
