"""The account that pays for one job, and the job's slot on that account."""

from __future__ import annotations

from rh_prefect.errors import ApiError, TaskNotFound
from rh_prefect.jobs.accounts.account import Account, Member
from rh_prefect.jobs.accounts.limiter import Limiter, counted, first_free
from rh_prefect.jobs.accounts.pool import Exclusions, Pool, account_specific, refusal
from rh_prefect.jobs.journal.record_types import Answer, Intent


class SlotLease:
    """One job's slot on an account of a pool, chosen as late as possible and released at the end."""

    def __init__(self, pool: Pool, standing: Exclusions, *, model: str, job: str) -> None:
        """Starts with no slot.

        Args:
            pool: The accounts that may pay.
            standing: Which of them are left out in this run.
            model: What is asked for.
            job: The job's full name, for messages.
        """
        self._pool = pool
        self._standing = standing
        self._model = model
        self._job = job
        self._slots: Limiter | None = None
        self._home: Limiter | None = None
        self._refused: dict[Member, Answer] = {}
        self._is_on_its_way = False
        self.member: Member = pool.members[0]

    @property
    def account(self) -> Account:
        """The account that pays; it may still change until a slot is taken."""
        return self.member.account

    @property
    def is_taken(self) -> bool:
        """Whether it holds a slot."""
        return self._slots is not None

    async def expect(self) -> None:
        """Selects the account that will probably pay, so that inputs are uploaded while the job waits.

        Raises:
            ApiError: No account is left.
        """
        if self._pool.is_one or self.is_taken or self._home is not None:
            return
        able = self._able()
        await counted(one.account.limiter for one in able)
        self.member = min(able, key=lambda one: one.account.limiter.load)
        self._home = self.account.limiter
        self._home.expect()

    async def take(self) -> None:
        """Waits until one of the accounts may take one more task, and takes the slot there.

        Raises:
            ApiError: No account is left.
        """
        # One that was answered with "unknown" and is resubmitted has its slot still.
        while self._slots is None:
            able = {one.account.limiter: one for one in self._able()}
            slots = await first_free(list(able), home=self._home)
            self._slots, self._is_on_its_way = slots, True
            self._leave_home()
            self.member = able[slots]
            if self._why_not(self.member) is not None:
                # It was left out while this job stood in line.
                self.free()

    def arrived(self) -> None:
        """Records that the submission was answered, or will not be sent."""
        if self._slots is not None and self._is_on_its_way:
            self._is_on_its_way = False
            self._slots.posted()

    def free(self, *, full: bool = False) -> None:
        """Gives the slot back, if there is one.

        Args:
            full: RunningHub refused for want of one.
        """
        self._leave_home()
        slots, self._slots = self._slots, None
        if slots is None:
            return
        slots.release(full=full)
        # Only now: a refusal closes the door before the next ones go out.
        if self._is_on_its_way:
            self._is_on_its_way = False
            slots.posted()

    async def paid_on(self, intent: Intent) -> Account:
        """Switches to the account on which this job already has a task.

        Args:
            intent: The record of its submit.

        Raises:
            ConfigError: The account is not known any more.
        """
        member = await self._pool.accounts.for_intent(intent)
        if member != self.member:
            self.free()
            self.member = member
        return self.account

    def hold(self) -> None:
        """Counts a task that already runs, without waiting, even if the limit is exceeded."""
        if self._slots is None:
            self._leave_home()
            self._slots = self.account.limiter
            self._slots.hold()

    def move_on(self, why: Answer) -> str | None:
        """Finds another account after one rejected the job; call it when the slot is free again.

        Args:
            why: The refusal.

        Returns:
            What the run's log should say, once; empty where it was said. None where there is nothing to try: the
            refusal is about the request, or the account stands alone.

        Raises:
            ApiError: No account is left.
        """
        trouble = None if self._pool.is_one else account_specific(why)
        if trouble is None:
            return None
        refused, is_news = self.member, False
        self._refused[refused] = why
        if trouble != "job":
            is_news = self._standing.leave_out(refused, None if trouble == "account" else self._model, why)
        others = ", ".join(map(str, self._able()))
        what = "" if trouble == "account" else f" for {self._model}"
        news = (
            f"account {refused} is not used any more in this run{what}: {refusal(why)}. Nothing was paid; the "
            "other accounts are still used: "
        )
        return news + others if is_news else ""

    def unreported(self, task_id: str, error: ApiError) -> ApiError:
        """Builds the error for a task whose account cannot be queried.

        Args:
            task_id: RunningHub's task id.
            error: Why not.
        """
        advice = "Then run again: the run waits for the task and does not pay for it again."
        if isinstance(error, TaskNotFound):
            advice += f" If it stays lost: rh-prefect jobs mark-lost {self._job}; the next run pays for a new task."
        return type(error)(
            f"{self._job}: task {task_id} was paid for on account {self.member}, which currently cannot "
            f"query it: {error.message} {advice}",
            code=error.code,
            reason=error.reason,
            retry=error.retry,
            advice=error.advice,
        )

    def _able(self) -> list[Member]:
        """The accounts that may be asked; the one that stands alone always may."""
        if self._pool.is_one:
            return list(self._pool.members)
        whys = {one: self._why_not(one) for one in self._pool.members}
        able = [one for one, why in whys.items() if why is None]
        if not able:
            known = {one: why for one, why in whys.items() if why is not None}
            raise self._pool.exhausted(known, self._model, job=self._job)
        return able

    def _why_not(self, member: Member) -> Answer | None:
        return self._refused.get(member) or self._standing.why(member, self._model)

    def _leave_home(self) -> None:
        home, self._home = self._home, None
        if home is not None:
            home.expect_no_more()
