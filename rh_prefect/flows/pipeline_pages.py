"""Creates the artifacts of a pipeline run: the plan, the graph, the results with pictures, all steps, and reviews."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect import artifacts
from rh_prefect.artifacts import fitting, not_shown, size_of
from rh_prefect.errors import RunningHubError
from rh_prefect.media import edit
from rh_prefect.media.input_files import fetch
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.plan.identity import is_settled, mark
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Instance, paid_steps
from rh_prefect.pipelines.plan.render import prices
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.result import StepReport
from rh_prefect.pipelines.run.reviews import candidates
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.loop_thread import LOOP

PER_SHEET = 12
"""Pictures on one contact sheet: with more, one could not see what is on them."""

_SHEET_BYTES, _SHEET_SIDE = 60_000, 1024
_ROOM_FOR_ROWS = 200_000

_LONGEST_TEXT = 500
_FIRST = ("failed", "not run", "unfinished", "waits for review")
_log = logging.getLogger("rh_prefect")


async def show_plan(plan: Plan) -> None:
    """Shows the plan with its prices, and its graph.

    Args:
        plan: The plan.
    """
    least, expected, most = prices(plan.price)
    budget = f", budget {plan.budget.amount:g}" if plan.budget is not None else ""
    description = f"Least {least}, expected {expected}, most {most} {plan.currency}{budget}"
    await artifacts.markdown(f"```\n{plan.table()}\n```", what="plan", description=description)
    graph = f"```mermaid\n{plan.mermaid()}\n```"
    await artifacts.markdown(graph, what="graph", description="Steps and their prices; drawn by the dashboard's V2 UI")


async def show_results(
    outputs: Mapping[str, Any], *, head: str, report: str, edits: EditResults, store: MediaStore
) -> None:
    """Shows the results of a run: its outputs with a contact sheet, and its cost.

    Args:
        outputs: The file's outputs by name.
        head: The outcome of the run, in one line.
        report: Where the report is.
        edits: Makes the picture, and keeps it.
        store: Where the files are.
    """
    values = list(_values(outputs))
    if not values:
        return
    pictures = [(name, value) for name, value in values if isinstance(value, Media) and is_visible(value)]
    picture = await sheets(pictures, edits, store, most=PER_SHEET)
    rows = [f"| {_cell(name)} | {_shown(value)} |" for name, value in values[: artifacts.MAX_ROWS]]
    rows = [row for row, size in zip(rows, accumulate(map(artifacts.size_of, rows))) if size <= _ROOM_FOR_ROWS]
    more = len(values) - len(rows)
    lines = [*picture, "| output | result |", "| --- | --- |", *rows]
    lines += ["", f"{more} further results are in the report."] if more > 0 else []
    lines += ["", f"Report: {linked(report)}"]
    await artifacts.markdown("\n".join(lines), what="results", description=head)


async def show_steps(steps: Sequence[StepReport], *, head: str, report: str, store: MediaStore) -> None:
    """Shows all steps as a table; in a long table, steps that need a user's action come first.

    Args:
        steps: The steps, in the order of the file.
        head: The outcome of the run, in one line.
        report: Where the report is, with all steps.
        store: Where the files are.
    """
    if len(steps) > artifacts.MAX_ROWS:
        steps = sorted(steps, key=lambda one: one.state not in _FIRST)
    rows = [
        {
            "step": one.step,
            "subject": one.subject,
            "model": one.model,
            "state": one.state,
            "cost": one.cost,
            "reason": one.reason,
            "result": _files(one.files, store),
        }
        for one in steps
    ]
    place = f"Results are below `{store.url}`. Report: `{report}`"
    await artifacts.table(rows, what="items", description=f"{head} {place}")


async def sheets(
    pictures: Sequence[tuple[str, Media]], edits: EditResults, store: MediaStore, *, most: int
) -> list[str]:
    """Makes contact sheets, as paragraphs of Markdown; the last one says how many pictures are not shown.

    Args:
        pictures: Images and videos, each with its caption.
        edits: Makes the sheets, and keeps them.
        store: Where they are.
        most: How many pictures are shown at most.
    """
    parts = [pictures[start : min(start + PER_SHEET, most)] for start in range(0, min(len(pictures), most), PER_SHEET)]
    results = [(part, await _sheet(part, edits, store)) for part in parts]
    hidden = len(pictures) - sum(len(part) for part, picture in results if picture)
    note = artifacts.not_shown(hidden, len(pictures), "pictures") if hidden else ""
    return [line for one in (*(picture for _, picture in results), note) if one for line in (one, "")]


async def _sheet(pictures: Sequence[tuple[str, Media]], edits: EditResults, store: MediaStore) -> str:
    """Returns a contact sheet as an image in Markdown; empty if it cannot be made."""
    params = {"of": [file for _, file in pictures], "captions": [visible(name) for name, _ in pictures]}
    try:
        output = await LOOP.call(edits.make("contact_sheet", params))
        if output.file is None:
            return ""
        jpeg = await asyncio.to_thread(_thumbnail, output.file, store)
    except RunningHubError as error:
        _log.warning("The dashboard has no picture of the results: %s", error.message)
        return ""
    # Inline: the browser that shows it reaches neither a local folder nor a private bucket.
    return f"![contact sheet](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


def is_visible(file: Media) -> bool:
    """Whether a contact sheet can show a file.

    Args:
        file: The file.
    """
    return file.kind in ("image", "video")


def linked(uri: str) -> str:
    """Formats an address in Markdown: as a link if a browser can open it.

    Args:
        uri: A link, a path or a URI.
    """
    return f"[{uri}]({uri})" if uri.startswith("https://") else f"`{uri}`"


def quoted(text: str) -> str:
    """Formats a model's text as a separate block, so that it is not read as Markdown.

    Args:
        text: The text.
    """
    return "\n".join(f"    {line}" for line in text.splitlines())


def _values(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the single values of the outputs, each with its name."""
    for name, value in outputs.items():
        if isinstance(value, list):
            yield from _values({f"{name}[{number}]": one for number, one in enumerate(value, 1)})
        elif isinstance(value, dict):
            yield from _values({f"{name}.{key}": one for key, one in value.items()})
        elif value is not None:
            yield name, value


