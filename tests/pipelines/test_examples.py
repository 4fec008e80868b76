"""Every pipeline of the documentation and of the package: planned, and as the schema says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from rh_prefect.pipelines.check.checked_file import SHIPPED
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.schema import models_in, schema
from rh_prefect.pipelines.yaml_reader import read
from tests.support import pipeline_pages
from tests.support.doc_pages import ROOT, TEXTS, blocks
from tests.support.samples.pipeline_assets import some

PLAN_SCHEMA = json.loads((SHIPPED.parent / "plan" / "schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TEXTS)
async def test_an_example_is_planned(name: str, tmp_path: Path) -> None:
    pipeline = Pipeline.from_text(TEXTS[name], name=name)
    plan = await pipeline.plan({key: some(key, param, tmp_path) for key, param in pipeline.file.params.items()})
    assert [problem.head for problem in plan.problems] == []
    assert plan.table()
    assert plan.markdown()
    assert plan.svg()
    jsonschema.Draft202012Validator(PLAN_SCHEMA).validate(json.loads(plan.to_json()))
    assert plan.price.least <= plan.price.expected <= plan.price.most


@pytest.mark.parametrize("name", TEXTS)
def test_an_example_is_as_the_editor_s_schema_says(name: str) -> None:
    data = read(TEXTS[name], name).data
    jsonschema.Draft202012Validator(schema(models_in(data))).validate(data)


def test_the_schema_knows_models_parameters_and_keys() -> None:
    validator = jsonschema.Draft202012Validator(schema(["z-image/turbo"]))
    wrong = [
        {"model": "z-image/turbot", "with": {"prompt": "x"}},
        {"model": "z-image/turbo", "with": {"promt": "x"}},
        {"model": "z-image/turbo", "with": {"prompt": "x", "aspect_ratio": "5:4"}},
        {"modle": "z-image/turbo"},
        {"edit": "resize", "with": {"hight": 5}},
        {"edit": "resize", "takes": 2},
        {"model": "z-image/turbo", "edit": "resize"},
        {"workflow": 1, "from": "$(x)"},
        {"steps": {}, "id": "$(item)"},
        {"with": {"prompt": "x"}},
    ]
    assert [validator.is_valid({"steps": {"a": step}}) for step in wrong] == [False] * len(wrong)
    picture = {"model": "z-image/turbo", "with": {"prompt": "x", "aspectRatio": "1:1"}}
    params = {"photos": "files", "title": "string"}
    assert validator.is_valid({"budget": "unlimited", "params": params, "steps": {"a": picture}})


def test_every_yaml_block_is_planned() -> None:
    """Files of Prefect and of CI, and the recipes, are no pipelines. The blocks of docs/pipelines/ are generated."""
    for page in [ROOT / "README.md", *{*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "recipes.md"}]:
        for code in blocks(page, "yaml"):
            is_other = re.match(r"(automations|deployments|on|price):", code)
            assert is_other or code in TEXTS.values(), f"{page.name}: {code[:80]}"


def test_every_shipped_pipeline_has_a_page() -> None:
    assert {file.stem for file in (ROOT / "docs" / "pipelines").glob("*.md")} == set(pipeline_pages.SHIPPED)
