"""What a run that waits for reviews shows: a contact sheet of the candidates, and the texts, each with its choice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rh_prefect import artifacts
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.media import edit
from rh_prefect.media.media import Media
from rh_prefect.media.source import fetch
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.edit_results import EditResults
from rh_prefect.pipelines.plan.planned_steps import Instance, KnownWork

MOST_SHOWN = 60
"""Candidates on one contact sheet; the others are reviewed in a later run."""


def waiting_reviews(instances: Sequence[Instance]) -> list[Instance]:
    """The reviews whose candidates are all there and that nothing was chosen at.

    Args:
        instances: The steps of the plan.
    """
    reviews = (one for one in instances if one.model == "review" and one.state == "r")
    return [one for one in reviews if all(need.state == "=" for need in one.needs)]


async def show_candidates(reviews: Sequence[Instance], edits: EditResults, store: MediaStore) -> None:
    """Shows the candidates of reviews as artifacts; each has the words that `rh-prefect choose` takes.

    Args:
        reviews: See `waiting_reviews`.
        edits: Makes the contact sheet and keeps it.
        store: Where the candidates are.
    """
    shown = [one for review in reviews for one in _candidates(review)]
    pictures = [(name, known.outputs[0]) for name, known in shown if _is_visible(known)][:MOST_SHOWN]
    texts = [(name, known.texts[0]) for name, known in shown if known.texts and not known.outputs]
    if texts:
        lines = [f"## {name}\n\n{_quoted(text)}" for name, text in texts]
        await artifacts.markdown("\n\n".join(lines), what="review", description="Texts that wait for a review")
    if pictures:
        await _show_sheet(pictures, edits, store)


def _candidates(review: Instance) -> Iterator[tuple[str, KnownWork]]:
    works = [work for need in review.needs for work in need.works]
    for number, work in enumerate(works, 1):
        if work.known is not None:
            yield f"{review.address}={number}", work.known


def _quoted(text: str) -> str:
    """A text of a model as a block of its own: it must not be read as Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _is_visible(known: KnownWork) -> bool:
    return bool(known.outputs) and known.outputs[0].kind in ("image", "video")


async def _show_sheet(pictures: Sequence[tuple[str, Media]], edits: EditResults, store: MediaStore) -> None:
    given = {"of": [file for _, file in pictures], "captions": [name for name, _ in pictures]}
    made = await LOOP.call(edits.make("contact_sheet", given))
    if made.file is not None:
        await artifacts.contact_sheet(await asyncio.to_thread(_thumbnail, made.file, store), made.file.uri)


def _thumbnail(file: Media, store: MediaStore) -> bytes:
    with TemporaryDirectory(prefix="rh-review-") as folder:
        local = Path(folder) / "sheet.jpg"
        fetch(file, local, options=store.options_for(file))
        return edit.thumbnail(local, max_bytes=60_000)
