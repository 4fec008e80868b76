"""Rounds. A round is one complete production of a pipeline, by one or more flow runs.

A step with `reuse: never` makes a new result in each run. But if a run ended early, the next run must continue the
round without a second payment. So the id of such a step's work contains the round. A run that has made everything
closes its round, and the next run begins another round. Until then, runs of the same pipeline, deployment and
parameters continue the round. `rounds/<key>/` next to the works contains:

| record                  | written                                    | contains                                  |
|-------------------------|--------------------------------------------|-------------------------------------------|
| `<n>`                   | when round n begins, exclusively           | the flow run                              |
| `<n>-holder-<m>`        | before a run plans in round n, exclusively | the flow run and its process              |
| `<n>-suspended-<m>`     | when that run suspends itself              | for how long: it has no process meanwhile |
| `<n>-left-<m>`          | when that run ends, for any reason         | whether a review is left to be decided    |
| `<n>-closed-1`          | when a run has made everything             | the flow run                              |
| `<n>-<step>-takes`      | when `reuse: 7d` has selected takes by age | the numbers of these takes                |
| `separate-<item>-takes` | when `same: separate` gives an item takes  | the numbers of these takes                |

The journal of each flow run notes its round, so that a retry continues the same round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from rh_prefect.errors import InputError
from rh_prefect.pipelines.plan.planned_steps import Round
from rh_prefect.pipelines.plan.work_identity import recipe_id
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import Owner, Record, current_owner, is_surely_dead, is_visible
from rh_prefect.works.journal.scope import last_number
from rh_prefect.works.journal.works_journal import ROUNDS, HasEnded, no_evidence

COMMAND_LINE = ""
"""The value in place of a deployment's name, outside of deployments."""

ABANDONED_AFTER = timedelta(hours=24)
"""How long after its last sign of life an open round can be continued.

If nothing else is known of its run, the run counts as ended after that time, or at the end of its suspension if later.
"""

_NOTE = "-round-1"
_NEVER = datetime.min.replace(tzinfo=UTC)
_log = logging.getLogger("rh_prefect")

Verdict = Literal["begin", "continue", "abandon", "refuse"]
IsSilent: TypeAlias = Callable[[str, str], Awaitable[bool]]
AliveAt: TypeAlias = Callable[[str], Awaitable[datetime | None]]


async def _not_silent(run: str, key: str) -> bool:  # noqa: ARG001
    return False


async def _no_sign(run: str) -> datetime | None:  # noqa: ARG001
    return None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Begun(Record):
    """The record that a round has begun."""

    flow_run: str  # The flow run that began it


class Holder(Record):
    """The record that a flow run is working on a round."""

    flow_run: str
    owner: Owner  # Its process


class Suspended(Record):
    """The record that a flow run suspends itself."""

    seconds: float  # After which Prefect ends the suspension; then the run has failed


class Left(Record):
    """The record that a flow run no longer works on a round."""

    waits_for_review: bool = False  # Whether a review of the round is left to be decided, which can take days


class Decided(Record):
    """The takes that a round uses for a step whose `reuse` is an age."""

    takes: tuple[int, ...]  # The numbers of the takes


class NotedRound(Record):
    """A flow run's record of its round."""

    n: int  # The number of the round


@dataclass(frozen=True, slots=True)
class RoundState:
    """The state of a round according to its records."""

    n: int = 0  # Its number; 0 if there is none
    began: datetime = _NEVER  # When it began
    begun_by: str = ""  # The flow run that began it
    seen: datetime = _NEVER  # The last sign of life of a run that made it
    is_closed: bool = False  # Whether a run has made everything
    holders: int = 0  # How many times a run has begun to make it
    holder: Holder | None = None  # The last of these runs
    suspended: Suspended | None = None  # If the last run has suspended itself, and has no process
    left: Left | None = None  # How the last run ended; None if it wrote nothing

    @property
    def waits_for_review(self) -> bool:
        """Whether the round waits for a person's choice at a review."""
        return self.left is not None and self.left.waits_for_review

    def verdict(self, *, now: datetime, is_running: bool) -> Verdict:
        """Returns what a run that is neither a retry nor scheduled does; `abandon` also begins another round."""
        if not self.n or self.is_closed:
            return "begin"
        if is_running:
            return "refuse"
        return "abandon" if now - self.seen > ABANDONED_AFTER and not self.waits_for_review else "continue"


