"""How much memory this process holds, and held at most."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


class Growth:
    """By how much the process has grown at most since this was made.

    Attributes:
        idle: Bytes that it held then.
    """

    def __init__(self) -> None:
        gc.collect()
        self.idle = now()
        if _STATUS.exists():
            _STATUS.with_name("clear_refs").write_text("5")  # forgets the peak

    @property
    def megabytes(self) -> float:
        """The growth."""
        peak = _status("VmHWM") if _STATUS.exists() else _high_water()
        return (peak - self.idle) / 1e6


def now() -> float:
    """Bytes that it holds; outside Linux its peak, which cannot be set back there."""
    return _status("VmRSS") if _STATUS.exists() else _high_water()


def _status(field: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) * 1024


def _high_water() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
