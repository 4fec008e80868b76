"""Wrong files and exactly what is said of each: these messages are the product.

A case of `wrong_files.txt` is a file that is not read, one of `refused_files.txt` a file whose plan has problems, or
has none where some are expected. Lines with `?` have the parameters of a plan, lines with `>` the problems in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from rh_prefect.pipelines.parsed_document import PipelineError, Problem
from rh_prefect.pipelines.pipeline import Pipeline
from tests.support.each_case import each_case

PARAMS = (
    "params: {photo: image, photos: {type: files, of: image}, words: string, ask: {type: boolean, default: false}, "
    "size: {enum: [720p, 1080p], optional: true}, "
    "rows: {type: table, columns: {title: string, photo: {type: image, optional: true}}}}"
)
"""The line `@params` of a case."""


def cases(name: str) -> Iterator[tuple[str, str, list[str]]]:
    """The name of each case, its file, and what is said of it."""
    for case in Path(__file__).with_name(name).read_text().split("=== ")[1:]:
        title, *lines = case.rstrip("\n").split("\n")
        told = [line for line in lines if line.startswith(("> ", "? "))]
        text = "".join(f"{line}\n" for line in lines[: len(lines) - len(told)])
        yield title, text.replace("@params\n", f"{PARAMS}\n"), told


def said(problems: Iterable[Problem]) -> list[str]:
    return [f"> {one.line}:{one.column}: {one.message}" for one in problems]


def test_every_problem_is_named() -> None:
    with each_case() as case:
        for name, text, told in cases("wrong_files.txt"):
            with case(name):
                with pytest.raises(PipelineError) as caught:
                    Pipeline.from_text(text)
                assert said(caught.value.found) == told
        for name, text, told in cases("refused_files.txt"):
            with case(name):
                plans = [line for line in told if line.startswith("? ")]
                found = [(line, Pipeline.from_text(text).plan_now(json.loads(line[2:])).problems) for line in plans]
                assert [one for line, problems in found for one in (line, *said(problems))] == told


def test_there_are_at_least_a_hundred() -> None:
    assert sum(1 for name in ("wrong_files.txt", "refused_files.txt") for _ in cases(name)) >= 100
