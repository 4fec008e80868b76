"""`Entry`: one output on a page of the gallery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.media.media import Media
from rh_prefect.works.journal.costs_and_budget import costs_of
from rh_prefect.works.journal.record_types import Charged

_MARK = "sha256:"
_PARAMETER_SHOWN = 2_000
"""Maximum number of characters of one parameter on the page; RunningHub's longest prompts are longer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One output of a job or an edit, or one failed step, with everything that a page shows about it."""

    model: str  # The model's name, or the edit's
    request: str  # Hash of the request, equal for all its takes; of an edit, its recipe; on a run's page, its step
    task: str = ""  # RunningHub's task id; empty for an edit
    file: Media | None = None  # The file, whose `uri` is its name in the storage; None for a text
    text: str = ""  # The text, of an output without a file
    prompt: str = ""  # The beginning of the text that the request is about
    params: Mapping[str, Any] = field(default_factory=dict)  # The parameters, files by content
    sources: tuple[str, ...] = ()  # The contents that it was made from
    take: int = 1  # Which of several results of the request
    label: str = ""  # The caller's name for it; of a pipeline's result, the step's address
    flow: str = ""  # The flow or the pipeline
    run: str = ""  # The id of the run that made it
    run_name: str = ""  # That run's name
    cost: str = ""  # What its task cost, in the form of `Costs`; empty for an edit, and if it is not known
    seed: int | None = None  # The seed of the request
    at: str = ""  # When its task ended, ISO 8601, UTC; of an edit, when it was recorded
    seconds: float | None = None  # How long its task ran
    job: str = ""  # The name of the job, `<scope>/<key>`
    reason: str = ""  # Why a step has failed
    saved_as: str = ""  # The name in the storage that a pipeline gave it


def cost_text(task: Charged) -> str:
    """Returns what a task cost, in each unit; empty if it is not known."""
    costs = costs_of(task)
    return str(costs) if costs.amounts else ""


def amounts_in(cost: str) -> list[tuple[str, str]]:
    """Returns the units and amounts in the text of costs, such as `0.10 CNY, 25 coins, 1 task of unknown cost`."""
    parts = (part.partition(" ") for part in cost.split(", "))
    return [(unit, amount) for amount, _, unit in parts if unit and " " not in unit]


def contents_in(params: object) -> tuple[str, ...]:
    """Returns the hashes of the files in parameters, in which a file is a string such as `sha256:…`."""
    return tuple(dict.fromkeys(text.removeprefix(_MARK) for text in texts_in(params) if text.startswith(_MARK)))


def texts_in(value: object) -> Iterator[str]:
    """Yields all strings in parameters."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, Iterable):
        for one in value:
            yield from texts_in(one)


def shortened_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters in which each string is cut after `_PARAMETER_SHOWN` characters."""
    most = _PARAMETER_SHOWN
    long = {name: value for name, value in params.items() if isinstance(value, str) and len(value) > most}
    return {**params, **{name: f"{value[:most]}…" for name, value in long.items()}}
