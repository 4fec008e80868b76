"""Restarts deployed runs that have crashed, if Prefect's automations have missed these runs.

If Prefect's server restarts, its automations forget the runs that they monitor, and an automation for missing
heartbeats needs a first heartbeat. So a scheduled flow also checks the runs, with the limits that the automations set.
If an automation is absent or paused, its runs are not changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.events.filters import EventFilter, EventOccurredFilter, EventResourceFilter
from prefect.events.schemas.automations import EventTrigger
from prefect.settings import get_current_settings
from prefect.states import Crashed, Failed

from rh_prefect.flow_runs.run_queries_and_scopes import find_flow_runs
from rh_prefect.prefect_api import ask
from rh_prefect.prefect_internals import awaiting_retry

RUN_AGAIN: Final = "Run a crashed run again"
MARK_CRASHED: Final = "Mark runs without heartbeats as crashed"
"""The names of the two automations in deployments/automations.yaml whose work this module completes."""

MARGIN: Final = timedelta(minutes=1)
"""Additional time before a reconciliation acts in place of an automation, so that they do not both act."""

_TAG: Final = "prefect.tag."
_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
_MISSED_HEARTBEATS: Final = 3
_NEWEST_EVENTS: Final = 50


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of an automation: the tags of its runs, its waiting time, and the last attempt on which it acts."""

    tags: list[str]  # The tags, all of which a run must have
    within: timedelta  # How long the automation waits
    attempts: int = 0  # After how many attempts the automation still acts; 0 for any number


@dataclass(frozen=True, slots=True)
class StoppedRun:
    """A run that was scheduled again, or marked as crashed or failed; `done` names the action and its reason."""

    flow_run_id: UUID
    name: str
    done: str


async def revive_stopped(*, hours: float = 24.0, now: datetime | None = None) -> list[StoppedRun]:
    """Marks runs without heartbeats as crashed, and reschedules runs that crashed in the last `hours`; returns all.

    Runs that crash too often before they start are marked as failed.
    """
    now = now or datetime.now(UTC)
    lost, crashed = await _rule(MARK_CRASHED), await _rule(RUN_AGAIN)
    done = [] if lost is None else [one async for one in _mark_crashed(lost, now)]
    if crashed is not None:
        done += [one async for one in _give_up(crashed, now, now - timedelta(hours=hours))]
        done += [one async for one in _run_again(crashed, now, now - timedelta(hours=hours))]
    return done


async def _rule(name: str) -> Rule | None:
    for automation in await ask(lambda api: api.read_automations_by_name(name)):
        trigger = automation.trigger
        if not automation.enabled or not isinstance(trigger, EventTrigger):
            continue
        related = trigger.match_related if isinstance(trigger.match_related, list) else [trigger.match_related]
        tags = [label for one in related for label in one.get("prefect.resource.id") or () if label.startswith(_TAG)]
        counts = [int(count) for count in trigger.match.get("prefect.run-count") or () if count.isdecimal()]
        return Rule([tag.removeprefix(_TAG) for tag in tags], trigger.within, max(counts, default=0))
    return None


