"""The flows of the pipelines in the working folder, by file name: `product_video` reads `product-video.yaml`.

A deployment of a pipeline needs no separate Python file:
`prefect deploy rh_prefect.flows.folder_pipelines.product_video --name nightly --pool media`
"""

from __future__ import annotations

from pathlib import Path

from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.flows.pipeline_run import PipelineFlow

FOLDERS = (".", "pipelines")
ENDINGS = (".yaml", ".yml", ".json")


def __getattr__(name: str) -> PipelineFlow:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = pipeline_files()
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        raise AttributeError(
            f"There is no pipeline {name!r} in {Path.cwd()} or its subfolder pipelines. What to do: use one of these "
            f"names: {there}."
        )
    return pipeline_flow(Pipeline.from_file(found[name]), module=__name__, name=name)


def __dir__() -> list[str]:
    return sorted(pipeline_files())


def pipeline_files() -> dict[str, Path]:
    """Returns the paths of the pipelines in the working folder, by the names of their flows."""
    files = [file for folder in FOLDERS for file in sorted(Path(folder).glob("*")) if file.suffix in ENDINGS]
    files = [file for file in files if not file.name.endswith(".takes.yaml") and file.name != "prefect.yaml"]
    return {file.stem.replace("-", "_"): file for file in reversed(files)}
