"""The accounts that may pay for a job: one, or a pool of them, each with its own limit.

A new job uses the first account with a free slot. A job that was paid, or may have been, keeps the account of its
record. An account that refuses a job for an account-specific reason is excluded for the rest of the run, and the other
accounts take its jobs: a refused job was not accepted, so it is not paid twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from rh_prefect.caches_and_locks import LruCache, SingleFlight
from rh_prefect.errors import (
    AccountError,
    ApiError,
    ConfigError,
    KeyRejected,
    RunningHubError,
    TaskNotFound,
    explain,
)
from rh_prefect.works.accounts.account import Accounts, Member, at_machine, is_native
from rh_prefect.works.journal.record_types import Answer, Intent
from rh_prefect.works.journal.scope import Scope

T = TypeVar("T")

_CACHE_SIZE = 200
"""Maximum number of attempts of runs for which a process stores the excluded accounts."""


_CURRENCY_SECONDS = 60.0
"""Seconds after which the accounts are asked for their currency again: a key may have been repaired meanwhile."""


class Exclusions:
    """The accounts of a pool that are excluded in one attempt of a run, with their refusals."""

    def __init__(self) -> None:
        """Starts without exclusions."""
        self._refusals: dict[tuple[Member, str | None], Answer] = {}

    def refusal(self, member: Member, model: str) -> Answer | None:
        """Returns the refusal for which an account is excluded for a model; None if it is not excluded."""
        return self._refusals.get((member, None)) or self._refusals.get((member, model))

    def exclude(self, member: Member, model: str | None, refusal: Answer) -> bool:
        """Excludes an account, for one model or (with None) for all; returns whether the exclusion is new."""
        if (member, model) in self._refusals:
            return False
        self._refusals[member, model] = refusal
        return True


class Pool:
    """Accounts of one site, any of which may pay."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        find: Callable[[Intent], Awaitable[Member]] | None = None,
        name: str | None = None,
    ) -> None:
        """Opens the pool.

        Args:
            members: The accounts, of one site; at least one.
            find: Finds the account of a record if it is not among `members`.
            name: Name of the pool's block; None for a single account.
        """
        self.members = tuple(members)
        self.accounts = Accounts(members) if find is None else Accounts(members, find=find)
        self.name = name
        self._exclusions: LruCache[tuple[str, int], Exclusions] = LruCache(_CACHE_SIZE, make=Exclusions)
        self._currency: SingleFlight[None, str | None] = SingleFlight(seconds=_CURRENCY_SECONDS)
        self._machines: dict[str, Pool] = {}

    @property
    def site(self) -> str:
        """RunningHub's host."""
        return self.members[0].client.site

    @property
    def is_single(self) -> bool:
        """Whether the pool has only one account."""
        return len(self.members) == 1

    def for_endpoint(self, endpoint: str) -> Pool:
        """Returns the pool of the accounts' machines if an endpoint needs machines; else this pool.

        Args:
            endpoint: The request's endpoint.
        """
        if not is_native(endpoint):
            return self
        if endpoint not in self._machines:

            async def find(intent: Intent) -> Member:
                return at_machine(await self.accounts.find(intent), endpoint)

            members = [at_machine(member, endpoint) for member in self.members]
            self._machines[endpoint] = Pool(members, find=find, name=self.name)
        return self._machines[endpoint]

    def exclusions(self, scope: Scope) -> Exclusions:
        """Returns the exclusions in the current attempt of a run.

        Args:
            scope: The run. A later attempt starts without exclusions: the accounts may have been repaired.
        """
        return self._exclusions[repr(scope.journal), scope.attempt]

    async def find_owner(self, task_id: str) -> Member:
        """Finds the account that has a task.

        Args:
            task_id: RunningHub's task id.

        Raises:
            TaskNotFound: No account has it.
            KeyRejected: An account's key is refused, and no other account has it.
            AccountError: An account cannot be asked, and no other account has it.
        """
        errors: list[RunningHubError] = []
        for member in self.members:
            try:
                await member.client.query(task_id)
            except (TaskNotFound, KeyRejected, AccountError) as error:
                errors.append(error)
            else:
                return member
        # An account that cannot be asked may have it, so its error says more than those of the others.
        raise min(errors, key=lambda error: isinstance(error, TaskNotFound))

    async def check_currency(self) -> None:
        """Rejects a budget for accounts with wallets in different currencies; queries each account once.

        Raises:
            ConfigError: The accounts have different currencies.
            RunningHubError: RunningHub does not respond; the next call queries the accounts again.
        """
        if not self.is_single:
            await self.currency()

    async def currency(self) -> str | None:
        """Returns the currency of the accounts; None if RunningHub reports none. Queries each account once.

        Raises:
            ConfigError: The accounts have different currencies.
            RunningHubError: RunningHub does not respond; the next call queries the accounts again.
        """
        return await self._currency.get(None, self._common_currency)

    async def _common_currency(self) -> str | None:
        currencies = await asyncio.gather(*(member.account.prices.certain_currency() for member in self.members))
        known = {member: currency for member, currency in zip(self.members, currencies, strict=True) if currency}
        if len(set(known.values())) > 1:
            raise ConfigError(
                f"The accounts of pool {self.name!r} do not all have the same currency ("
                f"{', '.join((f'{member}: {currency}' for member, currency in known.items()))}), but a budget, "
                "which each pipeline run has, has only one currency. Nothing was sent. What to do: make a pool for "
                "each currency, or run jobs without a budget."
            )
        return next(iter(known.values()), None)

    async def try_each(
        self, call: Callable[[Member], Awaitable[T]], *, model: str, exclusions: Exclusions | None = None
    ) -> T:
        """Makes an unpaid call with each account in turn until one does not refuse it for an account-specific reason.

        Args:
            call: The call.
            model: The model or graph of the call.
            exclusions: The accounts that are excluded in the run; None outside of runs.

        Raises:
            ApiError: Each account has refused, or one for a reason that is not account-specific.
        """
        exclusions = exclusions or Exclusions()
        refusals = {member: refusal for member in self.members if (refusal := exclusions.refusal(member, model))}
        for member in [member for member in self.members if member not in refusals]:
            try:
                return await call(member)
            except ApiError as error:
                refusals[member] = refusal = Answer.of(error)
                refusal_scope = None if self.is_single else refusal.account_scope
                if refusal_scope is None:
                    raise
                # An account that refuses every job is excluded by its first submission, which logs a warning.
                if refusal_scope == "model":
                    exclusions.exclude(member, model, refusal)
        raise self.no_account_error(refusals, model, job=model)

    def no_account_error(self, refusals: Mapping[Member, Answer], model: str, *, job: str) -> ApiError:
        """Builds the error for a job that no account accepts, with the refusal of each account.

        Args:
            refusals: The refusal of each account.
            model: The model or graph of the job.
            job: The job's full name.
        """
        reasons = "; ".join(f"{member}: {describe(refusal)}" for member, refusal in refusals.items())
        last = list(refusals.values())[-1]
        row = explain(last.code, last.reason, submitting=True)
        return row.error(
            f"{job}: no account of pool {self.name!r} takes {model}. {reasons}. Nothing was paid for it. "
            "What to do: repair one of these accounts, or add another to the pool, and run again.",
            code=last.code,
            reason=last.reason,
            retry=row.retry,
            advice=row.advice,
        )


def describe(refusal: Answer) -> str:
    """Returns a clause with the meaning of a refusal and the advice for the user.

    Args:
        refusal: The answer to the submission.
    """
    row = explain(refusal.code, refusal.reason, submitting=True)
    reason = f', "{refusal.reason}"' if refusal.reason else ""
    return f"{row.meaning} (code {refusal.code}{reason}; {row.advice})"
