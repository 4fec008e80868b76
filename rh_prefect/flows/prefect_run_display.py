"""`PrefectPages`: shows a pipeline run in Prefect, with a plan, a graph, a report, events, and a tag for searches."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import httpx
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL

from rh_prefect import artifacts
from rh_prefect.artifacts import Page, fitting, not_shown, size_of
from rh_prefect.flow_runs.file_lineage import emit_asset
from rh_prefect.flow_runs.progress_observer import expect_jobs, mark_reported
from rh_prefect.flow_runs.report_artifact import Report, linked, sheets, values_in
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.render import prices
from rh_prefect.pipelines.plan.work_identity import is_settled, mark
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.interfaces import Pages, What
from rh_prefect.pipelines.run.result import RunEnd, StepReport
from rh_prefect.prefect_api import ask
from rh_prefect.prefect_internals import emit
from rh_prefect.works.journal.costs_and_budget import Costs

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, kw_only=True)
class PrefectPages(Pages):
    """Shows a run in Prefect; see `rh_prefect.pipelines.run.interfaces.Pages`."""

    tags: Sequence[str] = ()  # The tags in the pipeline's file

    async def show_plan(self, plan: Plan) -> None:
        """Shows the plan with its prices and its graph as artifacts, and tags the flow run."""
        least, expected, most = prices(plan.price)
        budget = f", budget {plan.budget.amount:.12g}" if plan.budget is not None else ""
        description = f"Least {least}, expected {expected}, most {most} {plan.currency}{budget}"
        await artifacts.markdown(f"```\n{plan.table()}\n```", what="plan", description=description)
        picture = base64.b64encode(plan.svg().encode()).decode()
        graph = f"![graph](data:image/svg+xml;base64,{picture})"
        await artifacts.markdown(graph, what="graph", description="Steps and their prices")
        await _tag(f"pipeline:{plan.pipeline}", *self.tags)

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:
        """Emits `runninghub.pipeline.<what>`, related to the flow run; does nothing if no Prefect API is set."""
        if not PREFECT_API_URL.value():
            return
        emit(
            event=f"runninghub.pipeline.{what}",
            resource={"prefect.resource.id": f"runninghub.pipeline.{pipeline}", "prefect.resource.name": pipeline},
            flow_run=run,
            payload={"pipeline": pipeline, "flow_run": run, **payload},
        )

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Sets the number of jobs for the run's progress bar."""
        expect_jobs(jobs, estimate=estimate)

    @property
    def choosing(self) -> str:  # type: ignore[override]
        """A clause that says where the candidates of reviews are shown."""
        return f"the artifact {Page.current_key('report')} shows the candidates and says how"

    async def show_end(
        self, end: RunEnd, rows: Sequence[StepReport], reviews: Sequence[PlannedStep], *, store: MediaStore
    ) -> None:
        """Shows the run's report, with the candidates of reviews."""
        table = end.result.report
        # A run has no table if the storage does not respond; then its outputs cannot be read either.
        outputs = end.result.outputs if table else {}
        choices = await choices_of(reviews, store) if reviews else []
        await Report(end.message, rows, store, outputs, table, end.result.gallery, choices).show()
        made = {file: one for one in rows if one.state == "made" for file in one.files}
        # The job that has made a file has emitted its asset under the name made of the content.
        for _, file in values_in(end.result.outputs):
            if isinstance(file, Media) and (step := made.get(file.uri)) and not (step.jobs and file.sha256 in file.uri):
                emit_asset(file, model=step.model, cost=step.cost or None, step=step.step, pipeline=end.result.pipeline)
        mark_reported(end.result.pipeline, end.message)


