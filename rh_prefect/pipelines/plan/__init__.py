"""Plans of pipelines: the state and the price of each step of each item."""

from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import KnownWork, KnownWorks, WorkQuery
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan

__all__ = ["KnownWork", "KnownWorks", "Plan", "ReviewedPlan", "WorkQuery"]
