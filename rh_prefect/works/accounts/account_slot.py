"""The account that pays for one job, and the job's slot on that account."""

from __future__ import annotations

from rh_prefect.errors import ApiError, TaskNotFound
from rh_prefect.works.accounts.account import Account, Member
from rh_prefect.works.accounts.limiter import Limiter, Turn, first_free, refresh_counts
from rh_prefect.works.accounts.pool import Exclusions, Pool, describe
from rh_prefect.works.journal.record_types import Answer, Intent


class SlotLease:
    """One job's slot on an account of a pool, chosen as late as possible and released at the end."""

    def __init__(self, pool: Pool, exclusions: Exclusions, *, model: str, job: str, turn: Turn | None = None) -> None:
        """Starts without a slot.

        Args:
            pool: The accounts that may pay.
            exclusions: The accounts that are excluded in this run.
            model: The model or graph of the job.
            job: The job's full name, for messages.
            turn: When it gets a slot among the jobs of its run.
        """
        self._turn = turn
        self._pool = pool
        self._exclusions = exclusions
        self._model = model
        self._job = job
        self._limiter: Limiter | None = None
        self._announced_to: Limiter | None = None
        self._refusals: dict[Member, Answer] = {}
        self._is_submitting = False
        self.member: Member = pool.members[0]

    @property
    def account(self) -> Account:
        """The account that pays; it may change until a slot is taken."""
        return self.member.account

    @property
    def has_slot(self) -> bool:
        """Whether the job holds a slot."""
        return self._limiter is not None

    async def select_account(self) -> None:
        """Selects the account that will probably pay, so that inputs are uploaded while the job waits.

        Raises:
            ApiError: All accounts are excluded.
        """
        if self._pool.is_single or self._limiter is not None or self._announced_to is not None:
            return
        usable = self._usable()
        await refresh_counts(member.account.limiter for member in usable)
        self.member = min(usable, key=lambda member: member.account.limiter.load)
        self._announced_to = self.account.limiter
        self._announced_to.announce()

    async def acquire(self) -> None:
        """Waits until one of the accounts has a free slot, and takes the slot.

        Raises:
            ApiError: All accounts are excluded.
        """
        # A job that is resubmitted after an unknown outcome still has its slot.
        while self._limiter is None:
            members = {member.account.limiter: member for member in self._usable()}
            limiter = await first_free(list(members), preferred=self._announced_to, turn=self._turn)
            self._limiter, self._is_submitting = limiter, True
            self._withdraw()
            self.member = members[limiter]
            if self._refusal(self.member) is not None:
                # The account was excluded while this job waited.
                self.release()

    def submit_finished(self) -> None:
        """Records that the submission was answered, or will not be sent."""
        if self._limiter is not None and self._is_submitting:
            self._is_submitting = False
            self._limiter.submit_finished()

    def release(self, *, full: bool = False) -> None:
        """Releases the slot, if there is one.

        Args:
            full: RunningHub refused the task because no slot was free.
        """
        self._withdraw()
        limiter, self._limiter = self._limiter, None
        if limiter is None:
            return
        limiter.release(full=full)
        # The order matters: a refusal pauses the limiter before the end of this submission admits the next job.
        if self._is_submitting:
            self._is_submitting = False
            limiter.submit_finished()

    async def switch_to(self, intent: Intent) -> Account:
        """Switches to the account on which this job already has a task.

        Args:
            intent: The record of the task's submission.

        Raises:
            ConfigError: The account is not known any more.
        """
        member = await self._pool.accounts.for_intent(intent)
        if member != self.member:
            self.release()
            self.member = member
        return self.account

    def is_account_of(self, intent: Intent) -> bool:
        """Whether the account has the name and the block of a submission's record."""
        return (self.member.name, self.member.block) == (intent.account, intent.credentials)

    def occupy(self) -> None:
        """Counts a task that already runs, without waiting, even if the limit is exceeded."""
        if self._limiter is None:
            self._withdraw()
            self._limiter = self.account.limiter
            self._limiter.occupy()

    def after_refusal(self, refusal: Answer) -> str | None:
        """Excludes the account after an account-specific refusal; call it after `release`.

        Args:
            refusal: The answer to the submission.

        Returns:
            A message for the run's log; empty if the exclusion is not new. None if no other account can be tried: the
            refusal is not account-specific, or there is only one account.

        Raises:
            ApiError: All accounts are excluded.
        """
        scope = None if self._pool.is_single else refusal.account_scope
        if scope is None:
            return None
        refused, is_new = self.member, False
        self._refusals[refused] = refusal
        if scope != "job":
            is_new = self._exclusions.exclude(refused, None if scope == "account" else self._model, refusal)
        others = ", ".join(map(str, self._usable()))
        model = "" if scope == "account" else f" for {self._model}"
        message = (
            f"account {refused} is not used any more in this run{model}: {describe(refusal)}. Nothing was paid; the "
            f"other accounts are still used: {others}"
        )
        return message if is_new else ""

    def query_error(self, intent: Intent, task_id: str, error: ApiError) -> ApiError:
        """Builds the error for a task that the account of its record cannot query.

        Args:
            intent: The record of the task's submission.
            task_id: RunningHub's task id.
            error: The error of the query.
        """
        is_same = self.is_account_of(intent)
        account = self.member if is_same else f"{intent.account_words}, and the key that is set now is of {self.member}"
        key = "" if is_same else " with the key of the account that paid"
        advice = f"Then run again{key}: the run waits for the task and does not pay for it again."
        if isinstance(error, TaskNotFound):
            condition = "" if is_same else " and it is the same account with a renewed key or another name"
            option = "" if is_same else " --same-account"
            advice += (
                f" If it stays lost{condition}: rh-prefect jobs mark-lost {self._job}{option}; the next run pays for a "
                "new task."
            )
        return type(error)(
            f"{self._job}: task {task_id} was paid for on account {account}, which currently cannot "
            f"query it: {error.message} {advice}",
            code=error.code,
            reason=error.reason,
            retry=error.retry,
            advice=error.advice,
        )

    def _usable(self) -> list[Member]:
        """The accounts that are not excluded; a single account always is usable."""
        if self._pool.is_single:
            return list(self._pool.members)
        refusals = {member: self._refusal(member) for member in self._pool.members}
        usable = [member for member, refusal in refusals.items() if refusal is None]
        if not usable:
            known = {member: refusal for member, refusal in refusals.items() if refusal is not None}
            raise self._pool.no_account_error(known, self._model, job=self._job)
        return usable

    def _refusal(self, member: Member) -> Answer | None:
        return self._refusals.get(member) or self._exclusions.refusal(member, self._model)

    def _withdraw(self) -> None:
        limiter, self._announced_to = self._announced_to, None
        if limiter is not None:
            limiter.withdraw()
