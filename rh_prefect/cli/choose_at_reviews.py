"""`rh-prefect choose`: records choices at the reviews of a pipeline."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rh_prefect.cli.argument_checks import check_store, text_in
from rh_prefect.cli.options import GIVEN, PLACE, File, Given, More, Place, with_reviewed, words_of
from rh_prefect.cli.pipelines import PlanRequest, end_with_problems
from rh_prefect.cli.prefect_server import refuse_blocks
from rh_prefect.errors import InputError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import paid_steps
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.takes_file import add_choices

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.plan import Plan
    from rh_prefect.pipelines.plan.planned_steps import PlannedStep


def choose(
    file: File,
    /,
    *choices: str,
    text: list[str] | None = None,
    given: Given = GIVEN,
    plan: Path | None = None,
    place: Place = PLACE,
    **more: More,
) -> None:
    """Record choices at a pipeline's reviews; the next run of the file continues with them.

    Args:
        choices: REVIEW=NUMBER: the number of the chosen candidate, or `again` for new candidates.
        text: REVIEW=PATH: a file with the corrected text; repeatable.
        plan: The reviewed plan of the run: use its parameters.
    """
    pipeline = Pipeline.open(file)
    account, storage = place.blocks(pipeline.name, pipeline.file)
    refuse_blocks("choose", account, storage)
    check_store(storage)
    reviewed = ReviewedPlan.read(plan) if plan is not None else None
    arguments = with_reviewed("choose", given.arguments(pipeline, more), reviewed)
    known, unread = asyncio.run(PlanRequest(pipeline, arguments, storage, account).known())
    if unread:
        raise InputError(f"choose: {unread} No choice was recorded.")
    current = asyncio.run(pipeline.plan(arguments, **known))
    end_with_problems(current.problems)
    takes, new, decided = _decisions(file, current, choices, text or ())
    chosen = asyncio.run(pipeline.plan(arguments, **known, choices=decided))
    for one in chosen.instances:
        if one.address in decided and one.state == "r" and one.note:
            raise InputError(f"choose: {one.address}: {one.note}. No choice was recorded.")
    if new:
        takes |= asyncio.run(pipeline.plan(arguments, **known, new=new)).new_takes
    assert pipeline.takes is not None  # noqa: S101 - `open` sets it
    add_choices(pipeline.takes, takes, decided, items=current.items_by_number)
    inputs = [*given.words(pipeline, more), *words_of(plan=plan, **asdict(place))]
    again = shlex.join(["rh-prefect", "run", str(file), *inputs])
    print(f"The choices are saved in {pipeline.takes}. Next: `{again}`.")


def _decisions(
    file: Path, plan: Plan, choices: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, int], list[str], dict[str, dict[str, Any]]]:
    """Reads the arguments of `choose`.

    Returns the next takes for `again`, the steps whose next takes the records choose, and the other choices by review.
    """
    reviews = {one.address: one for one in plan.instances if one.model == "review"}
    if not reviews:
        raise InputError(f"choose: {file} has no reviews, so there is nothing to choose. No choice was recorded.")
    if not choices and not texts:
        raise _invalid(
            f"no choice was given. The reviews of {file} are: {', '.join(reviews)}",
            "write REVIEW=NUMBER, with the number of a candidate",
        )
    takes, new, decided, seen = dict[str, int](), list[str](), dict[str, dict[str, Any]](), set[str]()
    for number, words in enumerate((*choices, *texts)):
        address, chosen = _split(words, reviews, file)
        if address in seen:
            raise _invalid(f"{address} is given twice", "give one choice for this review")
        seen.add(address)
        review = reviews[address]
        if number >= len(choices):
            decided[address] = {"of": review.request["of"], "text": _corrected_text(review, Path(chosen))}
        elif chosen == "again":
            takes |= review.next_takes
            new += [one for one in _makers(review) if one not in takes]
        else:
            decided[address] = {"of": review.request["of"], "take": _candidate(review, chosen)}
    return takes, new, decided


def _split(words: str, reviews: Mapping[str, PlannedStep], file: Path) -> tuple[str, str]:
    """Returns the address of a review, and the text after the equals sign."""
    # The id of an item may also contain an equals sign.
    address = max((one for one in reviews if words.startswith(f"{one}=")), key=len, default="")
    if not address:
        raise _invalid(
            f"{words!r} is not a choice at a review of {file}",
            f"write REVIEW=NUMBER. The reviews are: {', '.join(reviews)}",
        )
    return address, words[len(address) + 1 :]


def _corrected_text(review: PlannedStep, file: Path) -> str:
    text = text_in("choose --text", file)
    if not review.shows_texts:
        raise _invalid(
            f"{review.address} shows no texts, so that a text cannot replace its candidates",
            f"choose a candidate by its number, as in {review.address}=1",
        )
    return text


def _makers(review: PlannedStep) -> list[str]:
    """Returns the addresses of the paid steps that make the candidates of a review."""
    found = [one.address for one in paid_steps(review.needs)]
    if not found:
        raise _invalid(
            f"{review.address} cannot get new candidates, because no paid step makes its candidates",
            "choose a candidate by its number",
        )
    return found


def _candidate(review: PlannedStep, chosen: str) -> int:
    """Returns the number of the chosen candidate."""
    if not chosen.isdecimal() or int(chosen) < 1:
        raise _invalid(f"{chosen!r} is not a choice", "give a number from 1, or `again`")
    if int(chosen) > len(review.candidates):
        raise _invalid(
            f"{review.address}: {review.no_candidate(int(chosen))}", "give the number of one of its candidates"
        )
    return int(chosen)


def _invalid(what: str, what_to_do: str) -> InputError:
    return InputError(f"choose: {what}. No choice was recorded. What to do: {what_to_do}.")