async def _mark_crashed(rule: Rule, now: datetime) -> AsyncIterator[StoppedRun]:
    heartbeat = get_current_settings().flows.heartbeat_frequency
    silence = max(rule.within, timedelta(seconds=_MISSED_HEARTBEATS * (heartbeat or 0))) + MARGIN
    # If runs send no heartbeats, the absence of heartbeats says nothing.
    types = [StateType.PENDING, *([StateType.RUNNING] if heartbeat else [])]
    async for flow_run, state in _deployed(rule, types):
        if state.timestamp > now - silence:
            continue
        if state.is_running() and not await _is_silent(flow_run.id, since=now - silence, until=now):
            continue
        minutes = int((now - state.timestamp).total_seconds() // 60)
        message = f"No sign of life: the run was {state.name} for {minutes} minutes."
        if await _set_state(flow_run, state, Crashed(message=message)):
            yield StoppedRun(flow_run.id, flow_run.name, f"was {state.name} without a sign of life: marked as crashed")


async def _is_silent(flow_run_id: UUID, *, since: datetime, until: datetime) -> bool:
    """Returns whether a run sent no heartbeat; False if no event of the run is stored, because that proves nothing."""

    async def names(since: datetime) -> list[str]:
        found = EventFilter(
            occurred=EventOccurredFilter(since=since, until=until),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{flow_run_id}"]),
        )
        page = await ask(lambda api: api.read_events(found, limit=_NEWEST_EVENTS))
        return [event.event for event in page.events]

    return _HEARTBEAT not in await names(since) and bool(await names(until - timedelta(days=7)))


async def _run_again(rule: Rule, now: datetime, since: datetime) -> AsyncIterator[StoppedRun]:
    async for flow_run, state in _deployed(rule, [StateType.CRASHED], since=since):
        if state.timestamp > now - rule.within - MARGIN:
            continue
        attempts = max(flow_run.run_count, await _crashes(flow_run.id))
        if rule.attempts and attempts > rule.attempts:
            continue
        again = awaiting_retry()
        again.message = "The run crashed; the next attempt waits for the tasks that were already paid for."
        if await _set_state(flow_run, state, again):
            yield StoppedRun(flow_run.id, flow_run.name, f"had crashed in attempt {attempts}: scheduled again")


async def _give_up(rule: Rule, now: datetime, since: datetime) -> AsyncIterator[StoppedRun]:
    """Marks runs as failed that crash repeatedly before they start, because their infrastructure does not start.

    Prefect does not count such a start as an attempt, so that the automation would schedule these runs without end.
    """
    crashed = _deployed(rule, [StateType.CRASHED], since=since)
    scheduled = _deployed(rule, [StateType.SCHEDULED], name=awaiting_retry().name)
    for found in (crashed, scheduled) if rule.attempts else ():
        async for flow_run, state in found:
            # A person may just have retried the run.
            if state.is_scheduled() and state.timestamp > now - rule.within - MARGIN:
                continue
            if flow_run.run_count > rule.attempts or (crashes := await _crashes(flow_run.id)) <= rule.attempts:
                continue
            message = (
                f"The run crashed {crashes} times, at least once before it started. Retry it when its workers can "
                "start it."
            )
            if await _set_state(flow_run, state, Failed(message=message)):
                yield StoppedRun(flow_run.id, flow_run.name, f"had crashed {crashes} times: marked as failed")


async def _crashes(flow_run_id: UUID) -> int:
    """Returns how many times a run has crashed since it last ended in another way; a person has retried it since then.

    Crashes before a start of the run are included.
    """
    states = await ask(lambda api: api.read_flow_run_states(flow_run_id))
    ends = [state for state in states if state.is_final()]
    return len(list(takewhile(State.is_crashed, reversed(ends))))


async def _deployed(
    rule: Rule, types: list[StateType], *, name: str | None = None, since: datetime | None = None
) -> AsyncIterator[tuple[FlowRun, State]]:
    """Yields the deployments' runs to which a rule applies, with their states; only such runs can be rescheduled."""
    # Read to the end first: a changed state shifts the pages.
    found = [one async for one in find_flow_runs(types, name=name, tags=rule.tags, ended_after=since)]
    for flow_run in found:
        if flow_run.state is not None and flow_run.deployment_id is not None:
            yield flow_run, flow_run.state


async def _set_state(flow_run: FlowRun, expected: State, state: State) -> bool:
    """Sets a run's state if the present state is the expected one; returns whether Prefect has set the state."""
    current = await ask(lambda api: api.read_flow_run(flow_run.id))
    if current.state is None or current.state.id != expected.id:
        return False
    answer = await ask(lambda api: api.set_flow_run_state(flow_run.id, state))
    return answer.status is SetStateStatus.ACCEPT
