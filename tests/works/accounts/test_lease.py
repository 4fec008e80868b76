"""The slot of a job on an account of a pool: which account gets it, and which refusals exclude an account."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from rh_prefect.errors import AccountError, ApiError, ConfigError, KeyRejected, RequestRejected, TaskNotFound, api_error
from rh_prefect.works.accounts.pool import Exclusions, Lease, Pool
from rh_prefect.works.journal.record_types import Answer, Intent
from tests.support.world.job_records import intent
from tests.works.accounts.counted_account import CountedAccount as Account

pytestmark = pytest.mark.virtual_time

WALLET, KEY, WORKFLOW, MACHINE, PARAMETER = "812", "412", "380", "433", "1007"
"""Codes of refusals: of the account, of its key, of a model on it, of one job on it, and of every account."""


def pool_of(*accounts: Any, **more: Any) -> Pool:
    return Pool(accounts, name="night", **more)


def lease_of(pool: Pool, exclusions: Exclusions, *, model: str = "m") -> Lease:
    return Lease(pool, exclusions, model=model, endpoint="e", job="run/job")


def refusal(code: str) -> Answer:
    return Answer.of(api_error(code, doing="submit", submitting=True))


async def account_for(lease: Lease) -> str:
    """The account that gets a job now."""
    await lease.acquire()
    lease.submit_finished()
    lease.release()
    return str(lease.account)


@pytest.mark.parametrize(
    ("code", "said", "same_job", "same_model", "other_model"),
    [
        (WALLET, "account a is no longer used in this run: ", "b", "b", "b"),
        (WORKFLOW, "account a is no longer used in this run for m: ", "b", "b", "a"),
        (MACHINE, "", "b", "a", "a"),
    ],
)
async def test_an_account_that_refuses_a_job_is_left_as_far_as_the_refusal_says(
    code: str, said: str, same_job: str, same_model: str, other_model: str
) -> None:
    pool, exclusions = pool_of(Account(2, "a"), Account(2, "b")), Exclusions()
    lease, later = lease_of(pool, exclusions), lease_of(pool, exclusions)
    message = lease.after_refusal(refusal(code))
    assert message is not None and message.startswith(said)
    assert bool(message) == bool(said)
    if said:
        advice = api_error(code, doing="submit", submitting=True).advice
        assert f"(code {code}; {advice}). Nothing was paid" in message
        assert message.endswith("used: b")
    found = [await account_for(one) for one in (lease, lease_of(pool, exclusions))]
    found.append(await account_for(lease_of(pool, exclusions, model="n")))
    assert found == [same_job, same_model, other_model]
    assert later.after_refusal(refusal(code)) == "", "it is said once"


async def test_the_error_without_any_account_is_that_of_the_last_refusal() -> None:
    pool, exclusions = pool_of(Account(2, "a"), Account(2, "b")), Exclusions()
    lease = lease_of(pool, exclusions)
    assert lease.after_refusal(refusal(WALLET))
    assert await account_for(lease) == "b"
    with pytest.raises(KeyRejected, match=rf"run/job: no account of pool 'night' accepts m\. a: .*{WALLET}.*; b: "):
        lease.after_refusal(refusal(KEY))
    with pytest.raises(KeyRejected, match="Nothing was paid for this submission"):
        await lease_of(pool, exclusions, model="n").acquire()


async def test_only_other_accounts_are_tried_after_a_refusal_of_an_account() -> None:
    pair = pool_of(Account(2, "a"), Account(2, "b"))
    assert lease_of(pair, {}).after_refusal(refusal(PARAMETER)) is None
    alone, exclusions = pool_of(Account(2, "a")), Exclusions()
    assert lease_of(alone, exclusions).after_refusal(refusal(WALLET)) is None
    assert await account_for(lease_of(alone, exclusions)) == "a"


async def test_a_slot_of_an_account_that_was_excluded_meanwhile_is_given_back() -> None:
    a, b = Account(1, "a"), Account(1, "b")
    pool, exclusions = pool_of(a, b), Exclusions()
    holders = [lease_of(pool, {}) for _ in range(2)]
    for holder in holders:
        await holder.acquire()
        holder.submit_finished()
    lease = lease_of(pool, exclusions)
    waiting = asyncio.create_task(lease.acquire())
    await asyncio.sleep(1)
    lease_of(pool, exclusions).after_refusal(refusal(WALLET))
    holders[0].release()
    await asyncio.sleep(1)
    assert (waiting.done(), a.limiter.held, lease.has_slot) == (False, 0, False)
    holders[1].release()
    await waiting
    assert (str(lease.account), b.limiter.held, lease.has_slot) == ("b", 1, True)


async def test_a_job_is_announced_once_until_it_has_a_slot_or_leaves() -> None:
    a, b = Account(2, "a"), Account(2, "b")
    pool = pool_of(a, b)
    lease, other = lease_of(pool, {}), lease_of(pool, {})
    for _ in range(2):
        await lease.select_account()
    await other.select_account()
    assert (a.limiter.load, b.limiter.load) == (0.5, 0.5)
    other.release()
    assert (a.limiter.load, b.limiter.load) == (0.5, 0.0)
    await lease.acquire()
    await lease.select_account()
    assert (a.limiter.held, a.limiter.load, lease.has_slot) == (1, 0.5, True)
    lease.occupy()
    assert a.limiter.held == 1
    for _ in range(2):
        lease.release()
    assert (a.limiter.held, lease.has_slot) == (0, False)
    await lease.select_account()
    lease.occupy()
    assert (a.limiter.held, a.limiter.load) == (1, 0.5)
    await lease_of(pool_of(b), {}).select_account()
    assert b.limiter.load == 0, "there is nothing to select"


async def test_a_job_uploads_its_inputs_to_the_account_with_the_lowest_load() -> None:
    """The accounts are counted first: nothing is known yet of the tasks of others."""
    lease = lease_of(pool_of(Account(2, "busy", others=2), Account(2, "free")), {})
    await lease.select_account()
    assert str(lease.account) == "free"


async def test_a_submission_counts_until_it_is_finished_or_its_slot_is_released() -> None:
    pool = pool_of(Account(80, "a"))
    leases = [lease_of(pool, {}) for _ in range(61)]
    acquiring = [asyncio.create_task(lease.acquire()) for lease in leases]

    async def submitting() -> list[Lease]:
        await asyncio.sleep(0.1)
        return [lease for lease in leases if lease.has_slot]

    assert len(await submitting()) == 50
    for lease in leases[:4]:
        for _ in range(2):
            lease.submit_finished()
    assert len(await submitting()) == 54
    for lease in leases[:5]:  # the first four are not submitting any more
        lease.release()
    assert len(await submitting()) == 54 - 5 + 1
    adopted = lease_of(pool, {})
    adopted.occupy()
    adopted.release()
    leases[10].release(full=True)
    assert len(await submitting()) == 50 - 1, "no slot is assigned directly after a refusal"
    for task in acquiring:
        task.cancel()


async def test_a_job_moves_to_the_account_that_has_its_task() -> None:
    a, b = Account(2, "a", block="x"), Account(2, "b", block="y")
    lease = lease_of(pool_of(a, b), {})
    await lease.acquire()
    assert str(await lease.switch_to(intent(account="a", credentials="x"))) == "a"
    assert a.limiter.held == 1
    assert str(await lease.switch_to(intent(account="b", credentials="y"))) == str(lease.account) == "b"
    assert (a.limiter.held, lease.has_slot) == (0, False)
    with pytest.raises(
        ConfigError, match=r"was submitted to elsewhere, but the credentials of this process are for site\."
    ):
        await lease.switch_to(intent(account="b", credentials="y", site="elsewhere"))


@pytest.mark.parametrize(
    ("account", "block", "found", "paid"),
    [
        ("studio", "y", None, "second"),
        ("studio", "y", "another", "second"),
        ("studio", "z", None, "first"),
        ("studio", "z", "studio", "found"),
        ("studio", "z", "another", "first"),
        ("renamed", "y", "renamed", "second"),
        ("renamed", "z", "renamed", "found"),
        ("renamed", "z", None, None),
    ],
)
async def test_a_record_names_its_account_by_name_and_block(
    account: str, block: str, found: str | None, paid: str | None
) -> None:
    accounts = {"first": Account(2, "studio", block="x"), "second": Account(2, "studio", block="y")}

    async def find(_: Intent) -> Any:
        if found is None:
            raise ConfigError("there is no such block")
        return accounts.setdefault("found", Account(2, found, block=block))

    pool = pool_of(*accounts.values(), find=find)
    if paid is None:
        with pytest.raises(ConfigError, match="no such block"):
            await pool.account_of(intent(account=account, credentials=block))
    else:
        payer: Any = await pool.account_of(intent(account=account, credentials=block))
        assert payer is accounts[paid]


@pytest.mark.parametrize(
    ("account", "error", "said"),
    [
        ("a", KeyRejected("disabled.", code="802"), r"paid for on account a, .* Then run again: .* for it again\.$"),
        ("a", TaskNotFound("unknown."), "Then run again: .* find the task, run .* mark-lost run/job; the next"),
        (
            "c",
            KeyRejected("disabled."),
            r"on account c \(block 'x'\), and the key that is set now belongs to account a, .* again with the .*\.$",
        ),
        (
            "c",
            TaskNotFound("unknown."),
            "find the task, and both are the same account .* mark-lost run/job --same-account; the next",
        ),
    ],
    ids=str,
)
async def test_the_error_of_a_task_that_cannot_be_queried_says_whose_task_it_is(
    account: str, error: ApiError, said: str
) -> None:
    lease = lease_of(pool_of(Account(2, "a", block="x")), {})
    found = lease.query_error(intent(account=account, credentials="x"), "1", error)
    assert (type(found), found.code, found.advice) == (type(error), error.code, error.advice)
    assert re.search(said, found.message), found.message


async def test_an_account_that_is_not_configured_is_an_error() -> None:
    with pytest.raises(ConfigError, match="which is not configured in this process"):
        await pool_of(Account(2, "a"), Account(2, "b")).account_of(intent(account="c", credentials="z"))


async def test_an_unpaid_call_is_made_with_each_account_until_one_accepts_it() -> None:
    pool, exclusions = pool_of(Account(2, "a"), Account(2, "b")), Exclusions()
    asked: list[str] = []

    async def call(refused: dict[str, str], **more: Any) -> str:
        async def one(account: Any) -> str:
            asked.append(account.name)
            if account.name in refused:
                raise api_error(refused[account.name], doing="read")
            return str(account.name)

        asked.clear()
        return await pool.try_each(one, model="m", **more)

    assert (await call({"a": WALLET}, exclusions=exclusions), asked, exclusions) == ("b", ["a", "b"], {})
    assert (await call({"a": WORKFLOW}), asked) == ("b", ["a", "b"])
    assert (await call({"a": WORKFLOW}, exclusions=exclusions), asked) == ("b", ["a", "b"])
    assert (await call({}, exclusions=exclusions), asked) == ("b", ["b"])
    with pytest.raises(AccountError, match=r"m: no account of pool 'night' accepts m\. a: .*380.*; b: .*812"):
        await call({"b": WALLET}, exclusions=exclusions)
    with pytest.raises(RequestRejected, match=rf"^(?!.*night).*{PARAMETER}"):
        await call({"a": PARAMETER})
    assert asked == ["a"]
    pool = pool_of(Account(2, "a"))
    with pytest.raises(AccountError, match=r"^(?!.*night)"):
        await call({"a": WALLET})
