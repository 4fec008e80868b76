"""Whether a row's files may be others than when it was done."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from rh_prefect.errors import MediaError
from rh_prefect.flows.batch.plan import Stage
from rh_prefect.media.source import look


def mark_of(
    stages: Sequence[Stage],
    params: Sequence[Mapping[str, object]],
    *,
    options_for: Callable[[str], Mapping[str, object]],
) -> str:
    """Marks a row's files by the state that their places say. Where it is another, the row's jobs look at the content.

    Args:
        stages: The chain.
        params: The parameters of each step.
        options_for: Gives fsspec's storage options for a file.

    Returns:
        16 hex digits; empty where the row has no file that could change.
    """
    found = [
        _state(one, options_for)
        for stage, step in zip(stages, params)
        for param in stage.model.media_params
        for one in _addresses(step.get(param.name))
    ]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else ""


def _addresses(value: object) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _addresses(one)
    elif isinstance(value, str):
        yield value


def _state(address: str, options_for: Callable[[str], Mapping[str, object]]) -> str:
    """A file's state; never the same twice where its place does not say it."""
    try:
        stamp = look(address, options=options_for(address)).stamp
    except MediaError:
        stamp = None
    return stamp.text if stamp is not None else uuid.uuid4().hex
