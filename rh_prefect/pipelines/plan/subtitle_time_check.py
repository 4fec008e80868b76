"""Finds subtitles that begin at the same time, where the times are known before anything is paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.planning_values import Frame, Group
from rh_prefect.pipelines.references import Names, references_in


def equal_times(step: Step, frame: Frame, values: Mapping[str, Any]) -> str:
    """Describes two texts that begin in the same millisecond; empty where there are none.

    Only times that a person gave count: such a person can correct them. Times that a step has made are known after
    something was paid, and the texts then share the time.

    Args:
        step: The edit's declaration.
        frame: The item.
        values: The edit's parameters.
    """
    times, texts = values.get("at"), values.get("text")
    if not isinstance(times, list) or not isinstance(texts, list) or len(times) != len(texts):
        return ""
    if not _are_inputs(step.with_["at"], frame):
        return ""
    seen: dict[int, Any] = {}
    for time, text in zip(times, texts):
        if not isinstance(time, int | float) or (isinstance(text, str) and not text.strip()):
            continue
        milli = round(time * 1000)  # as it is written
        if milli in seen:
            return f"two texts begin at {milli / 1000:g} s{_named(seen[milli], text)}; give each text its own time"
        seen[milli] = text
    return ""


def _named(*texts: Any) -> str:
    known = [repr(text[:40]) for text in texts if isinstance(text, str)]
    return f", {' and '.join(known)}" if len(known) == len(texts) else ""


def _are_inputs(written: Any, frame: Frame) -> bool:
    """Returns whether a value comes from the file, its parameters or a table's rows, and not from a step."""
    names = [names for _, reference in references_in(written) for names in reference.options]
    return all(_is_input(one, frame) for one in names)


def _is_input(names: Names, frame: Frame) -> bool:
    value = frame.find(names[0])
    if isinstance(value, Group):
        return names[1:2] == ("item",) and all(_is_row(one.names.get("item")) for one in value.frames)
    return names[0] == "params" or _is_row(value)


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and "\0row" in value
