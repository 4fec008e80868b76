"""The accounts that may pay for a job (one account or a pool), and the lease: a job's slot on one of them.

A new job uses the first account with a free slot. A job that was paid for, or may have been, stays with the account in
its record. An account that refuses a job for an account-specific reason is excluded for the rest of the run, and the
other accounts take its jobs. A refused job was not accepted, so it is not paid for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

from rh_prefect.bounded_caches_and_locks import LruCache, SingleFlight
from rh_prefect.errors import (
    NOT_PAID,
    AccountError,
    ApiError,
    ConfigError,
    KeyRejected,
    RunningHubError,
    TaskNotFound,
    explain,
)
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.accounts.limiter import Limiter, Turn, first_free, refresh_counts
from rh_prefect.works.journal.record_types import Answer, Intent
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.runninghub.provider import RunningHub

T = TypeVar("T")

Exclusions: TypeAlias = dict[tuple[Account, str | None], Answer]
"""The refusals of excluded accounts, by account and model; the model None excludes the account for all models."""

_CACHE_SIZE = 200
"""Maximum number of attempts of runs whose excluded accounts a process stores."""

_CURRENCY_SECONDS = 60.0
"""Seconds after which the accounts' currencies are requested again: a key may have been repaired."""


async def unknown_account(intent: Intent) -> Account:
    """Raises `ConfigError`, because the account that a record names is not configured in this process."""
    raise ConfigError(
        f"A task of this job was paid for on account {intent.account_words}, which is not configured in this process. "
        "What to do: run again with the key of this account."
    )


class Pool:
    """The accounts of one site, any of which may pay; the pool also finds the account that a job's record names."""

    def __init__(
        self,
        accounts: Sequence[Account] = (),
        *,
        find: Callable[[Intent], Awaitable[Account]] = unknown_account,
        name: str | None = None,
    ) -> None:
        self.accounts = tuple(accounts)
        self.find = find
        self.name = name
        self._exclusions: LruCache[tuple[str, int], Exclusions] = LruCache(_CACHE_SIZE)
        self._currency: SingleFlight[None, str | None] = SingleFlight(seconds=_CURRENCY_SECONDS)

    @property
    def site(self) -> str:
        """The host name of RunningHub's site, which is the same for all accounts; empty for a pool without accounts."""
        return self.accounts[0].provider.site if self.accounts else ""

    @property
    def is_single(self) -> bool:
        """Whether the pool has only one account."""
        return len(self.accounts) == 1

    def provider(self, endpoint: str) -> RunningHub:
        """Returns the first account's provider for an endpoint; all accounts start and list tasks in the same way."""
        return self.accounts[0].at(endpoint).provider

    def exclusions(self, scope: Scope) -> Exclusions:
        """Returns the exclusions in the current attempt of a run.

        A later attempt starts without exclusions, because the accounts may have been repaired.
        """
        return self._exclusions.setdefault((repr(scope.journal), scope.attempt), {})

    async def account_of(self, intent: Intent) -> Account:
        """Returns the account that paid for a job; raises `ConfigError` if the account's site is not the job's site."""
        account = await self._account_of(intent)
        if account.provider.site != intent.site:
            raise ConfigError(
                f"A job was submitted to {intent.site}, but the credentials of this process are for "
                f"{account.provider.site}. Nothing was sent this time. What to do: start this process with the "
                "RH_BASE_URL of that site, or use credentials blocks in your flows."
            )
        return account

    async def provider_of(self, intent: Intent) -> RunningHub:
        """Returns the provider of the account that paid for a job; see `account_of`."""
        return (await self.account_of(intent)).provider

    async def _account_of(self, intent: Intent) -> Account:
        # The block identifies an account whose key was renewed; the name has priority, as blocks may exchange keys.
        named = [account for account in self.accounts if account.name == intent.account]
        with_block = [account for account in self.accounts if account.block == intent.credentials]
        both = [account for account in named if account in with_block]
        if named and not both:
            # Two accounts may have the same name, and the account of the recorded block may be outside of the pool.
            with suppress(ConfigError):
                found = await self.find(intent)
                both = [found] if found.name == intent.account else []
        return next(iter(both or named or with_block), None) or await self.find(intent)

    async def find_owner(self, task_id: str) -> Account:
        """Queries the accounts and returns the one that has a task; raises a query's error if no account has it."""
        errors: list[RunningHubError] = []
        for account in self.accounts:
            try:
                await account.provider.query(task_id)
            except (TaskNotFound, KeyRejected, AccountError) as error:
                errors.append(error)
            else:
                return account
        # An account that refuses the query may have the task, so its error says more than "not found".
        raise min(errors, key=lambda error: isinstance(error, TaskNotFound))

    async def check_currency(self) -> None:
        """Raises an error if the accounts' wallets have different currencies; queries each account once."""
        if not self.is_single:
            await self.currency()

    async def currency(self) -> str | None:
        """Returns the currency of the accounts; None if RunningHub reports none. Queries each account once."""
        return await self._currency.get(None, self._common_currency)

    async def _common_currency(self) -> str | None:
        currencies = await asyncio.gather(*(account.prices.certain_currency() for account in self.accounts))
        known = {account: unit for account, unit in zip(self.accounts, currencies) if unit}
        if len(set(known.values())) > 1:
            raise ConfigError(
                f"The accounts of pool {self.name!r} do not all have the same currency "
                f"({', '.join(f'{account}: {currency}' for account, currency in known.items())}), but a budget has "
                "only one currency, and each pipeline run has a budget. Nothing was sent. What to do: make a pool for "
                "each currency, or run jobs without a budget."
            )
        return next(iter(known.values()), None)

    async def try_each(
        self, call: Callable[[Account], Awaitable[T]], *, model: str, exclusions: Exclusions | None = None
    ) -> T:
        """Makes an unpaid call with each account in turn, until an account does not refuse it."""
        excluded = {} if exclusions is None else exclusions
        refusals = {account: known for account in self.accounts if (known := refusal_in(excluded, account, model))}
        for account in [account for account in self.accounts if account not in refusals]:
            try:
                return await call(account)
            except ApiError as error:
                refusals[account] = refusal = Answer.of(error)
                if self.is_single or refusal.account_scope is None:
                    raise
                # An account that refuses every job is excluded by its first submission, which logs a warning.
                if refusal.account_scope == "model":
                    excluded.setdefault((account, model), refusal)
        raise self.no_account_error(refusals, model, job=model)

    def no_account_error(self, refusals: Mapping[Account, Answer], model: str, *, job: str) -> ApiError:
        """Builds the error for a job that no account accepts, with the refusal of each account."""
        reasons = "; ".join(f"{account}: {describe(refusal)}" for account, refusal in refusals.items())
        last = list(refusals.values())[-1]
        row = explain(last.code, last.reason)
        return row.error(
            f"{job}: no account of pool {self.name!r} accepts {model}. {reasons}. {NOT_PAID} What to do: "
            "repair one of these accounts, or add another account to the pool, and run again.",
            code=last.code,
            reason=last.reason,
            retry=row.retry,
            advice=row.advice,
        )


