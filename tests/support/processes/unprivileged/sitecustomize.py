"""Makes a process of root an ordinary one: with this folder in PYTHONPATH, permissions hold for it, too."""

from __future__ import annotations

import ctypes
import os

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


if os.geteuid() == 0:
    # Before any thread is started: these are a thread's own, and each one gets those of the thread that starts it.
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(_Header(_VERSION_3, 0)), nothing):
        raise OSError(ctypes.get_errno(), "the capabilities of root cannot be given up")
