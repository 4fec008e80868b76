"""Writes the page of a run's outputs when the run ends, from the run's plan; reads nothing but pictures and videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rh_prefect.display_texts import beginning_of_prompt
from rh_prefect.gallery.entries import Entry, contents_in, cost_text, shortened_params
from rh_prefect.gallery.pages import ON_A_PAGE, write_gallery
from rh_prefect.pipelines.plan.changes import is_pending
from rh_prefect.pipelines.plan.planned_steps import KnownWork, PlannedStep
from rh_prefect.pipelines.run.result import StepReport
from rh_prefect.pipelines.run.step_scheduler import StepScheduler
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.record_types import Charged

_SECONDS = 3.0
"""Maximum seconds for making small pictures. Without one, the page shows the whole image, or a symbol for a video."""

_SECONDS_OF_NOTHING_NEW = 0.5
"""Maximum seconds for making small pictures after a run without new results, when most of them exist."""

_PROMPT_SHOWN = 200
_log = logging.getLogger("rh_prefect")


def write_run_gallery(run: StepScheduler, steps: Sequence[StepReport], *, name: str) -> str:
    """Writes the page `gallery/<name>.html` of the outputs and the failed steps of a run.

    Returns the page's address; empty if there are no outputs or too many, or if the page cannot be written.
    """
    store = run.services.store
    try:
        entries = list(_entries(run, steps, name))
        if not 0 < len(entries) <= ON_A_PAGE:
            return ""
        seconds = _SECONDS if run.outcome.new_steps else _SECONDS_OF_NOTHING_NEW
        (page,) = write_gallery(store, entries, name=name, seconds=seconds)
        return store.uri(page)
    except Exception as error:  # the run is complete and paid, even if its page is not
        _log.warning(
            "The page of this run was not written; everything else was: %s What to do: run `rh-prefect gallery "
            "--run %s`.",
            error,
            name,
        )
        return ""


def prompt_of(one: PlannedStep, width: int) -> str:
    """Returns the beginning of a step's prompt; empty if the prompt is a text that was not made."""
    return beginning_of_prompt({name: text for name, text in one.request.items() if not is_pending(text)}, width)


def _entries(run: StepScheduler, steps: Sequence[StepReport], name: str) -> Iterator[Entry]:
    details = run.services.runner.scope.details
    for one, row in zip(run.plan.instances, steps, strict=True):
        entry = Entry(
            model=one.model,
            request=one.address,  # of which all takes are shown side by side
            prompt=prompt_of(one, _PROMPT_SHOWN),
            label=one.address,
            run_name=details.get("flow_run_name", ""),
            flow=run.plan.pipeline,
            run=details.get("flow_run", name),
        )
        if row.state == "failed":
            yield _failure(run, entry, one, row)
        for work in one.works:
            if work.known is not None and work.known.state == "=":
                yield from _of_work(run, replace(entry, take=work.take), one, work.known)


def _failure(run: StepScheduler, entry: Entry, one: PlannedStep, row: StepReport) -> Entry:
    """Returns the entry of a failed step: with the cost and the task of its takes without a result only."""
    made = {work.known.task_id for work in one.works if work.known is not None and work.known.state == "="}
    others = [work for work in one.works if work.known is None or work.known.state != "="]
    costs = Costs.total(run.outcome.costs[work.key] for work in others if work.key in run.outcome.costs)
    return replace(
        entry,
        task=next((task for task in row.tasks if task not in made), ""),
        take=others[0].take if others else entry.take,
        cost=str(costs) if costs else "",
        reason=row.reason,
    )


def _of_work(run: StepScheduler, entry: Entry, one: PlannedStep, known: KnownWork) -> Iterator[Entry]:
    store, seed = run.services.store, one.request.get("seed")
    at = known.at or (datetime.now(UTC) if one.address in run.outcome.new_steps else None)  # of an edit
    entry = replace(
        entry,
        task=known.task_id,
        params=shortened_params(one.request),
        sources=contents_in(one.request),
        seed=seed if isinstance(seed, int) else None,
        cost=cost_text(Charged(cost=known.cost, currency=known.currency, coins=known.coins)),
        at="" if at is None else at.isoformat(),
    )
    for file in known.outputs:
        saved = run.outcome.saved_as(file, one)
        if (place := store.name_of(file.uri)) is not None:
            yield replace(
                entry,
                file=file.at(place),
                saved_as="" if saved is None else store.name_of(saved.uri) or "",
            )
    for text in () if known.outputs else known.texts:
        yield replace(entry, text=text)
