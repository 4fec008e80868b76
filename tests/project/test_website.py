"""The site: its pages and examples are true; the recipes are well formed. `make docs` builds it in the second stage."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import pytest
import yaml

from rh_prefect import catalog, models
from rh_prefect.catalog.descriptions import example
from rh_prefect.cli import app
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.settings import Settings
from tests.support.doc_pages import ROOT, blocks
from tests.support.each_case import each_case
from website import pages
from website.build import source_pages
from website.models import as_python, as_yaml, data

RECIPES = ROOT / "docs" / "recipes.md"


def test_every_page_is_in_the_navigation_and_in_the_index() -> None:
    nav = json.dumps(tomllib.loads((ROOT / "website" / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    found = source_pages({})
    assert set(re.findall(r'"([\w/-]+\.md)"', nav)) == {name for name, _ in found}
    index = pages.index_of(found)
    assert [name for name, _ in found if f"]({name}): " not in index] == []


def test_every_command_and_public_name_has_its_place() -> None:
    found = dict(source_pages({}))
    assert "## jobs adopt" in found["cli.md"] and "`--budget" in found["cli.md"]
    assert "::: rh_prefect.tasks.generate.generate" in found["api/rh_prefect.md"]


@pytest.mark.long
def test_the_examples_of_all_models_are_valid() -> None:
    """Their links are not opened: a check of the file and of the input reads nothing."""
    names = {"models": models}
    with each_case() as case:
        for model in catalog.models():
            with case(model.name):
                values = example(model)
                Pipeline.from_text(as_yaml(model, values))
                eval(as_python(model, values).removeprefix("result = await generate"), names)


def test_the_data_of_the_models_has_each_of_them() -> None:
    shown = json.loads(data().removeprefix("window.RH_MODELS = ").rstrip(";\n"))
    assert {one["name"] for one in shown} == {model.name for model in catalog.models()}
    assert all(one["price"] and one["yaml"] and one["inputs"] is not None for one in shown)


def test_the_recipes_are_well_formed() -> None:
    docker, (cluster, github, gitlab) = blocks(RECIPES, "dockerfile")[0], blocks(RECIPES, "yaml")
    instructions = [line.split()[0] for line in docker.splitlines() if line and not line.startswith(" ")]
    assert instructions[0] == "FROM" and "USER" in instructions
    known = "FROM WORKDIR COPY RUN USER ENV VOLUME ENTRYPOINT CMD"
    assert set(instructions) <= set(known.split())
    secret, worker = yaml.safe_load_all(cluster)
    pod = worker["spec"]["template"]
    assert worker["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    volumes = {one["metadata"]["name"] for one in worker["spec"]["volumeClaimTemplates"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    named = {*re.findall(r"\bRH_\w+", RECIPES.read_text(encoding="utf-8"))}
    assert named <= {f"RH_{name.upper()}" for name in Settings.model_fields}
    steps = [step["run"] for step in yaml.safe_load(github)["jobs"]["price"]["steps"] if "run" in step]
    for line in (*steps, *yaml.safe_load(gitlab)["price"]["script"], shlex.join(container["command"])):
        command = shlex.split(line.partition(" > ")[0])
        assert command[0] in ("rh-prefect", "pip", "prefect", "git", "gh", "curl")
        if command[0] == "rh-prefect":
            app.parse_args(command[1:], exit_on_error=False, print_error=True)
