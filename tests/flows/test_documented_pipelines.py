"""Every pipeline in the README and in docs/ runs to its end on an emulator, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.media.media import Media
from tests.support.doc_pages import TEXTS
from tests.support.samples.pipeline_assets import some
from tests.support.servers.emulator_env import StartEmulator

pytestmark = pytest.mark.timeout(300)

PAGES = [name for name in TEXTS if ".md" in name]
QUICK = ("README.md 1", "pipelines.md 1", "pipelines.md 2")
UNUSED = "photo"
"""The parameter that is left out where it is optional, so that the step is made that replaces it."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long]) for name in PAGES]
)
async def test_it_makes_its_outputs(name: str, start_rh: StartEmulator, tmp_path: Path) -> None:
    start_rh(long_side=64)
    text = re.sub(r"\b(1080|1920)\b", lambda size: str(int(size[1]) // 10), TEXTS[name])
    pipeline = Pipeline.from_text(text, name="example.yaml")
    params = pipeline.file.params
    given = {key: some(key, param, tmp_path) for key, param in params.items()}
    if UNUSED in params and params[UNUSED].optional:
        given[UNUSED] = None
    result = await pipeline.run(given, budget=100)
    assert {one.state for one in result.steps} <= {"made", "absent"}
    made = [one for value in result.outputs.values() for one in (value if isinstance(value, list) else [value])]
    assert made
    assert all(isinstance(one, Media) for one in made)
    saved = {file for one in result.steps for file in one.files}
    assert {one.uri for one in made} <= saved
