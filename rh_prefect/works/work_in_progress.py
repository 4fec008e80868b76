"""`Work`: one work in progress, with the objects that submit and complete it, and its costs."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rh_prefect.errors import ConfigError, JournalError
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings, is_http_address
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.accounts.pool import Lease
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.events import JobEvent, JobEventState, Observer
from rh_prefect.works.journal.costs_and_budget import Costs, Money, SpendTracker
from rh_prefect.works.journal.job_records_and_state import JobRecords
from rh_prefect.works.journal.journal import UnreadableRecord
from rh_prefect.works.journal.record_types import Intent, current_owner
from rh_prefect.works.journal.scope import Scope, cancel_key
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.store_checks_and_download_folder import RunAttempt

if TYPE_CHECKING:
    from rh_prefect.works.pool_services import PoolServices
    from rh_prefect.works.result_delivery import ResultDelivery

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


@dataclass(frozen=True, slots=True)
class Callback:
    """The webhook address to which RunningHub reports the ends of tasks."""

    url: str  # The receiver's address, as RunningHub reaches it
    token: SecretStr  # The secret part

    def address(self, scope: str, key: str, n: int) -> str:
        """Returns the webhook address of one submission, which contains the secret and the submission's name."""
        return f"{self.url}/hook/{self.token.get_secret_value()}/{scope}/{key}/{n}"

    def hide(self, text: str) -> str:
        """Removes the secret from text that will be recorded."""
        return text.replace(self.token.get_secret_value(), "***")


def callback_of(settings: Settings) -> Callback | None:
    """Returns the webhook address from the settings; None without webhooks."""
    if not settings.webhook_url:
        return None
    url = settings.webhook_url.strip().rstrip("/")
    if not is_http_address(url):
        raise ConfigError(
            "RH_WEBHOOK_URL is not a valid address of a webhook receiver. Nothing was sent. What to do: set it to the "
            "address at which RunningHub can reach `rh-prefect webhook serve`, as in https://hooks.example.net; or "
            "unset RH_WEBHOOK_URL to use polling."
        )
    if settings.webhook_token is None:
        raise ConfigError(
            "RH_WEBHOOK_URL is set, but RH_WEBHOOK_TOKEN is not. Nothing was sent. What to do: set RH_WEBHOOK_TOKEN to "
            "the token that `rh-prefect webhook serve` shows; or unset RH_WEBHOOK_URL to use polling."
        )
    return Callback(url, usable_token(settings.webhook_token))


def usable_token(token: SecretStr) -> SecretStr:
    """Returns a token, or raises an error if it is not valid."""
    if not _TOKEN.fullmatch(token.get_secret_value()):
        raise ConfigError(
            "RH_WEBHOOK_TOKEN is not valid: it must consist of 16 to 200 letters, digits, dashes or underscores. What "
            "to do: unset it before you run `rh-prefect webhook serve`, which then generates and shows a token."
        )
    return token


REMEMBER = 2.0
"""Maximum age in seconds of a cached reading of the journal that shows that a run was not cancelled."""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True)
class Work:
    """One work in progress, with the objects that submit and complete it."""

    request: JobRequest  # The request, with its files by content
    records: JobRecords  # The job's records
    scope: Scope  # The run that the job belongs to
    store: MediaStore  # Where its outputs go
    observer: Observer  # Is notified of every change
    policy: Policy  # The options of the call, and its position in the run
    lease: Lease  # The account that pays, and the job's slot there
    services: PoolServices  # The objects that it shares with other jobs
    spending: SpendTracker  # The costs of its scope
    delivery: ResultDelivery  # Publishes its outputs, and records its result
    callback: Callback | None  # Where RunningHub sends a webhook at the task's end
    pipeline: str  # The pipeline's name, for the records; empty for a call

    @property
    def key(self) -> str:
        """The job's key."""
        return self.records.key

    @property
    def job(self) -> str:
        """The job's full name, as used by `rh-prefect jobs`."""
        return self.records.name

    def intent(self, account: Account) -> Intent:
        """Returns the record to create before a POST."""
        scope = self.scope
        return Intent(
            **self.request.recorded,
            owner=current_owner(),
            account=account.name,
            credentials=account.block,
            storage=self.policy.storage,
            store=self.store.url,
            take=self.policy.take,
            run=scope.run,
            flow=self.pipeline or scope.flow,
            pipeline=self.pipeline,
            submit_timeout=self.services.submit_timeout,
            attempt=scope.attempt,
            webhook=self.callback is not None,
            files=tuple(PurePosixPath(one.record.uri).name for one in self.request.inputs.values()),
            flow_run=self.policy.run,
        )

    @property
    def assumed(self) -> Money | None:
        """The caller's price, for a job whose price neither the catalogue nor RunningHub knows."""
        price = self.policy.assumed_price
        return None if price is None else Money(price, self.request.currency)

    @property
    def costs(self) -> Costs | None:
        """The costs of the work for this run; None if no task has ended."""
        return self.spending.spent_on(self.key)

    @property
    def run_attempt(self) -> RunAttempt:
        """The run that the job belongs to, and its attempt."""
        return self.scope.journal.scope, self.scope.attempt

    async def is_cancelled(self, *, max_age: float = REMEMBER) -> bool:
        """Returns whether the run was cancelled; accepts a cached reading of at most `max_age` seconds."""
        journal, key = self.scope.journal, cancel_key(self.scope.attempt)
        try:
            return not journal.is_absent(key, max_age=max_age) and await journal.read(key) is not None
        except JournalError as error:
            if isinstance(error, UnreadableRecord) and error.key == key:
                return True  # it exists, and what it contains does not matter
            # Before a claim the journal is read again; after a ticket, the task can be cancelled later.
            _log.warning("%s: could not check whether the run was cancelled, so the job continues: %s", self.job, error)
            return False

    def notify(
        self,
        state: JobEventState,
        message: str,
        *,
        task_id: str | None = None,
        is_step: bool = False,
        costs: Costs | None = None,
    ) -> None:
        """Notifies the observer of a change in the work's state."""
        price = self.request.estimate
        event = JobEvent(
            state=state,
            job=self.job,
            model=self.request.model,
            label=self.request.label,
            task_id=task_id,
            message=message,
            is_step=is_step,
            costs=costs or Costs(),
            prompt=self.request.prompt,
            estimate=Costs() if price is None else Costs.of(price, self.request.currency),
        )
        self.observer.notify(event)