def refusal_in(exclusions: Exclusions, account: Account, model: str) -> Answer | None:
    """Returns the refusal that excludes an account for a model; None if the account is not excluded."""
    return exclusions.get((account, None)) or exclusions.get((account, model))


def describe(refusal: Answer) -> str:
    """Returns a clause that says what a refusal means and what the user can do."""
    row = explain(refusal.code, refusal.reason)
    reason = f', "{refusal.reason}"' if refusal.reason else ""
    return f"{row.meaning} (code {refusal.code}{reason}; {row.advice})"


class Lease:
    """The slot of one job on an account of a pool. The account is chosen as late as possible."""

    def __init__(
        self, pool: Pool, exclusions: Exclusions, *, model: str, endpoint: str, job: str, turn: Turn | None = None
    ) -> None:
        self._turn = turn
        self._pool = pool
        self._exclusions = exclusions
        self._model = model
        self._endpoint = endpoint
        self._job = job
        self._limiter: Limiter | None = None
        self._announced_to: Limiter | None = None
        self._submitting_to: Limiter | None = None
        self._refusals: dict[Account, Answer] = {}
        self._accounts = [account.at(endpoint) for account in pool.accounts]
        self.account = self._accounts[0]
        """The account that pays; it may change until a slot is taken."""

    @property
    def has_slot(self) -> bool:
        """Whether the job has a slot of the selected account."""
        return self._limiter is not None

    async def select_account(self) -> None:
        """Selects the account that will probably pay, so that inputs are uploaded while the job waits."""
        if self._pool.is_single or self._limiter is not None or self._announced_to is not None:
            return
        usable = self._usable()
        await refresh_counts(account.limiter for account in usable)
        self.account = min(usable, key=lambda account: account.limiter.load)
        self._announced_to = self.account.limiter
        self._announced_to.announce()

    async def acquire(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Waits until one of the accounts has a free slot, and takes the slot; calls `on_wait` if no slot is free."""
        # A job that is resubmitted after an unknown outcome still has its slot.
        while self._limiter is None:
            accounts = {account.limiter: account for account in self._usable()}
            limiter = await first_free(list(accounts), preferred=self._announced_to, turn=self._turn, on_wait=on_wait)
            self._limiter = self._submitting_to = limiter
            self._withdraw()
            self.account = accounts[limiter]
            if self._refusal(self.account) is not None:
                # The account was excluded while this job waited.
                self.release()

    def submit_finished(self) -> None:
        """Records that the submission has an answer, or will not be sent."""
        limiter, self._submitting_to = self._submitting_to, None
        if limiter is not None:
            limiter.submit_finished()

    def release(self, *, full: bool = False) -> None:
        """Releases the slot, if any; `full` says whether RunningHub refused the task because no slot was free."""
        self._withdraw()
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.release(full=full)
        # The order matters: a refusal pauses the limiter before the end of this submission admits the next job.
        self.submit_finished()

    async def switch_to(self, intent: Intent) -> Account:
        """Selects the account that already has the job's task; raises `ConfigError` if the account is unknown."""
        account = (await self._pool.account_of(intent)).at(self._endpoint)
        if account != self.account:
            self.release()
            self.account = account
        return account

    def occupy(self) -> None:
        """Takes a slot for a task that is already running, even if no slot is free."""
        if self._limiter is None:
            self._withdraw()
            self._limiter = self.account.limiter
            self._limiter.occupy()

    def after_refusal(self, refusal: Answer) -> str | None:
        """Excludes the account after its refusal; returns a message, or None if the refusal is not account-specific.

        Call `release` first. The message is empty if the account was already excluded.
        """
        scope = None if self._pool.is_single else refusal.account_scope
        if scope is None:
            return None
        refused, is_new = self.account, False
        self._refusals[refused] = refusal
        if scope != "job":
            key = (refused, None if scope == "account" else self._model)
            is_new = key not in self._exclusions
            self._exclusions.setdefault(key, refusal)
        others = ", ".join(map(str, self._usable()))
        model = "" if scope == "account" else f" for {self._model}"
        message = (
            f"account {refused} is no longer used in this run{model}: {describe(refusal)}. Nothing was paid. These "
            f"accounts are still used: {others}"
        )
        return message if is_new else ""

    def query_error(self, intent: Intent, task_id: str, error: ApiError) -> ApiError:
        """Builds the error for a task whose recorded account refuses the query, or is not configured."""
        is_same = self.account.is_of(intent)
        words = f"{intent.account_words}, and the key that is set now belongs to account {self.account}"
        account = str(self.account) if is_same else words
        key = "" if is_same else " with the key of the account that paid"
        advice = f"Then run again{key}: the run waits for the task and does not pay for it again."
        if isinstance(error, TaskNotFound):
            condition = "" if is_same else ", and both are the same account with a renewed key or another name"
            option = "" if is_same else " --same-account"
            advice += (
                f" If RunningHub still does not find the task{condition}, run rh-prefect jobs mark-lost "
                f"{self._job}{option}; the next run then pays for a new task."
            )
        return type(error)(
            f"{self._job}: task {task_id} was paid for on account {account}, which currently cannot "
            f"query it: {error.message} {advice}",
            code=error.code,
            reason=error.reason,
            retry=error.retry,
            advice=error.advice,
        )

    def _usable(self) -> list[Account]:
        """Returns the usable accounts, or the single account; raises an error with all refusals if none is usable."""
        if self._pool.is_single:
            return self._accounts
        refusals = {account: self._refusal(account) for account in self._accounts}
        usable = [account for account, refusal in refusals.items() if refusal is None]
        if not usable:
            known = {account: refusal for account, refusal in refusals.items() if refusal is not None}
            raise self._pool.no_account_error(known, self._model, job=self._job)
        return usable

    def _refusal(self, account: Account) -> Answer | None:
        return self._refusals.get(account) or refusal_in(self._exclusions, account, self._model)

    def _withdraw(self) -> None:
        limiter, self._announced_to = self._announced_to, None
        if limiter is not None:
            limiter.withdraw()
