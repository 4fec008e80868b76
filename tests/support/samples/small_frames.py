"""Shipped pipelines with small frames: a film of 1920x1080 takes minutes of CPU, and a test learns no more from it."""

from __future__ import annotations

import re

_FRAME = re.compile(r"width: (\d+), height: (\d+)")
_PART = 6


def smaller(text: str) -> str:
    """Returns a pipeline's text with each frame a sixth as wide and as high; the aspect ratio stays."""
    return _FRAME.sub(
        lambda found: "width: {}, height: {}".format(*(int(one) // _PART for one in found.groups())), text
    )
