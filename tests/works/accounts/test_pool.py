"""Several accounts pay together, each with its own limit; a job stays with the account that it was paid on."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, ConfigError, JobFailed, KeyRejected, RunningHubError, SubmissionUnknown
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from tests.support.processes.pooled_run import PooledRun, pictures
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import HELPFUL
from tests.support.waiting import until, wait_until


@pytest.fixture
def rh() -> Iterator[Emulator]:
    """Two keys that run three tasks each; a task takes 0.2 s."""
    with Emulator(clock="real", factor=50, limit=3, long_side=48, fps=2, assumptions=HELPFUL) as emulator:
        emulator.keys.add("two", limit=3)
        yield emulator


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PooledRun:
    return PooledRun(rh, tmp_path)


def again(run: PooledRun, **facts: Any) -> PooledRun:
    """Another run of the same scope, with any accounts."""
    return PooledRun(run.rh, run.folder, **facts)


def results(done: list[Result | RunningHubError]) -> list[Result]:
    assert not errors(done), errors(done)
    return [one for one in done if isinstance(one, Result)]


def errors(done: list[Result | RunningHubError]) -> list[RunningHubError]:
    return [one for one in done if isinstance(one, RunningHubError)]


def with_a_photo(folder: Path, number: int, *, prompt: str = "x") -> models.ZImageTurboImageToImage:
    photo = str(samples.png(folder / f"{number}.png", text=str(number)))
    return models.ZImageTurboImageToImage(image_url=photo, prompt=prompt, aspect_ratio="1:1", output_format="png")


async def test_the_limits_of_both_accounts_are_used_and_kept(tmp_path: Path) -> None:
    with Emulator(clock="real", factor=0, limit=3, long_side=48, fps=2, assumptions=HELPFUL) as rh:
        rh.keys.add("two", limit=3)
        run = PooledRun(rh, tmp_path)
        running = asyncio.ensure_future(run.all(pictures(24)))
        for paid in (3, 6, 9, 12):
            await until(lambda paid=paid: run.paid == {"main": paid, "two": paid})  # type: ignore[misc]
            rh.clock.advance(600)
        done = results(await running)
    assert len({one.task_id for one in done}) == 24
    assert sum(run.refused.values()) <= 2, run.refused


async def test_each_job_records_its_account_and_never_the_key(run: PooledRun, rh: Emulator) -> None:
    await run.all(pictures(6))
    intents = await run.intents()
    assert Counter((one.account, one.credentials) for one in intents) == {
        ("account of main", "main"): run.paid["main"],
        ("account of two", "two"): run.paid["two"],
    }
    records = "".join(path.read_text() for path in run.folder.rglob("*.json"))
    assert not any(key.secret in records for key in rh.keys)


async def test_inputs_are_uploaded_once_to_each_account_that_uses_them(run: PooledRun, rh: Emulator) -> None:
    results(await run.all([with_a_photo(run.folder, 0, prompt=f"{n}") for n in range(12)]))
    assert run.paid["main"] and run.paid["two"]
    assert Counter(one.key_name for one in rh.recorder.uploads) == {"main": 1, "two": 1}


async def test_an_input_of_one_job_is_sent_to_the_account_that_pays_for_it(run: PooledRun, rh: Emulator) -> None:
    results(await run.all([with_a_photo(run.folder, n) for n in range(12)]))
    sent = Counter(one.sha256 for one in rh.recorder.uploads)
    assert len(sent) == 12
    # Some may have moved to a slot that was free elsewhere; most went where they were expected.
    assert sum(sent.values()) <= 14


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ("two", "submission", r"account of two.*block 'two'.*key is missing or unknown.*412.*account of main"),
        ("two", "upload", r"account of two.*the key is unknown \(code 401"),
        ("main", "price", "account of main"),
    ],
)
async def test_an_account_with_a_rejected_key_is_excluded_with_one_warning(
    run: PooledRun, wrong: str, kind: str, said: str
) -> None:
    run.secrets = {wrong: "f" * 32}
    requests: Any = {
        "submission": pictures(8),
        "upload": [with_a_photo(run.folder, n) for n in range(8)],
        "price": [models.SkyreelsV4TextToVideoFast(prompt=f"{n}") for n in range(8)],
    }
    results(await run.all(requests[kind], budget=Decimal(100) if kind == "price" else None))
    (right,) = {"main", "two"} - {wrong}
    assert run.paid == {right: 8}
    (warning,) = run.said("moved")
    assert re.search(said, warning)
    assert "f" * 32 not in warning


async def test_a_refused_price_of_the_only_account_is_not_a_missing_price(run: PooledRun) -> None:
    run = again(run, members=("main",), secrets={"main": "f" * 32})
    (wrong,) = errors(await run.all([models.SkyreelsV4TextToVideoFast(prompt="x")], budget=Decimal(100)))
    assert isinstance(wrong, KeyRejected), wrong


async def test_jobs_of_an_empty_wallet_use_the_other_accounts(run: PooledRun, rh: Emulator) -> None:
    wallet = rh.keys["two"].account
    wallet.money = Decimal(0)
    results(await run.all(pictures(9)))
    assert run.paid == {"main": 9}
    # Now and then a slot is tried a moment before RunningHub has freed it.
    assert {code for _, code in run.refused} - {"421"} == {"812"}, "the wallet is empty"
    assert len(run.said("moved")) == 1
    wallet.money = Decimal(100)
    run.attempt = 2
    results(await run.all(pictures(9, "another")))
    assert run.paid["two"], "a later attempt asks all accounts again"


async def test_a_workflow_that_one_account_lacks_uses_another_without_an_exclusion(
    run: PooledRun, rh: Emulator
) -> None:
    workflow = WorkflowInput(id="2030000000000000001", nodes={})
    rh.faults.add(Fault("submit", endpoint="run/workflow/*", kind="code", code="380", times=1))
    results(await run.all([workflow]))
    results(await run.all([workflow], takes=5))
    refused = next(one.key_name for one in rh.recorder.submissions if one.code == "380")
    assert run.paid[refused] == 0
    (said,) = run.said("moved")
    assert f"for {workflow.model}: this workflow does not exist" in said
    results(await run.all(pictures(8)))
    assert run.paid[refused] > 0, "the account pays for everything else"


async def test_a_workflow_is_read_from_an_account_that_has_it(run: PooledRun, rh: Emulator) -> None:
    rh.faults.add(Fault("workflow", kind="code", code="380", number=1))
    results(await run.all([WorkflowInput(id="2030000000000000001", nodes={})]))
    assert run.paid == {"two": 1}


async def test_a_job_that_no_account_accepts_does_not_affect_the_others(run: PooledRun, rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="picture 0", kind="code", code="433"))
    (wrong,) = errors(await run.all(pictures(6)))
    assert "433" in wrong.message
    assert sum(run.paid.values()) == 5
    assert not run.said("moved")


async def test_a_budget_is_one_for_all_accounts(run: PooledRun, rh: Emulator) -> None:
    (first,) = results(await run.all(pictures(1, "the price")))
    assert first.cost
    done = await run.all(pictures(12), budget=float(first.cost) * 5.5)
    assert Counter(type(one) for one in done) == {Result: 4, BudgetExceeded: 8}
    assert sum(run.paid.values()) == 5


async def test_a_budget_for_wallets_of_two_currencies_is_refused(run: PooledRun, rh: Emulator) -> None:
    """The currencies are compared again if one was not known."""
    rh.keys.add("dollars", limit=3, currency="USD")
    run.members = ("main", "dollars")
    rh.faults.add(Fault("account", kind="429", times=4))
    for is_known in (False, False, True):
        (wrong,) = errors(await run.all(pictures(1), budget=10))
        assert isinstance(wrong, ConfigError)
        assert not is_known or ("CNY" in wrong.message and "USD" in wrong.message)
    assert not rh.recorder.submissions
    results(await run.all(pictures(1)))


def pay_in_dollars(run: PooledRun, rh: Emulator) -> None:
    """The only account does not tell its currency yet, and its tasks do not end yet."""
    rh.keys.add("dollars", limit=10, currency="USD")
    rh.clock.factor = 0
    rh.faults.add(Fault("account", kind="429"))
    run.members = ("dollars",)


async def test_a_budget_holds_where_the_currency_is_not_known_at_first(run: PooledRun, rh: Emulator) -> None:
    """The first jobs were reserved in the catalogue's currency, the later ones in the account's."""
    pay_in_dollars(run, rh)
    first = asyncio.ensure_future(run.all(pictures(2, "early"), budget=Decimal("0.10")))
    await asyncio.sleep(3)
    rh.faults.clear()
    await asyncio.to_thread(wait_until, lambda: len(rh.recorder.submissions) == 2)
    second = asyncio.ensure_future(run.all(pictures(2, "late"), budget=Decimal("0.10")))
    await asyncio.sleep(0.5)
    rh.clock.factor = 50
    done = [*await first, *await second]
    assert [type(one) for one in done] == [Result, Result, BudgetExceeded, BudgetExceeded]
    assert rh.recorder.charged <= Decimal("0.10")


async def test_a_job_without_a_budget_counts_in_the_accounts_currency(run: PooledRun, rh: Emulator) -> None:
    """Its cost was recorded in the catalogue's currency permanently, and no budget of the account's counted it."""
    pay_in_dollars(run, rh)
    free = asyncio.ensure_future(run.all(pictures(2, "early")))
    await asyncio.to_thread(wait_until, lambda: len(rh.recorder.submissions) == 2)
    rh.faults.clear()
    limited = asyncio.ensure_future(run.all(pictures(1, "late"), budget=Decimal("0.10")))
    await asyncio.sleep(0.5)
    rh.clock.factor = 50
    assert [one.currency for one in results(await free)] == ["USD", "USD"]
    assert [type(one) for one in await limited] == [BudgetExceeded]


@pytest.mark.parametrize("refused", ["main", "two"])
async def test_the_owner_of_a_task_is_found_beside_an_account_whose_key_is_refused(
    run: PooledRun, rh: Emulator, refused: str
) -> None:
    owner = {"main": "two", "two": "main"}[refused]
    (result,) = results(await replace(run, members=(owner,)).all(pictures(1)))
    accounts = {name: replace(run, secrets={refused: "0" * 32}).account(name) for name in ("main", "two")}
    pool = Pool(list(accounts.values()))
    assert await LOOP.call(pool.find_owner(result.task_id)) == accounts[owner]
    with pytest.raises(KeyRejected):
        await LOOP.call(pool.find_owner("1234567890123456789"))


async def begin(run: PooledRun, count: int = 4) -> None:
    """Submits some pictures without completing them."""
    run.rh.clock.factor = 0
    working = asyncio.ensure_future(run.all(pictures(count)))
    await asyncio.to_thread(wait_until, lambda: len(run.said("submitted")) == count)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    run.rh.clock.factor = 50


@pytest.mark.parametrize("members", [("two", "main"), ("two",), ("main",), ("third", "two"), ("third",)], ids=str)
async def test_a_job_keeps_its_account_when_the_pool_changes(run: PooledRun, rh: Emulator, members: Any) -> None:
    rh.keys.add("third", limit=3)
    await begin(run)
    before = run.paid
    assert before["main"] and before["two"]
    later = again(run, members=members)
    done = results(await later.all(pictures(4)))
    assert later.paid == before, "nothing was paid for again"
    assert {one.task_id for one in done} == {one.task_id for one in rh.recorder.paid}
    assert len(later.said("adopted")) == 4


async def test_a_new_task_after_a_failure_may_use_any_account(run: PooledRun, rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="fail", code="1000", times=1))
    run.members = ("two",)
    (failed,) = errors(await run.all(pictures(1)))
    assert isinstance(failed, JobFailed)
    results(await again(run, members=("main",), attempt=2).all(pictures(1)))
    assert run.paid == {"two": 1, "main": 1}


async def test_an_unknown_submit_names_its_account(run: PooledRun, rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="cut", times=1))
    run.members = ("two",)
    rh.keys.add("third")
    (first,) = errors(await run.all(pictures(1)))
    (second,) = errors(await again(run, members=("main", "third"), gone=frozenset({"two"})).all(pictures(1)))
    for one in (first, second):
        assert isinstance(one, SubmissionUnknown)
        assert "task of account account of two" in one.message
    assert len(rh.recorder.submissions) == 1


async def test_a_missing_block_is_an_error_with_the_account_that_paid(run: PooledRun, rh: Emulator) -> None:
    await begin(run, 2)
    later = again(run, members=("third",), gone=frozenset({"main", "two"}))
    rh.keys.add("third")
    assert [type(one) for one in await later.all(pictures(2))] == [ConfigError] * 2
    assert later.paid == run.paid
    results(await again(run).all(pictures(2)))


async def test_a_key_that_is_rejected_while_its_tasks_run(run: PooledRun, rh: Emulator) -> None:
    rh.clock.factor = 0
    working = asyncio.ensure_future(run.all(pictures(6)))
    await asyncio.to_thread(wait_until, lambda: len(run.said("submitted")) == 6)
    secret = rh.keys["two"].secret
    rh.keys.add("two", limit=3, account="two", secret="0" * 32)
    rh.clock.factor = 50
    done = await working
    assert len(results([one for one in done if isinstance(one, Result)])) == run.paid["main"]
    for one in errors(done):
        assert isinstance(one, KeyRejected)
        assert "account of two" in one.message and "does not pay for it again" in one.message
    rh.keys.add("two", limit=3, account="two", secret=secret)
    results(await again(run).all(pictures(6)))
    assert sum(run.paid.values()) == 6
