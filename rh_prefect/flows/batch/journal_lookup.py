"""What the journal knows of items that are not done: tasks that this run or another one has paid for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rh_prefect.errors import RunningHubError
from rh_prefect.flows.batch.report import Item
from rh_prefect.jobs.journal.budget import SpendTracker
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.jobs.journal.job_records import JobView, jobs_of
from rh_prefect.jobs.journal.journal import Journal


async def filled_in(
    items: Sequence[Item], keys: Callable[[str], Sequence[str]], *, journal: Journal, ledger: SpendTracker
) -> list[Item]:
    """Fills in the tasks and costs of items that are not done; runs on the loop thread.

    A run that breaks off knows little of its rows, and two that do the same batch at once know half of it each.

    Args:
        items: All items.
        keys: Gives the names of a row's jobs, by the row's id, in the order of its steps.
        journal: Where they are recorded.
        ledger: What they have cost.

    Returns:
        All items; as they were where the journal cannot be read.
    """
    if all(item.state == "done" for item in items):
        return list(items)
    wanted = [tuple(keys(item.id)) if item.id and item.state != "done" else () for item in items]
    found: dict[str, JobView] = {}
    missing = {key for some in wanted for key in some}
    try:
        async for view in jobs_of(journal):
            if view.key in missing:
                found[view.key] = view
    except RunningHubError:
        return list(items)
    for view in found.values():
        ledger.take(view)
    views = [[found[key] for key in some if key in found] for some in wanted]
    return [_filled_in(item, some, journal.scope, ledger) if some else item for item, some in zip(items, views)]


def _filled_in(item: Item, views: Sequence[JobView], scope: str, ledger: SpendTracker) -> Item:
    costs = [cost for cost in (ledger.spent_on(view.key) for view in views) if cost is not None]
    tasks = [submit.task_id for view in views for submit in view.submits if submit.task_id]
    more = {
        "costs": Costs.total(costs) if costs else item.costs,
        "tasks": tuple(dict.fromkeys((*item.tasks, *tasks))),
        "jobs": item.jobs or tuple(f"{scope}/{view.key}" for view in views),
    }
    stands = {view.key: view for view in views}.get(item.jobs[-1].rpartition("/")[2]) if item.jobs else views[-1]
    return item.model_copy(update=more | (_how(item, stands) if stands is not None else {}))


def _how(item: Item, view: JobView) -> dict[str, str]:
    """What the record of an item's last step says better than what this run has seen of it."""
    last = view.last
    if last is None:
        return {}
    if item.state == "not started" and last.end is not None and last.end.status == "FAILED":
        return {
            "state": "failed",
            "why": f"task {last.task_id} has failed: {last.end.reason}. Another try was not started: {item.why}",
        }
    if item.state == "not started" and last.state in ("open", "ticket", "ended"):
        return {
            "state": "unfinished",
            "why": "another run of this batch has submitted it meanwhile; run it again to take it over",
        }
    if item.state == "unfinished" and last.state == "ticket" and not item.tasks:
        return {"why": f"task {last.task_id} goes on at RunningHub; run it again to take it over"}
    return {}
