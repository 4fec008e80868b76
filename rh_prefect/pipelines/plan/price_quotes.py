"""Gets the prices of a plan's new requests from RunningHub, which also checks their parameters; costs nothing."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import is_placeholder
from rh_prefect.client.wire.account_files_and_assets import PricePreview
from rh_prefect.display_texts import counted
from rh_prefect.errors import (
    AccountError,
    ApiError,
    KeyRejected,
    ModerationError,
    PriceUnknown,
    RequestRejected,
    RunningHubError,
)
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.pipelines.call_builder import has_all_files, has_all_ids, request_of
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.parsed_document import Problems
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, PriceRange
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.input_identification import input_of

MOST = 200
"""Maximum number of requests per plan that are sent to the price preview."""

_AT_ONCE = 8


@dataclass(slots=True)
class _Answers:
    """RunningHub's answers to the requests of a plan."""

    quoted: int = 0
    unpriced: set[str] = field(default_factory=set)  # Models without a price at RunningHub
    dearer: dict[str, str] = field(default_factory=dict)  # By model: its price in the catalogue and the higher one
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # By reason: how many were not answered


async def quote(plan: Plan, checked: Checked, pool: Pool, store: MediaStore) -> None:
    """Sets RunningHub's prices for new requests if the catalogue lacks them or has lower prices; reports refusals.

    Call it on the loop thread. Each distinct request whose inputs exist is sent once, at most `MOST` per plan.
    """
    users = _requests(plan)
    asked, at_once, problems, answers = list(users.values())[:MOST], asyncio.Semaphore(_AT_ONCE), Problems(), _Answers()

    async def ask(steps: Sequence[PlannedStep]) -> None:
        async with at_once:
            request = request_of(steps[0])
            assert isinstance(request, ModelInput)  # noqa: S101 - graphs are left out
            try:
                preview = await pool.try_each(lambda account: _preview(request, account, store), model=request.model)
            except PriceUnknown:
                answers.unpriced.add(request.model)
            except (RequestRejected, ModerationError) as error:
                one = steps[0]
                message = f"RunningHub refuses the request of {one.address}: {error.reason or error.message}"
                at = one.used_at or (*one.at, one.step.action)
                problems.add(checked.document, at, f"{message}. Nothing was paid; correct the step's parameters")
            except (KeyRejected, AccountError):
                raise
            except (ApiError, RunningHubError) as error:
                answers.failed[error.message] += 1
            else:
                answers.quoted += 1
                _set_price(plan, steps, preview, answers)

    await asyncio.gather(*map(ask, asked))
    plan.problems = sorted([*plan.problems, *problems])
    plan.notes = [*_without_known(plan), *_notes(answers, len(users) - len(asked))]


def _requests(plan: Plan) -> dict[str, list[PlannedStep]]:
    """Returns the steps of each distinct request that the plan pays for and whose inputs exist."""
    found: dict[str, list[PlannedStep]] = defaultdict(list)
    for one in plan.instances:
        is_new = one.is_paid and bool(one.endpoint) and any(work.is_paid for work in one.works)
        if is_new and plan.selection.has(one) and one.works[0].is_settled and has_all_ids(one) and has_all_files(one):
            found[json.dumps([one.endpoint, one.request], sort_keys=True, default=str)].append(one)
    return found


async def _preview(request: ModelInput, account: Account, store: MediaStore) -> PricePreview:
    async def sent(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [await sent(one) for one in value]
        if not isinstance(value, Media):
            return value
        file = input_of(value)
        return await account.uploads.address(file, file.mark, store=store)

    entry, params = request.entry, request.params()
    linked = {param.name: await sent(params[param.name]) for param in entry.file_params if param.name in params}
    payload = catalog.read_parameters(entry, {**params, **linked}, unchecked=request.unchecked).sent
    return await account.provider.price(entry.endpoint, payload)


def _set_price(plan: Plan, steps: Iterable[PlannedStep], preview: PricePreview, answers: _Answers) -> None:
    """Sets RunningHub's price for a request if the catalogue has no price, a lower price or only a minimum price."""
    if is_placeholder(preview.amount) or preview.currency not in (None, plan.currency):
        return
    for one in steps:
        known = one.price.most / one.attempts
        # A preview below the least price of the catalogue is not that of the whole call.
        if preview.amount < one.price.least or (not one.price.is_open and known >= preview.amount):
            continue
        if not one.price.is_open:
            answers.dearer[one.model] = f"{preview.amount:f} {plan.currency}, but the catalogue has {known:f}"
        one.is_quoted = True
        one.price = PriceRange(preview.amount, preview.amount, preview.amount * one.attempts)
        for work in one.works:
            work.price = PriceRange(preview.amount, preview.amount, preview.amount * work.attempts)


def _without_known(plan: Plan) -> list[str]:
    """Returns the plan's notes, except notes about prices that are known now."""
    notes = {one: f"{one.path}: {one.price_note}" for one in plan.instances if one.price_note}
    left = {note for one, note in notes.items() if not one.is_quoted}
    return [note for note in plan.notes if note in left or note not in notes.values()]


def _notes(answers: _Answers, left: int) -> Iterable[str]:
    if answers.quoted:
        yield f"RunningHub has quoted prices for {counted(answers.quoted, 'request')}, and accepts the parameters."
    yield from (f"RunningHub's price for {model} is {price}." for model, price in answers.dearer.items())
    yield from (f"RunningHub gives no price for {model} before a run." for model in sorted(answers.unpriced))
    for reason, count in answers.failed.items():
        yield f"No price was quoted for {counted(count, 'request')}: {reason}"
    if left:
        yield f"RunningHub was not asked about {counted(left, 'further request')}; the limit is {MOST}."
