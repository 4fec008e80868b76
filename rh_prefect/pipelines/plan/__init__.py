"""The plan of a pipeline: every step of every item with its state and price, before anything is paid."""

from rh_prefect.pipelines.plan.instances import KnownWork, KnownWorks, NoWorks, WorkQuery
from rh_prefect.pipelines.plan.plan import Plan

__all__ = ["KnownWork", "KnownWorks", "NoWorks", "Plan", "WorkQuery"]
