"""One flow for each YAML pipeline in `pipelines/shipped`, built on access, as in `rh_prefect.flows.shipped.film`."""

from __future__ import annotations

from rh_prefect.flows.pipeline import Pipeline, PipelineFlow, pipeline_flow
from rh_prefect.pipelines.check import SHIPPED


def __getattr__(name: str) -> PipelineFlow:
    if name not in __dir__():
        raise AttributeError(f"module {__name__!r} has no flow {name!r}; there are {', '.join(__dir__())}")
    file = SHIPPED / f"{name.replace('_', '-')}.yaml"
    return pipeline_flow(Pipeline.from_file(file), module=__name__, name=name)


def __dir__() -> list[str]:
    return sorted(file.stem.replace("-", "_") for file in SHIPPED.glob("*.yaml"))
