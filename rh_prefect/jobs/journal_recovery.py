"""Records again what manifests know of a run whose own records were lost."""

from __future__ import annotations

import asyncio

from rh_prefect.errors import InputError
from rh_prefect.jobs.journal.job_records import JobRecords
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.process import current_owner
from rh_prefect.jobs.journal.records import Answer, End, Intent, Link
from rh_prefect.jobs.outputs.manifest import Manifest, everything
from rh_prefect.jobs.scope_checks import begin_scope
from rh_prefect.media.store import MediaStore


async def recover(journal: Journal, store: MediaStore) -> list[str]:
    """Records the jobs of a scope again of which its store has manifests.

    Args:
        journal: The scope's records.
        store: Where its outputs went.

    Returns:
        The keys of the jobs.

    Raises:
        InputError: The store has no manifest of this scope.
    """
    manifests = [one for one in await asyncio.to_thread(_all, store) if one.job.startswith(f"{journal.scope}/")]
    if not manifests:
        raise InputError(
            f"{store.url} has no manifest of a job of {journal.scope}; nothing was recorded. What to do: name the "
            "MediaStorage block that the run's outputs went to with --storage."
        )
    await begin_scope(journal)
    for manifest in manifests:
        intent, answer, end = _records(manifest, store)
        records = JobRecords(journal, manifest.key)
        await records.intent(1, intent)
        await records.answer(1, answer)
        await records.end(1, end)
    return [manifest.key for manifest in manifests]


def _all(store: MediaStore) -> list[Manifest]:
    return list(everything(store))


def _records(manifest: Manifest, store: MediaStore) -> tuple[Intent, Answer, End]:
    intent = Intent(
        at=manifest.submitted_at,
        owner=current_owner(),
        account=manifest.account,
        site=manifest.site,
        store=store.url,
        model=manifest.model,
        endpoint=manifest.endpoint,
        payload=manifest.payload,
        base=manifest.base,
        address=manifest.address,
        version=manifest.flow_version,
        order=manifest.order,
        label=manifest.label,
        graph=manifest.graph,
    )
    answer = Answer(at=manifest.submitted_at, outcome="ticket", task_id=manifest.task_id)
    end = End(
        at=manifest.ended_at,
        status="SUCCESS",
        task_id=manifest.task_id,
        links=tuple(Link(text=text) for text in manifest.texts),
        cost=manifest.cost,
        currency=manifest.currency,
        coins=manifest.coins,
        queued_seconds=manifest.queued_seconds,
        run_seconds=manifest.run_seconds,
    )
    return intent, answer, end
