"""How long tasks take on a clock that runs: the default, which a test may replace."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Final

from rh_prefect.catalog.model import Model, Output

Durations = Callable[[Model, Mapping[str, object]], tuple[float, float]]
"""Tells the seconds that a request is queued and then runs."""

_QUEUED: Final = (0.5, 3.0)
_RUNNING: Final[dict[Output, tuple[float, float]]] = {
    "image": (3.0, 8.0),
    "video": (30.0, 90.0),
    "audio": (5.0, 20.0),
    "3d": (40.0, 120.0),
    "text": (1.0, 4.0),
}


def typical(model: Model, payload: Mapping[str, object]) -> tuple[float, float]:
    """Draws times as such models take them; the same request takes the same time.

    Args:
        model: The model.
        payload: The request.
    """
    drawn = random.Random(json.dumps([model.endpoint, payload], sort_keys=True, default=str))
    return drawn.uniform(*_QUEUED), drawn.uniform(*_RUNNING[model.output])
