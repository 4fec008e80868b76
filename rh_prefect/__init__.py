"""Paid media jobs on RunningHub as Prefect tasks and flows; no job is paid for twice.

    from rh_prefect import flow, generate, models

    @flow
    async def lighthouse() -> None:
        photo = await generate(models.ZImageTurbo(prompt="a lighthouse at dawn"))
        await generate(models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5"))

All public names are imported on first use: `import rh_prefect` loads neither Prefect nor the catalogue.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_prefect import models as models
    from rh_prefect.blocks import MediaStorage as MediaStorage
    from rh_prefect.blocks import RunningHubCredentials as RunningHubCredentials
    from rh_prefect.blocks import RunningHubPool as RunningHubPool
    from rh_prefect.flow_runs.flow import flow as flow
    from rh_prefect.flow_runs.resume_or_rerun import resume as resume
    from rh_prefect.flows.batch.run import batch as batch
    from rh_prefect.flows.pipeline import Pipeline as Pipeline
    from rh_prefect.job_blocks import RunningHubApp as RunningHubApp
    from rh_prefect.job_blocks import RunningHubJobRun as RunningHubJobRun
    from rh_prefect.job_blocks import RunningHubModel as RunningHubModel
    from rh_prefect.job_blocks import RunningHubWorkflow as RunningHubWorkflow
    from rh_prefect.media.media import Media as Media
    from rh_prefect.media.store import MediaStore as MediaStore
    from rh_prefect.models import estimate as estimate
    from rh_prefect.tasks.generate import generate as generate
    from rh_prefect.tasks.generate_many import generate_many as generate_many
    from rh_prefect.works.result import Face as Face
    from rh_prefect.works.result import Result as Result

_HOMES = {
    "Face": "rh_prefect.works.result",
    "Media": "rh_prefect.media.media",
    "MediaStorage": "rh_prefect.blocks",
    "MediaStore": "rh_prefect.media.store",
    "Pipeline": "rh_prefect.flows.pipeline",
    "Result": "rh_prefect.works.result",
    "RunningHubApp": "rh_prefect.job_blocks",
    "RunningHubCredentials": "rh_prefect.blocks",
    "RunningHubJobRun": "rh_prefect.job_blocks",
    "RunningHubModel": "rh_prefect.job_blocks",
    "RunningHubPool": "rh_prefect.blocks",
    "RunningHubWorkflow": "rh_prefect.job_blocks",
    "batch": "rh_prefect.flows.batch.run",
    "estimate": "rh_prefect.models",
    "flow": "rh_prefect.flow_runs.flow",
    "generate": "rh_prefect.tasks.generate",
    "generate_many": "rh_prefect.tasks.generate_many",
    "resume": "rh_prefect.flow_runs.resume_or_rerun",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and would take any name for known otherwise
    __all__ = sorted([*_HOMES, "models"])

    def __getattr__(name: str) -> Any:
        if name == "models":
            return import_module("rh_prefect.models")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return __all__
