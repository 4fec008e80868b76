"""Counts the objects that an object keeps alive."""

from __future__ import annotations

import gc
import types

_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType)
"""What belongs to the program and not to the object that leads to it."""


def count_of(root: object) -> int:
    """Counts the objects that can be reached from one, through whatever attributes and containers."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        for one in gc.get_referents(waiting.pop()):
            if id(one) not in seen and not isinstance(one, _SHARED):
                seen.add(id(one))
                waiting.append(one)
    return len(seen)
