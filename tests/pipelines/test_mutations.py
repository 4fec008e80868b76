"""Shipped pipelines with values that were exchanged at random are planned or refused, and nothing else."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from rh_prefect.errors import InputError
from rh_prefect.pipelines.check.checked_file import SHIPPED
from rh_prefect.pipelines.pipeline import Pipeline
from tests.support.samples.pipeline_assets import some

TEXTS = [file.read_text(encoding="utf-8") for file in sorted(SHIPPED.glob("*.yaml"))]
VALUE = re.compile(r"(?<=: )[^,{}\n\[\]]+|\$\([^)]*\)|\{[^{}\n]*\}")
OTHERS = [
    *("5", "null", "[]", "{}", "true", "'a'", "''", "1e3", "-1", "[1, {a: 2}]", "{a: {b: c}}", "{type: table}"),
    *("$(x)", "$(item)", "$(params)", "$(previous.x)", "$(each)", "$(run.id)", "$(item or previous)", "$("),
]


def mutated(chance: random.Random) -> str:
    text = chance.choice(TEXTS)
    for _ in range(chance.randint(1, 3)):
        found = list(VALUE.finditer(text))
        one, other = chance.choice(found), chance.choice([*OTHERS, chance.choice(found).group()])
        text = text[: one.start()] + other + text[one.end() :]
    return text


@pytest.mark.parametrize("seed", range(5))
async def test_a_mutated_pipeline_is_planned_or_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        text = mutated(chance)
        try:
            pipeline = Pipeline.from_text(text)
            params = pipeline.file.params.items()
            plan = await pipeline.plan({name: some(name, param, tmp_path) for name, param in params})
            assert [plan.table(), plan.table(60), plan.markdown(), plan.svg(), plan.to_json()]
        except InputError:
            continue
        except Exception as error:
            raise AssertionError(text) from error
