"""`--sample` makes the first items of each fan-out, in their order in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, Plan
from rh_prefect.pipelines.plan.planned_steps import Selection
from tests.support.world.planned_works import Records

PICTURE = "model: z-image/turbo, with: {prompt: %s}"
STYLE = (
    "  style: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {object: {kind: string}}}\n"
)
ROWS = [{"kind": kind, "t": name} for kind, name in zip("xxyy", "ABCD")]


def sampled(plan: Plan, number: int) -> list[str]:
    assert plan.problems == []
    return list(dict.fromkeys(one.item for one in plan.instances if one.item and Selection(sample=number).has(one)))


def fan_out(when: str) -> Pipeline:
    return Pipeline.from_text(
        "params: {rows: {type: table, columns: {kind: string, t: string, has: {type: string, optional: true}}}}\n"
        f"steps:\n{STYLE}  each:\n    foreach: $(params.rows)\n    id: $(item.t)\n    steps:\n"
        f"      a: {{when: {when}, {PICTURE % 'a $(item.t)'}}}\n      b: {{{PICTURE % 'b $(item.t)'}}}\n"
    )


async def test_a_sample_stays_the_same_when_a_condition_is_decided() -> None:
    records, pipeline = Records(), fan_out("{equals: [$(style.kind), $(item.kind)]}")
    first = await pipeline.plan(rows=ROWS, known=records)
    [style] = first.steps["style"]
    records.known[style.works[0].key] = KnownWork("=", value={"kind": "x"})
    second = await pipeline.plan(rows=ROWS, known=records)
    assert sampled(first, 2) == sampled(second, 2) == ["A", "B"]


async def test_an_absent_step_does_not_make_its_item_a_first_one() -> None:
    rows = [{**row, "has": "yes"} if row["t"] in "AC" else row for row in ROWS]
    plan = await fan_out("{missing: $(item.has)}").plan(rows=rows)
    assert sampled(plan, 2) == ["A", "B"]


@pytest.mark.parametrize("around", ["use", "group"])
async def test_a_sample_has_the_first_items_of_each_fan_out(around: str, tmp_path: Path) -> None:
    fan_outs = "".join(
        f"  e{number}: {{foreach: $(params.r{number}), id: $(item.t), steps: {{p: {{{PICTURE % '$(item.t)'}}}}}}}\n"
        for number in (1, 2)
    )
    params = "params: {r1: {type: table, columns: {t: string}}, r2: {type: table, columns: {t: string}}}\n"
    (tmp_path / "inner.yaml").write_text(f"{params}steps:\n{fan_outs}")
    inner: dict[str, str] = {
        "use": "{use: ./inner.yaml, with: {r1: $(params.r1), r2: $(params.r2)}}",
        "group": "\n    steps:\n" + "".join(f"    {line}\n" for line in fan_outs.splitlines()),
    }
    (tmp_path / "outer.yaml").write_text(f"{params}steps:\n  u: {inner[around]}\n")
    given: dict[str, Any] = {"r1": [{"t": "A"}, {"t": "B"}], "r2": [{"t": "X"}, {"t": "Y"}]}
    plan = await Pipeline.from_file(tmp_path / "outer.yaml").plan(given)
    assert sampled(plan, 1) == ["A", "X"]