async def _tag(*tags: str) -> None:
    """Adds tags to the current flow run; a failure does not stop the run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run = context.flow_run
    flow_run.tags = sorted({*flow_run.tags, *tags})
    try:
        await ask(lambda api: api.update_flow_run(flow_run.id, tags=flow_run.tags))
    except httpx.HTTPError as error:
        _log.warning("The tags %s could not be added to the flow run, which continues: %s", ", ".join(tags), error)


MOST_SHOWN = 60
"""Maximum number of candidates on the contact sheets; each is downloaded from the storage."""

_ROOM_FOR_CHOICES, _ROOM_FOR_FILES, _ROOM_FOR_QUESTIONS, _ROOM_FOR_STEPS = 30_000, 30_000, 10_000, 60_000
_LATER = "choose here first; the next run shows others"
_REVIEWS = f"reviews; {_LATER}"


async def choices_of(reviews: Sequence[PlannedStep], store: MediaStore) -> list[str]:
    """Returns the part of a report that shows the candidates of reviews and says how to choose."""
    shown = [one for review in reviews for one in review.numbered_candidates]
    made = [(name, value) for name, value in shown if isinstance(value, File)]
    pictures = [(name, media) for name, file in made if (media := file.located)]
    found = [(name, file.media.uri) for name, file in made if file.media]
    files = await asyncio.to_thread(lambda: [f"- {linked(uri, name, store)}" for name, uri in found])
    values = [(name, value) for name, value in shown if not isinstance(value, File) and is_settled(value)]
    texts = [f"### {name}\n\n{quoted(_as_text(value))}" for name, value in values]
    head = [*_questions(reviews), *await sheets(pictures, store, most=MOST_SHOWN)]
    tail = [_how(reviews), "\n".join(fitting(files, _ROOM_FOR_FILES, what="files; the report has all"))]
    room = artifacts.MAX_PAGE - sum(artifacts.size_of(part) + 2 for part in (*head, *tail)) - _ROOM_FOR_STEPS
    return [*head, *fitting(texts, room, what=f"texts; {_LATER}"), *tail]


def quoted(text: str) -> str:
    """Formats a model's text as a separate block, so that it is not read as Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _questions(reviews: Sequence[PlannedStep]) -> list[str]:
    questions = [f"## {visible(ask)}" for ask in dict.fromkeys(review.ask for review in reviews) if ask]
    return fitting(questions, _ROOM_FOR_QUESTIONS, what="questions")


def _as_text(value: Any) -> str:
    """Returns a string unchanged, and a parsed answer as JSON."""
    return value if isinstance(value, str) else json.dumps(mark(value), ensure_ascii=False, indent=2)


def _how(reviews: Sequence[PlannedStep]) -> str:
    """Returns how to choose: the value of `choices` in the deployment's form, and the command with the same effect."""
    choices = {review.address: {"of": review.request["of"], "take": 1} for review in reviews}
    written = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in choices.items()]
    first = [one for one, size in zip(written, accumulate(map(size_of, written))) if size <= _ROOM_FOR_CHOICES]
    lines, more = ",\n".join(first), "".join(f"{line}\n\n" for line in not_shown(len(first), len(written), _REVIEWS))
    words = " ".join(f"'{review.address}=1'" for review in reviews[:3])
    more += _other_ways(reviews)
    return (
        "Run the deployment again with `choices`, and set each `take` to the number of the candidate that you "
        f"choose:\n\n```json\n{{\n{lines}\n}}\n```\n\n{more}"
        f"Or on a command line: `rh-prefect choose FILE {words}{' …' if len(reviews) > 3 else ''}` with the `--params` "
        "and `--set` of the run."
    )


def _other_ways(reviews: Sequence[PlannedStep]) -> str:
    """Returns a sentence about how to get other candidates, and how to correct a text."""
    again, said = next(filter(None, (review.next_takes for review in reviews)), None), list[str]()
    if again:
        said.append(f"For other candidates give `takes` instead, as in `{json.dumps(again)}`; they are paid for.")
    if any(one.shows_texts for one in reviews):
        said.append('To correct a text, give `"text": "…"` in place of `take`.')
    return f"{' '.join(said)}\n\n" if said else ""
