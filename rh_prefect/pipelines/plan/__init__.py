"""The plan of a pipeline: every step of every item with its state and price, before anything is paid."""

from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import KnownWork, KnownWorks, WorkQuery
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan

__all__ = ["KnownWork", "KnownWorks", "Plan", "ReviewedPlan", "WorkQuery"]
