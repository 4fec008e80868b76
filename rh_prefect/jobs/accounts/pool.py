"""The accounts that may pay for a job: one, or a pool of them, each with its own limit.

A new job goes to the account that first has room. What was paid, or may have been, stays with the account that its
record names. An account with an account-specific refusal is left out for the rest of the run, and its
jobs go to the others: what was refused was not accepted, so nothing is paid twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rh_prefect.caches_and_locks import SingleFlight
from rh_prefect.errors import AccountError, ApiError, ConfigError, KeyRejected, RefusalScope, TaskNotFound, explain
from rh_prefect.jobs.accounts.account import Accounts, Member, at_machine, is_native
from rh_prefect.jobs.journal.record_types import Answer, Intent
from rh_prefect.jobs.journal.scope import Scope

T = TypeVar("T")

_KEPT = 200
"""Of how many attempts of runs one process remembers which accounts were left out."""


def account_specific(answer: Answer) -> RefusalScope | None:
    """Returns the account-specific reason of a rejection; None if every account would reject the job."""
    row = explain(answer.code, answer.reason, submitting=True)
    concerns_account = issubclass(row.error, KeyRejected | AccountError)
    return row.account_scope or ("account" if concerns_account else None)


@dataclass(slots=True)
class Exclusions:
    """Which accounts of a pool are left out in one attempt of a run, and why."""

    _out: dict[tuple[Member, str | None], Answer] = field(default_factory=dict)

    def why(self, member: Member, model: str) -> Answer | None:
        """Returns why an account is not used for a model; None if it is used."""
        return self._out.get((member, None)) or self._out.get((member, model))

    def leave_out(self, member: Member, model: str | None, why: Answer) -> bool:
        """Excludes an account, for one model or (with None) for all; returns whether the exclusion is new."""
        if (member, model) in self._out:
            return False
        self._out[member, model] = why
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
            find: Finds the account that a record names where it is none of these (any more).
            name: Name of the pool's block; None for an account that stands alone.
        """
        self.members = tuple(members)
        self.accounts = Accounts(members) if find is None else Accounts(members, find=find)
        self.name = name
        self._standings: OrderedDict[tuple[str, int], Exclusions] = OrderedDict()
        self._currency: SingleFlight[None, None] = SingleFlight()
        self._machines: dict[str, Pool] = {}

    @property
    def site(self) -> str:
        """RunningHub's host."""
        return self.members[0].client.site

    @property
    def is_one(self) -> bool:
        """Whether the pool has only one account."""
        return len(self.members) == 1

    def at(self, endpoint: str) -> Pool:
        """Returns the same accounts, bound to the machines on which an order of this kind runs.

        Args:
            endpoint: The order's.
        """
        if not is_native(endpoint):
            return self
        if endpoint not in self._machines:

            async def find(intent: Intent) -> Member:
                return at_machine(await self.accounts.find(intent), endpoint)

            members = [at_machine(one, endpoint) for one in self.members]
            self._machines[endpoint] = Pool(members, find=find, name=self.name)
        return self._machines[endpoint]

    def standing(self, scope: Scope) -> Exclusions:
        """Returns the accounts excluded in the current attempt of a run.

        Args:
            scope: The run. In a later attempt all are asked again: somebody may have paid the bill.
        """
        name = (repr(scope.journal), scope.attempt)
        standing = self._standings.setdefault(name, Exclusions())
        self._standings.move_to_end(name)
        while len(self._standings) > _KEPT:
            self._standings.popitem(last=False)
        return standing

    async def having(self, task_id: str) -> Member:
        """Finds the account that has a task.

        Args:
            task_id: RunningHub's task id.

        Raises:
            TaskNotFound: None of them knows it.
        """
        for one in self.members[:-1]:
            try:
                await one.client.query(task_id)
            except TaskNotFound:
                continue
            return one
        await self.members[-1].client.query(task_id)
        return self.members[-1]

    async def check_currency(self) -> None:
        """Rejects a budget for accounts with wallets in different currencies; queries each account once.

        Raises:
            ConfigError: They are not.
        """
        if self.is_one:
            return
        await self._currency.get(None, self._compare_currencies)

    async def _compare_currencies(self) -> None:
        found = await asyncio.gather(*(one.account.prices.currency() for one in self.members))
        known = {str(one): currency for one, currency in zip(self.members, found, strict=True) if currency}
        if len(set(known.values())) > 1:
            raise ConfigError(
                f"The accounts of pool {self.name!r} do not all have the same currency ("
                f"{', '.join((f'{name}: {currency}' for name, currency in known.items()))}), but a budget "
                "has only one currency. Nothing was sent. What to do: run without a budget, or make a "
                "pool for each currency."
            )

    async def ask(self, question: Callable[[Member], Awaitable[T]], *, scope: Scope, model: str) -> T:
        """Checks the accounts in turn until one has no account-specific reason to reject the job; nothing is paid.

        Args:
            question: What to ask.
            scope: The run.
            model: What it is about.

        Raises:
            ApiError: All have refused, or one for a reason that is the question's.
        """
        standing = self.standing(scope)
        whys = {one: why for one in self.members if (why := standing.why(one, model)) is not None}
        for one in [one for one in self.members if one not in whys]:
            try:
                return await question(one)
            except ApiError as error:
                whys[one] = Answer(outcome="refused", code=error.code, reason=error.reason, retry=error.retry)
                trouble = None if self.is_one else account_specific(whys[one])
                if trouble is None:
                    raise
                # Of an account that can do nothing at all the first submit will tell, with a warning.
                if trouble == "model":
                    standing.leave_out(one, model, whys[one])
        raise self.exhausted(whys, model, job=model)

    def exhausted(self, whys: Mapping[Member, Answer], model: str, *, job: str) -> ApiError:
        """Builds the error for a job that no account accepts, with the reason of each account.

        Args:
            whys: Why not, by account.
            model: What is asked for.
            job: The job's full name.
        """
        said = "; ".join(f"{one}: {refusal(why)}" for one, why in whys.items())
        last = list(whys.values())[-1]
        row = explain(last.code, last.reason, submitting=True)
        return row.error(
            f"{job}: no account of pool {self.name!r} takes {model}. {said}. Nothing was paid for it. "
            "What to do: repair one of these accounts, or add another to the pool, and run again.",
            code=last.code,
            reason=last.reason,
            retry=row.retry,
            advice=row.advice,
        )


def refusal(why: Answer) -> str:
    """Returns a clause that explains why an account rejected a job and what the user can do.

    Args:
        why: Its answer.
    """
    row = explain(why.code, why.reason, submitting=True)
    said = f', "{why.reason}"' if why.reason else ""
    return f"{row.meaning} (code {why.code}{said}; {row.advice})"
