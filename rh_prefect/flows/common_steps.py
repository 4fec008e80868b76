"""Steps shared by the composed flows: requests for pictures, videos, upscaling, speech and music; one way to run them.

They are plain functions, so that a repeated flow finds its jobs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, TypedDict, TypeVar

from prefect.logging import get_run_logger

from rh_prefect import catalog, models
from rh_prefect.blocks.lookup import load_pool_context
from rh_prefect.errors import BudgetExceeded, JournalError, jobs_failed
from rh_prefect.flow_runs.flow_scope import current_scope
from rh_prefect.flow_runs.job_progress import expect_jobs
from rh_prefect.flow_runs.parameter_types import Aspect, ClipSeconds, Resolution
from rh_prefect.tasks.assemble import MediaLike
from rh_prefect.tasks.generate import generate
from rh_prefect.works.journal.costs import CURRENCY, Costs, amount_text
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.outputs.result import Result
from rh_prefect.works.run_ledger import spending_of

T = TypeVar("T")
FRAMINGS = (
    "wide establishing shot",
    "medium shot at eye level",
    "close-up with shallow depth of field",
    "low angle with a bold silhouette",
    "view from above",
    "detail in macro",
)
"""What makes several shots of one prompt a film."""

MOVES = (
    "the camera pushes in slowly",
    "the camera glides to the right",
    "the camera rises gently",
    "the camera pulls back",
)


class Blocks(TypedDict):
    """The parameters that all calls of a flow share: the block names and the spending limits."""

    credentials: str | None
    storage: str | None
    budget: float | None
    attempts: int


async def gather_all(*steps: Awaitable[T]) -> list[T]:
    """Waits for all steps, including failed ones, so that paid results are saved before an error is raised."""
    done = await asyncio.gather(*steps, return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    errors = [one for one in failed if isinstance(one, Exception)]
    if len(errors) == len(failed) > 1:
        raise jobs_failed(errors, total=len(done), what="steps")
    if len(failed) > 1:
        raise BaseExceptionGroup(f"{len(failed)} of {len(done)} steps failed", failed)
    if failed:
        raise failed[0]
    return [one for one in done if not isinstance(one, BaseException)]


async def paid_for(steps: Sequence[Result]) -> Costs:
    """Returns the recorded cost of all tasks of some jobs: a result has that of its last task only."""
    scope = current_scope()
    known = {} if scope is None else await LOOP.call(_recorded_costs(scope))
    return Costs.total(
        known.get(step.key) or known.get(step.job) or Costs.of(step.cost, step.currency) for step in steps
    )


async def _recorded_costs(scope: Scope) -> Mapping[str, Costs]:
    try:
        return await spending_of(scope).costs()
    except JournalError:  # the results are made and paid for
        return {}


def price_of(request: models.ModelInput, *, seconds: float | None = None) -> Costs:
    """Returns the catalogue price of a step; unknown if there is none.

    Args:
        request: The model and its parameters; files need not exist yet.
        seconds: How long its input is, where the price depends on it.
    """
    sent = catalog.read_parameters(request.entry, request.params()).sent
    price = catalog.estimate(request.entry, sent, seconds=seconds)
    return Costs.of(price.amount, price.currency) if price else Costs.of(None, None)


async def expect(prices: Sequence[Costs], *, blocks: Blocks) -> None:
    """Shows the number of jobs and their expected cost before the run pays for the first one."""
    scope, estimate = current_scope(), Costs.total(prices)
    expect_jobs(len(prices), estimate=estimate)
    if scope is None or scope.attempt > 1:
        return  # an earlier attempt was let through, and what it has paid for is kept
    get_run_logger().info("%d job(s), which cost %s according to the catalogue", len(prices), estimate)
    budget = blocks["budget"]
    if budget is None:
        return
    currency = await _currency(blocks["credentials"])
    needed = estimate.amounts.get(currency, Decimal(0))
    if needed > Decimal(str(budget)):
        raise BudgetExceeded(
            f"{scope.flow}: not started: its {len(prices)} job(s) cost at least {estimate} according to "
            f"the catalogue, but the budget is {amount_text(Decimal(str(budget)))} {currency}. Nothing "
            "was paid. What to do: set a larger budget, or request fewer results.",
            job=scope.journal.scope,
            price=needed,
            currency=currency,
            budget=Decimal(str(budget)),
        )


async def _currency(credentials: str | None) -> str:
    """Returns the currency of the account and its budget; the catalogue's if the account reports none."""
    return await LOOP.call((await load_pool_context(credentials)).pool.currency()) or CURRENCY


async def make(request: models.ModelInput, *, label: str, blocks: Blocks, take: int = 1, same: bool = False) -> Result:
    """Runs one job with the blocks and limits of its flow; `take` and `same` are those of `generate`."""
    return await generate(request, take=take, same=same, label=label, **blocks)


def picture_request(prompt: str, aspect: Aspect) -> models.ModelInput:
    """Builds the request for a picture from a text."""
    return models.ZImageTurbo(prompt=prompt, aspect_ratio=aspect, output_format="png")


def motion_request(image: MediaLike, prompt: str, seconds: ClipSeconds) -> models.ModelInput:
    """Builds the request for a silent video that starts with a picture."""
    duration: Literal["5", "10"] = "5" if seconds == 5 else "10"
    return models.KlingV26ProImageToVideo(image_url=image, prompt=prompt, duration=duration, sound="false")


def upscale_request(video: MediaLike, resolution: Resolution) -> models.ModelInput:
    """Builds the request for a video in a higher resolution."""
    return models.RhVideoUpscaler(video_url=video, target_resolution=resolution)


def speech_request(text: str) -> models.ModelInput:
    """Builds the request for speech from a text."""
    return models.MinimaxSpeech28Hd(text=text)


def music_request(description: str) -> models.ModelInput:
    """Builds the request for instrumental music."""
    return models.SunoSingleV55(description=description, make_instrumental="true")
