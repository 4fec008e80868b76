"""A job's whole life as one generator: submitted, or found where it may not be submitted, and then completed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.lifecycle import Policy, completing, finding, submitting
from rh_prefect.jobs.lifecycle_step_types import Step


def lifecycle(policy: Policy) -> Generator[Step, Any, Submit | None]:
    accepted = yield from (submitting(policy) if policy.may_submit else finding(policy))
    if accepted is None:
        return None
    end = yield from completing(policy, accepted)
    return replace(accepted.submit, end=end)
