"""Copies of what a caller hands over, so that what the caller changes later changes nothing."""

from __future__ import annotations

from typing import Any


def snapshot(value: Any) -> Any:
    """Copies lists, tuples and objects as deep as they go; everything else stays as it is.

    Args:
        value: What the caller gave: mostly JSON, with files in between.
    """
    if type(value) is dict:
        return {name: snapshot(one) for name, one in value.items()}
    if type(value) is list:
        return [snapshot(one) for one in value]
    if type(value) is tuple:
        return tuple(snapshot(one) for one in value)
    return bytes(value) if isinstance(value, bytearray) else value
