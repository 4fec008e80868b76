"""The process that wrote an intent, and whether it has certainly ended."""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Owner(BaseModel):
    """An identified process, distinguishable from a later one with the same pid."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    boot: str  # The host's boot id; a pid identifies nothing after a reboot or in another container
    pid: int
    started: str  # When the kernel started it, in clock ticks since boot


def current_owner() -> Owner:
    """Describes this process; read again after a fork."""
    return _owner_of(os.getpid())


@cache
def _owner_of(pid: int) -> Owner:
    return Owner(host=socket.gethostname(), boot=_boot_id(), pid=pid, started=_start_time(pid) or "")


# The kernel may give a child the pid of an ancestor that has ended; with the ancestor's start it would count as dead.
os.register_at_fork(after_in_child=_owner_of.cache_clear)


def is_surely_dead(owner: Owner) -> bool:
    """Checks whether a process on this same host has certainly ended."""
    current = current_owner()
    if not (owner.boot and owner.started) or (owner.host, owner.boot) != (current.host, current.boot):
        return False
    started = _start_time(owner.pid)
    if started is None:
        # A /proc that is mounted with hidepid hides the processes of other users.
        return not _exists(owner.pid)
    return started != owner.started


def uptime() -> float:
    """Returns a monotonic clock in seconds that includes system sleep, if the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


@cache
def _boot_id() -> str:
    """The boot's id and the pid namespace: in two containers of one host the same pid is two processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat; "dead" for a zombie, None if no such process is visible."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name stands in brackets and may itself hold brackets and blanks.
    fields = text.rpartition(")")[2].split()
    return "dead" if fields[0] in ("Z", "X") else fields[19]
