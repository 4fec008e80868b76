"""Creates the artifact of a run that waits for reviews: the candidates, their texts, and the command to choose."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import accumulate

from rh_prefect import artifacts
from rh_prefect.artifacts import fitting, not_shown, size_of
from rh_prefect.flows.pipeline_pages import is_visible, quoted, sheets
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.plan.planned_steps import Instance, KnownWork
from rh_prefect.pipelines.stored_edits import EditResults

MOST_SHOWN = 60
"""Candidates on the contact sheets; each is fetched from the storage for its picture."""

_ROOM_FOR_CHOICES, _ROOM_FOR_FILES, _ROOM_FOR_QUESTIONS, _ROOM_FOR_NOTES = 30_000, 30_000, 10_000, 1_000
_LATER = "choose here first; the next run shows others"


def waiting_reviews(instances: Sequence[Instance]) -> list[Instance]:
    """Returns the reviews whose candidates are all ready and that have no choice yet.

    Args:
        instances: The steps of the plan.
    """
    reviews = (one for one in instances if one.model == "review" and one.state == "r")
    return [one for one in reviews if all(need.state == "=" for need in (*one.needs, *one.waits_for))]


async def show_candidates(reviews: Sequence[Instance], edits: EditResults, store: MediaStore) -> None:
    """Shows the candidates of reviews, and how each is chosen.

    Args:
        reviews: See `waiting_reviews`.
        edits: Makes the contact sheet and keeps it.
        store: Where the candidates are.
    """
    shown = [one for review in reviews for one in _candidates(review)]
    pictures = [(name, known.outputs[0]) for name, known in shown if known.outputs and is_visible(known.outputs[0])]
    files = [f"- {name}: `{known.outputs[0].uri}`" for name, known in shown if known.outputs]
    texts = [f"### {name}\n\n{quoted(known.texts[0])}" for name, known in shown if known.texts and not known.outputs]
    head = [*_asked(reviews), *await sheets(pictures, edits, store, most=MOST_SHOWN)]
    tail = [_how(reviews), "\n".join(fitting(files, _ROOM_FOR_FILES, what="files; the report has all"))]
    room = artifacts.MAX_PAGE - sum(artifacts.size_of(part) + 2 for part in (*head, *tail)) - _ROOM_FOR_NOTES
    parts = [*head, *fitting(texts, room, what=f"texts; {_LATER}"), *tail]
    text = "\n\n".join(part for part in parts if part)
    await artifacts.markdown(text, what="review", description=f"{len(reviews)} review(s) wait for a choice")


def _asked(reviews: Sequence[Instance]) -> list[str]:
    asked = [f"## {visible(ask)}" for ask in dict.fromkeys(review.step.ask for review in reviews) if ask]
    return fitting(asked, _ROOM_FOR_QUESTIONS, what="questions")


def _candidates(review: Instance) -> Iterator[tuple[str, KnownWork]]:
    works = [work for need in review.needs for work in need.works]
    for number, work in enumerate(works, 1):
        if work.known is not None:
            yield f"{review.address}={number}", work.known


def _how(reviews: Sequence[Instance]) -> str:
    """Returns the form's value for `choices`, with the first candidate of each review, and the same as a command."""
    choices = {review.address: {"of": review.request["of"], "take": 1} for review in reviews}
    written = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in choices.items()]
    kept = [one for one, size in zip(written, accumulate(map(size_of, written))) if size <= _ROOM_FOR_CHOICES]
    left, lines = len(written) - len(kept), ",\n".join(kept)
    more = f"{not_shown(left, len(written), f'reviews; {_LATER}')}\n\n" if left else ""
    words = " ".join(f"'{review.address}=1'" for review in reviews[:3])
    again = {need.address: max(work.take for work in need.works) + 1 for need in reviews[0].needs if need.works}
    return (
        "Run the deployment again with `choices`, and put the number of the candidate that you choose into each "
        f"`take`:\n\n```json\n{{\n{lines}\n}}\n```\n\n{more}"
        f"For another candidate give `takes` instead, as in `{json.dumps(again)}`; it is paid for. "
        'To correct a text, give `"text": "…"` in place of `take`.\n\n'
        f"Or on a command line: `rh-prefect choose FILE {words}{' …' if len(reviews) > 3 else ''}` with the `--params` "
        "and `--set` of the run."
    )