class Rounds:
    """The rounds of a pipeline, for one flow run or for a plan; a plan writes nothing."""

    def __init__(
        self,
        records: Journal,
        *,
        deployment: str,
        run: Journal | None = None,
        is_scheduled: bool = False,
        has_ended: HasEnded = no_evidence,
        is_silent: IsSilent = _not_silent,
        alive_at: AliveAt = _no_sign,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._records = records
        self._run, self._deployment = run, deployment
        self._is_scheduled, self._has_ended, self._is_silent = is_scheduled, has_ended, is_silent
        self._round: Round | None = None
        self._number: int
        self._opening = asyncio.Lock()  # the steps of a run that ask at once have one round
        self._alive_at, self._now = alive_at, now

    async def round(self, pipeline: str) -> Round:
        """Returns the round of this run, and begins it if necessary; for a plan, returns the expected round."""
        async with self._opening:
            if self._round is None:
                key = recipe_id(ROUNDS, {"pipeline": pipeline, "deployment": self._deployment})
                self._round = await (self._expected(key) if self._run is None else self._open(key, self._run))
            return self._round

    async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
        """Returns the takes that a round uses for a step: those recorded first, else `new`, which a run records."""
        key = f"{choice}-takes"
        if new and (self._run is None or await self._create(key, Decided(takes=tuple(new)))):
            return new
        noted = await self._records.read_as(key, Decided)
        return new if noted is None else noted.takes

    async def leave(self, *, is_complete: bool, waits_for_review: bool = False) -> None:
        """Records that this run no longer works on its round; closes the round if `is_complete`."""
        if self._run is None or self._round is None:
            return
        if is_complete:
            await self._create(f"{self._round.scope}-closed-1", Begun(flow_run=self._run.scope))
        await self._create(f"{self._round.scope}-left-{self._number}", Left(waits_for_review=waits_for_review))
        self._round = None

    async def suspend(self, *, seconds: float) -> None:
        """Reserves the round for this run while the run is suspended, for at most `seconds`."""
        if self._run is None or self._round is None:
            return
        await self._create(f"{self._round.scope}-suspended-{self._number}", Suspended(seconds=seconds))
        self._round = None

    # -- choosing ------------------------------------------------------------------------------------------------------

    async def _open(self, key: str, run: Journal) -> Round:
        """Returns the round of a flow run, and records that the run works on it."""
        note = f"{key}{_NOTE}"
        while True:
            # In each pass, because an equal call of this run may begin or note a round at the same time.
            own = await self._noted(run, note)
            state = await (self.newest(key) if own is None else self.read(key, own))
            now = self._now()
            verdict: Verdict = "continue"
            is_own = own is not None or state.begun_by == run.scope
            if not is_own and self._is_scheduled:
                # Each run of a schedule begins a round, so that runs that overlap do not wait for each other.
                verdict = "begin"
            elif not is_own:
                verdict = state.verdict(now=now, is_running=await self._is_running(key, state, now))
            if verdict == "refuse" and state.holder is not None:
                raise _refused(state.holder.flow_run)
            if verdict == "continue":
                chosen = state
            elif await self._create(f"{key}-{state.n + 1}", Begun(flow_run=run.scope)):
                chosen = RoundState(n=state.n + 1, began=now)
            else:
                continue  # another run was first
            holder = Holder(flow_run=run.scope, owner=current_owner())
            if not await self._create(f"{key}-{chosen.n}-holder-{chosen.holders + 1}", holder):
                continue
            is_noted = own is not None or await run.create(note, NotedRound(n=chosen.n).model_dump(mode="json"))
            if is_noted or await self._noted(run, note) == chosen.n:
                break
        self._number = chosen.holders + 1
        text = _note(verdict, state)
        if text:
            _log.info("%s", text)
        return Round(f"{key}-{chosen.n}", chosen.began, text)

    @staticmethod
    async def _noted(run: Journal, note: str) -> int | None:
        """Returns the number of the round that a flow run has noted; None if it has noted none."""
        noted = await run.read_as(note, NotedRound)
        return None if noted is None else noted.n

    async def _expected(self, key: str) -> Round:
        """Returns the round of a run that would start now."""
        state, now = await self.newest(key), self._now()
        verdict = state.verdict(now=now, is_running=await self._is_running(key, state, now))
        # A plan cannot see whether a silent run has ended. If it has, after a day, the next run begins another round.
        if verdict == "continue" or (verdict == "refuse" and now - state.seen <= ABANDONED_AFTER):
            return Round(f"{key}-{state.n}", state.began, _note(verdict, state))
        return Round(f"{key}-{state.n + 1}", now, _note(verdict, state))

    async def _is_running(self, key: str, state: RoundState, now: datetime) -> bool:
        """Returns whether another flow run may still be working on a round."""
        holder, suspended = state.holder, state.suspended
        if holder is None or state.left is not None or (suspended is None and is_surely_dead(holder.owner)):
            return False
        if self._run is not None and holder.flow_run == self._run.scope:
            return False
        is_over = await self._has_ended(holder.flow_run)
        if is_over is not None:
            return not is_over
        limit = ABANDONED_AFTER
        if suspended is not None:
            limit = max(limit, timedelta(seconds=suspended.seconds))
        elif await self._is_silent(holder.flow_run, f"{key}-{state.n}-holder-{state.holders}"):
            return False
        elif is_visible(holder.owner):
            return True  # its process exists
        # Prefect may have lost the run, and a storage may have no modification times: the round would never be free.
        return now - state.seen <= limit

    # -- records -------------------------------------------------------------------------------------------------------

    async def newest(self, key: str) -> RoundState:
        """Reads the newest round of a key; the number of reads is logarithmic."""
        n = await last_number(lambda number: self._exists(f"{key}-{number}"))
        return await self.read(key, n) if n else RoundState()

    async def read(self, key: str, n: int) -> RoundState:
        """Reads the records of round `n`."""
        scope = f"{key}-{n}"
        holders = await last_number(lambda number: self._exists(f"{scope}-holder-{number}"))
        begun, holder, suspended, left, is_closed = await asyncio.gather(
            self._records.read_as(scope, Begun),
            self._records.read_as(f"{scope}-holder-{holders}", Holder),
            self._records.read_as(f"{scope}-suspended-{holders}", Suspended),
            self._records.read_as(f"{scope}-left-{holders}", Left),
            self._exists(f"{scope}-closed-1"),
        )
        alive = await self._alive_at(holder.flow_run) if holder is not None and left is None else None
        times = [datetime.fromisoformat(one.at) for one in (begun, holder, suspended, left) if one is not None]
        times += [alive] if alive is not None else []
        return RoundState(
            n=n,
            began=times[0] if begun is not None else self._now(),
            begun_by="" if begun is None else begun.flow_run,
            seen=max(times, default=self._now()),
            is_closed=is_closed,
            holders=holders,
            holder=holder,
            suspended=suspended,
            left=left,
        )

    async def _exists(self, key: str) -> bool:
        return await self._records.read(key) is not None

    async def _create(self, key: str, record: Record) -> bool:
        at = self._now().isoformat(timespec="milliseconds")
        return await self._records.create(key, {**record.model_dump(mode="json"), "at": at})


async def leave_rounds(run: Journal, records: Journal) -> None:
    """Records that a cancelled run no longer works on its rounds, so that the next run does not wait for it."""
    rounds = Rounds(records, deployment=COMMAND_LINE)  # only reads by key, which contains the real deployment
    for note in [name async for name in run.names() if name.endswith(_NOTE)]:
        if (noted := await run.read_as(note, NotedRound)) is None:
            continue
        key, n = note.removesuffix(_NOTE), noted.n
        state = await rounds.read(key, n)
        if state.holder is not None and state.holder.flow_run == run.scope and state.left is None:
            await records.create(f"{key}-{n}-left-{state.holders}", Left().model_dump(mode="json"))


def _note(verdict: Verdict, state: RoundState) -> str:
    began = f"the round that began {state.began:%d %b %H:%M} UTC"
    match verdict:
        case "continue" if not state.is_closed:
            return f"{began} is not complete and is continued: its results are used"
        case "abandon":
            return f"{began} was not complete and was not continued for 24 hours: its results are not used"
        case "refuse" if state.holder is not None:
            run = state.holder.flow_run
            return f"{began} is being made by run {run}: no other run can start before that run has ended"
    return ""


def _refused(run: str) -> InputError:
    return InputError(
        f"Run {run} is still making results of the same round: it runs this pipeline with the same parameters, and "
        "some steps have `reuse: never` or an age. Nothing was paid. What to do: wait until that run has ended, or "
        f"cancel it with rh-prefect jobs cancel {run}; then run again: the new run uses the results that exist."
    )
