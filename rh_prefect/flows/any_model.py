"""The flow `any_model`: one call of any model, or of an endpoint that the catalogue does not know."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rh_prefect.flow_runs.flow import flow
from rh_prefect.flows.steps import Budget, MaxAttempts
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.models import any_input
from rh_prefect.tasks.generate import generate


@flow(name="any-model")
async def any_model(
    model: Annotated[str, Field(min_length=1)],
    params: dict[str, Any],
    is_custom: bool = False,
    price: Annotated[float, Field(gt=0)] | None = None,
    label: str | None = None,
    budget: Budget | None = None,
    max_attempts: MaxAttempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> Result:
    """Runs one model.

    Args:
        model: Any name of a model, or an endpoint, as in luma/uni-9/text-to-image.
        params: Its parameters. A file is written as {"file": "s3://bucket/photo.jpg"}.
        is_custom: Whether it is an endpoint that the catalogue does not know; only its files are checked.
        price: What a call of such an endpoint costs, for the budget; empty asks RunningHub.
        label: A name for the output, in its file's name.
        budget: What the run may cost, in the account's currency; no job starts that would break it. Empty for no limit.
        max_attempts: How many tasks the job may pay for until the run is run again by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; empty for the worker's RH_API_KEY.
        storage: Name of a MediaStorage block; empty for the worker's RH_OUT.
    """
    return await generate(
        any_input(model, params, is_custom=is_custom, price=price),
        label=label,
        budget=budget,
        max_attempts=max_attempts,
        credentials=credentials,
        storage=storage,
    )
