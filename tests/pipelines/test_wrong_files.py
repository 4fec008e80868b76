"""Wrong files and exactly what is said of each: these messages are the product."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from tests.support.each_case import each_case
from tests.support.samples.pipeline_values import LOADERS

FOLDER = Path(__file__).with_name("wrong")


def said(file: Path, loader: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        Pipeline.from_text(file.read_text(), name=file.name, loader=loader)
    return "".join(f"{problem}\n" for problem in caught.value.found)


def test_every_problem_is_named() -> None:
    with each_case() as case:
        for file, loader in product(sorted(FOLDER.glob("*.yaml")), LOADERS):
            with case(f"{file.stem}, {loader.__name__}"):
                assert said(file, loader) == file.with_suffix(".txt").read_text()


def test_there_are_at_least_forty() -> None:
    assert len(list(FOLDER.glob("*.yaml"))) >= 40
