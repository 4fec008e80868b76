"""Wrong files and exactly what is said of each: these messages are the product.

In `wrong/` are files that are not read; in `refused/` files whose plan has problems, or has none where one could be
expected. Each of the latter begins with the parameters of its plans.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from tests.support.each_case import each_case

FOLDER = Path(__file__).with_name("wrong")
REFUSED = Path(__file__).with_name("refused")


def said(file: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        Pipeline.from_text(file.read_text(), name=file.name)
    return "".join(f"{problem.head}\n" for problem in caught.value.found)


def said_of_plans(file: Path) -> Iterator[str]:
    text = file.read_text()
    pipeline = Pipeline.from_text(text, name=file.name)
    for line in takewhile(lambda one: one.startswith("# "), text.splitlines()):
        yield f"{line}\n"
        yield from (f"{problem.head}\n" for problem in pipeline.plan_now(json.loads(line[2:])).problems)


def test_every_problem_is_named() -> None:
    with each_case() as case:
        for file in sorted(FOLDER.glob("*.yaml")):
            with case(file.stem):
                assert said(file) == file.with_suffix(".txt").read_text()
        for file in sorted(REFUSED.glob("*.yaml")):
            with case(file.stem):
                assert "".join(said_of_plans(file)) == file.with_suffix(".txt").read_text()


def test_there_are_at_least_a_hundred() -> None:
    assert len([*FOLDER.glob("*.yaml"), *REFUSED.glob("*.yaml")]) >= 100
