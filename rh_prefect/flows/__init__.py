"""The flows of this package: one for each shipped pipeline, as in `await film(prompt="a lighthouse")`, and others.

The flow of a pipeline is built on access. Each run makes new results, unless the option `reuse` is `always`; a run that
stopped early is continued.
"""

from __future__ import annotations

from functools import cache

from rh_prefect.flows.batch import batch
from rh_prefect.flows.model_flows import any_model, for_model
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.flows.pipeline_run import PipelineFlow
from rh_prefect.flows.reconcile import reconcile
from rh_prefect.flows.spend import spend
from rh_prefect.pipelines.pipeline import shipped_names

__all__ = ["any_model", "batch", "for_model", "reconcile", "spend"]


def __getattr__(name: str) -> PipelineFlow:
    if name not in _pipelines():
        raise AttributeError(f"module {__name__!r} has no flow {name!r}; its flows are {', '.join(__dir__())}")
    return _flow(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_pipelines()])


def _pipelines() -> dict[str, str]:
    """Returns the names of the shipped pipelines, by the names of their flows."""
    return {one.replace("-", "_"): one for one in shipped_names()}


@cache
def _flow(name: str) -> PipelineFlow:
    return pipeline_flow(Pipeline.shipped(_pipelines()[name]), module=__name__, name=name, reuse="never")
