"""`--sample` makes the first items of each fan-out, in their order in the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Selection
from tests.support.samples.steps import ANSWER, PICTURE, group, of_rows, rows, steps
from tests.support.world.planned_works import Records, plan_of

ROWS = [{"kind": kind, "t": name} for kind, name in zip("xxyy", "ABCD")]


def sampled(plan: Plan, number: int) -> list[str]:
    return list(dict.fromkeys(one.item for one in plan.instances if one.item and Selection(sample=number).has(one)))


def fan_out(when: str) -> str:
    a, b = f"when: {when}, {PICTURE % 'a $(item.t)'}", PICTURE % "b $(item.t)"
    style = ANSWER % "x" + ", parse: {object: {kind: string}}"
    columns = "kind: string, t: string, has: {type: string, optional: true}"
    return of_rows(columns, "id: $(item.t)", a=a, b=b).replace("steps:\n", steps(style=style), 1)


async def test_a_sample_stays_the_same_when_a_condition_is_decided() -> None:
    records, text = Records(), fan_out("{equals: [$(style.kind), $(item.kind)]}")
    first = await plan_of(text, rows=ROWS)
    records.answer(first.steps["style"][0], {"kind": "x"})
    second = await plan_of(text, rows=ROWS, known=records)
    assert sampled(first, 2) == sampled(second, 2) == ["A", "B"]


async def test_an_absent_step_does_not_make_its_item_a_first_one() -> None:
    has = [{**row, "has": "yes"} if row["t"] in "AC" else row for row in ROWS]
    assert sampled(await plan_of(fan_out("{missing: $(item.has)}"), rows=has), 2) == ["A", "B"]


@pytest.mark.parametrize("around", ["use", "group"])
async def test_a_sample_has_the_first_items_of_each_fan_out(around: str, tmp_path: Path) -> None:
    each = {f"e{n}": group(f"foreach: $(params.r{n}), id: $(item.title)", p=PICTURE % "$(item.title)") for n in (1, 2)}
    params = "params: {r1: {type: table, columns: {title: string}}, r2: {type: table, columns: {title: string}}}\n"
    (tmp_path / "inner.yaml").write_text(params + steps(**each))
    use = "use: ./inner.yaml, with: {r1: $(params.r1), r2: $(params.r2)}"
    (tmp_path / "outer.yaml").write_text(params + steps(u=use if around == "use" else group("", **each)))
    plan = await plan_of(Pipeline.from_file(tmp_path / "outer.yaml"), {"r1": rows("A", "B"), "r2": rows("X", "Y")})
    assert sampled(plan, 1) == ["A", "X"]