def _shown(value: Any) -> str:
    return linked(value.uri) if isinstance(value, Media) else _cell(str(value))


def _cell(text: str) -> str:
    """Formats a text as code for a cell of a Markdown table."""
    text = visible(" ".join(text.split())).replace("`", "'").replace("|", "¦")
    return f"`{text[:_LONGEST_TEXT]}{'…' if len(text) > _LONGEST_TEXT else ''}`"


def _files(files: Sequence[str], store: MediaStore) -> str:
    if not files:
        return ""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{store.name_of(files[0]) or files[0]}{more}"


def _thumbnail(file: Media, store: MediaStore) -> bytes:
    with TemporaryDirectory(prefix="rh-sheet-") as folder:
        local = Path(folder) / "sheet.jpg"
        fetch(file, local, options=store.options_for(file))
        return edit.thumbnail(local, max_bytes=_SHEET_BYTES, side=_SHEET_SIDE)


MOST_SHOWN = 60
"""Candidates on the contact sheets; each is fetched from the storage for its picture."""

_ROOM_FOR_CHOICES, _ROOM_FOR_FILES, _ROOM_FOR_QUESTIONS, _ROOM_FOR_NOTES = 30_000, 30_000, 10_000, 1_000
_LATER = "choose here first; the next run shows others"


async def show_candidates(reviews: Sequence[Instance], edits: EditResults, store: MediaStore) -> None:
    """Shows the candidates of reviews, and how each is chosen.

    Args:
        reviews: See `waiting_reviews`.
        edits: Makes the contact sheet and keeps it.
        store: Where the candidates are.
    """
    shown = [one for review in reviews for one in candidates(review)]
    found = [(name, value.media, value.address) for name, value in shown if isinstance(value, File) and value.media]
    # A parameter's file is read at the address that was given, whose signature no page shows.
    pictures = [(name, media.model_copy(update={"uri": to or media.uri})) for name, media, to in found]
    pictures = [(name, media) for name, media in pictures if is_visible(media)]
    files = [f"- {name}: `{media.uri}`" for name, media, _ in found]
    values = [(name, value) for name, value in shown if not isinstance(value, File) and is_settled(value)]
    texts = [f"### {name}\n\n{quoted(_as_text(value))}" for name, value in values]
    head = [*_questions(reviews), *await sheets(pictures, edits, store, most=MOST_SHOWN)]
    tail = [_how(reviews), "\n".join(fitting(files, _ROOM_FOR_FILES, what="files; the report has all"))]
    room = artifacts.MAX_PAGE - sum(artifacts.size_of(part) + 2 for part in (*head, *tail)) - _ROOM_FOR_NOTES
    parts = [*head, *fitting(texts, room, what=f"texts; {_LATER}"), *tail]
    text = "\n\n".join(part for part in parts if part)
    await artifacts.markdown(text, what="review", description=f"{len(reviews)} review(s) wait for a choice")


def _questions(reviews: Sequence[Instance]) -> list[str]:
    questions = [f"## {visible(ask)}" for ask in dict.fromkeys(review.ask for review in reviews) if ask]
    return fitting(questions, _ROOM_FOR_QUESTIONS, what="questions")


def _as_text(value: Any) -> str:
    """Returns a text as it is, and a parsed answer as JSON."""
    return value if isinstance(value, str) else json.dumps(mark(value), ensure_ascii=False, indent=2)


def _how(reviews: Sequence[Instance]) -> str:
    """Returns the form's value for `choices`, with the first candidate of each review, and the same as a command."""
    choices = {review.address: {"of": review.request["of"], "take": 1} for review in reviews}
    written = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in choices.items()]
    first = [one for one, size in zip(written, accumulate(map(size_of, written))) if size <= _ROOM_FOR_CHOICES]
    rest, lines = len(written) - len(first), ",\n".join(first)
    more = f"{not_shown(rest, len(written), f'reviews; {_LATER}')}\n\n" if rest else ""
    words = " ".join(f"'{review.address}=1'" for review in reviews[:3])
    more += _other_ways(reviews)
    return (
        "Run the deployment again with `choices`, and put the number of the candidate that you choose into each "
        f"`take`:\n\n```json\n{{\n{lines}\n}}\n```\n\n{more}"
        f"Or on a command line: `rh-prefect choose FILE {words}{' …' if len(reviews) > 3 else ''}` with the `--params` "
        "and `--set` of the run."
    )


def _other_ways(reviews: Sequence[Instance]) -> str:
    """Says how to get other candidates, of the first review with a paid step, and how to correct a text."""
    paid = ({one.address: one.works[-1].take + 1 for one in paid_steps(each.needs) if one.works} for each in reviews)
    again, said = next(filter(None, paid), None), list[str]()
    if again:
        said.append(f"For other candidates give `takes` instead, as in `{json.dumps(again)}`; they are paid for.")
    if not all(one.shows_files for one in reviews):
        said.append('To correct a text, give `"text": "…"` in place of `take`.')
    return f"{' '.join(said)}\n\n" if said else ""
