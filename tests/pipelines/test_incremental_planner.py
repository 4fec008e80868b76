"""Parts of a plan that are planned again: after each result they say what a whole plan from the same results says."""

from __future__ import annotations

import gc
import hashlib
import random
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_prefect.errors import StoreError
from rh_prefect.media.media import Media
from rh_prefect.pipelines.check.checked_file import SHIPPED
from rh_prefect.pipelines.parsed_answers import answer_type
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, Plan, WorkQuery
from rh_prefect.pipelines.plan.plan import finish
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Selection, Work
from rh_prefect.pipelines.plan.work_identity import mark
from rh_prefect.pipelines.types import Type
from tests.support.doc_pages import TEXTS
from tests.support.hypothesis_settings import search
from tests.support.samples.pipeline_assets import some
from tests.support.samples.steps import ANSWER, PICTURE, further, group, of_rows, steps
from tests.support.waiting import until
from tests.support.world.planned_works import ROWS, SHOTS, Records, result

EVENTS = 16
"""Results at most, of one pipeline."""


def answer(kind: Type, chance: random.Random, most: int) -> Any:
    if kind.kind == "string" and not kind.fields:
        return chance.choice(["a", "b", "grey sea"])
    one = [{name: value(field, chance) for name, field in kind.fields.items()} for _ in range(chance.randint(1, most))]
    return one if kind.many else one[0]


def value(kind: Type, chance: random.Random) -> Any:
    choices: dict[str, list[Any]] = {"boolean": [True, False], "integer": [1, 2, 3], "number": [1.5, 2, 40]}
    return chance.choice(choices.get(kind.kind, ["a", "b", "grey sea"]))


def made(one: PlannedStep, work: Work, chance: random.Random) -> KnownWork:
    """A result of a step."""
    if (parse := one.step.get("parse")) is not None:
        return KnownWork("=", value=answer(answer_type(parse), chance, min(one.at_most or 1, 4)))
    if one.kind == "string":
        return KnownWork("=", texts=(chance.choice("ab"),))
    kind: Any = one.kind if one.kind in ("image", "video", "audio") else "image"
    kind = chance.choice([kind] * 9 + ["other"])  # now and then a file that the step cannot use
    # Now and then other bytes of a file that was rendered again.
    content = hashlib.sha256((work.key + chance.choice(["", "again"])).encode()).hexdigest()
    file = Media(uri=f"s3://shop/{content}", kind=kind, mime="", size=1, sha256=content, seconds=5.042)
    return KnownWork("=", outputs=(file,), cost=Decimal("0.10"))


def said(plan: Plan) -> dict[str, Any]:
    """All that a plan says."""
    steps = [
        {
            "address": one.address,
            "state": (one.state, one.found, one.note),
            "is": (one.is_pending, one.is_needed, one.is_sure, one.is_output, one.stops_run, one.blocked_by),
            "works": [
                (work.key, work.take, work.state, work.price, work.attempts, work.is_needed, work.is_sure, work.known)
                for work in one.works
            ],
            "needs": [each.address for each in one.needs],
            "waits_for": sorted(each.address for each in one.waits_for),
            "values": mark(one.values),
            "request": one.request,
            "rest": (one.save_as, one.problems, one.numbers, one.item_meaning, one.model, one.seconds),
            "chosen": mark(one.chosen),
            "clashes": [] if plan.planner is None else list(plan.planner.clashes.problems_of(one)),
        }
        for one in plan.instances
    ]
    works = sorted((work.key, work.shape, work.state) for work in plan.works)
    return {
        "steps": steps,
        "works": works,
        "prices": (plan.price, plan.price_of(plan.instances, plan.selection)),
        "notes": sorted(plan.notes),
        "problems": sorted(plan.problems),
        "outputs": mark(plan.outputs),
        "new takes": dict(plan.new_takes),
        "open": dict(plan.open_fan_outs),
    }


class Past(Records):
    """Records of works of which six takes were submitted."""

    async def new_take(self, base: str, scope: str = "") -> int:
        return 7


def varied(plan: Plan, chance: random.Random) -> dict[str, Any]:
    """Options of a run, as `--only`, `--items`, `--sample`, `--retake` and `choose` give them, for parts of a plan."""
    addresses = [one.address for one in plan.instances] or [""]
    some_steps = chance.sample([*addresses, *plan.paths], min(2, len(addresses)))
    items = [one.top_item for one in plan.instances if one.item] or ["1"]
    selections = [Selection(), Selection(steps=frozenset(some_steps)), Selection(sample=chance.randint(1, 2))]
    selections.append(Selection(items=frozenset(chance.sample(items, 1))))
    retaken = [address for address in addresses if chance.random() < 0.3]
    return {
        "selection": chance.choice(selections),
        "new": chance.choice([(), ("*",), some_steps]),
        "takes": {address: chance.randint(2, 3) for address in retaken if address},
        "choices": {
            one.address: {"take": 1, "of": one.request["of"]}
            for one in plan.instances
            if one.model == "review" and one.candidates and chance.random() < 0.7
        },
    }


class World:
    """A pipeline whose steps get results, or fail, in any order."""

    def __init__(self, pipeline: Pipeline, params: dict[str, Any], chance: random.Random, **options: Any) -> None:
        self.pipeline, self.params, self.chance, self.options = pipeline, params, chance, options
        self.records, self.failed = Past(), set[str]()

    async def whole(self) -> Plan:
        return await self.pipeline.plan(
            self.params, known=self.records, failed=set(self.failed), date="2026-11-30", **self.options
        )

    async def play(self) -> int:
        """Makes steps until all are made; returns how many results there were."""
        plan, count = await self.whole(), 0
        assert plan.planner is not None
        while count < EVENTS:
            ready = [
                (one, work)
                for one in plan.instances
                for work in one.works
                if work.is_settled and work.known is None and one.address not in self.failed
                if plan.selection.has(one)
            ]
            if not ready:
                break
            keys, failed = list[str](), list[str]()
            for one, work in self.chance.sample(ready, min(len(ready), self.chance.choice([1, 1, 2, 5]))):
                if self.chance.random() < 0.12:
                    failed.append(one.address)
                else:
                    self.records.known[work.key] = made(one, work, self.chance)
                    keys.append(work.key)
            self.failed.update(failed)
            await plan.planner.update(keys, failed)
            plan, count = self.snapshot(plan), count + len(keys)
            now, then = said(plan), said(self.snapshot(await self.whole()))
            for name in now:
                assert now[name] == then[name]
        return count

    async def play_twice(self) -> None:
        """Plays, then plays again with options, among which are choices among the results of the first time."""
        await self.play()
        self.options = varied(await self.whole(), self.chance)
        kept = self.chance.random() < 0.5
        self.records.known = {key: one for key, one in self.records.known.items() if kept or self.chance.random() < 0.6}
        self.failed.clear()
        await self.play()

    def snapshot(self, before: Plan) -> Plan:
        """The plan as the parts say it now."""
        assert before.planner is not None
        plan = Plan(before.pipeline, budget=before.budget)
        return finish(before.planner, plan)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [name for name in TEXTS if "Plan" not in name])
async def test_parts_of_a_shipped_pipeline_say_what_a_whole_plan_says(name: str, seed: int, tmp_path: Path) -> None:
    pipeline = Pipeline.from_file(SHIPPED / name) if name.endswith(".yaml") else Pipeline.from_text(TEXTS[name])
    params = {key: some(key, param, tmp_path) for key, param in pipeline.file.params.items()}
    await World(pipeline, params, random.Random(f"{name} {seed}")).play_twice()


ASK = f"{ANSWER}, parse: {{object: {{ok: boolean, n: integer}}}}"
LIST = f"{ANSWER}, parse: {{list: {{t: string, n: integer}}, at_most: 4}}"
CLIP = "model: kling-v2.6-pro-image-to-video, with: {prompt: slow, duration: 5, sound: false}"
BEFORE = {
    "ask": f"ask: {{{ASK % 'x'}}}",
    "script": f"script: {{{LIST % 'y'}}}",
    "logo": "logo: {model: z-image/turbo, with: {prompt: logo}}",
    "logo if": "logo: {when: $(ask.ok), model: z-image/turbo, with: {prompt: logo}}",
    "logo never": "logo: {expect: $(ask.ok), model: z-image/turbo, with: {prompt: logo}}",
    "review": "best: {review: $(logo), ask: Which}",
    "lines": f"lines: {{when: $(ask.ok), {LIST % 'z'}}}",
}
GROUP = {
    "rows": "foreach: $(params.rows)",
    "script": "foreach: $(script)",
    "one of two": "foreach: $(lines or script)",
    "pictures": "foreach: $(first.picture)",
    "matrix": "matrix: {t: [a, b], n: [1, 2]}",
}
RESTRICTED = {
    "id": "id: $(item.t)",
    "where": "where: {gt: [$(item.n), 1]}",
    "where ask": "where: {equals: [$(item.n), $(ask.n)]}",
    "limit": "limit: 2",
    "limit ask": "when: {lt: [$(ask.n), 3]}",
    "sort": "sort: {by: n}",
    "fail": "on_error: fail",
}
STEPS = {
    "picture": "picture: {model: z-image/turbo, with: {prompt: 'p $(item.t)'}}",
    "logo": "picture: {model: bytedance/jimeng-4.6/image-to-image, from: $(logo), with: {prompt: 'p $(item.t)'}}",
    "same": "picture: {model: z-image/turbo, same: true, with: {prompt: the same}}",
    "asked": "picture: {when: $(ask.ok), model: z-image/turbo, takes: 2, with: {prompt: 'p $(item.t)'}}",
    "check": f"check: {{{ASK % 'ok $(picture.label)'}}}",
    "own check": f"check: {{{ASK % 'ok $(item.t)'}}}",
    "clip": f"clip: {{from: $(picture), {CLIP}}}",
    "clip if": f"clip: {{when: $(check.ok), from: $(picture), {CLIP}}}",
    "clip expects": f"clip: {{expect: $(check.ok), from: $(picture), {CLIP}}}",
    "small": "small: {edit: resize, with: {file: $(picture), width: $(check.n), height: 20}, save_as: 'a/$(check.n)'}",
    "small of logo": "small: {edit: resize, with: {file: $(logo or picture), width: 9, height: 20}, require: any}",
    "choice": "choice: {review: $(picture), ask: Which}",
    "of choice": f"film: {{from: $(choice), {CLIP}}}",
    "angles": "angles: {matrix: {x: [1, 2]}, steps: {a: {model: z-image/turbo, with: {prompt: '$(check.n)'}}}}",
    "sheet": "sheet: {edit: contact_sheet, with: {of: $(angles.a)}, require: any}",
    "again": "again: {model: z-image/turbo, with: {prompt: 'after $(previous.check.n)'}}",
    "large": "large: {model: rh-video-upscaler, from: $(clip or film), with: {target_resolution: 1080p}}",
}
AFTER = {
    "sheet": "all: {edit: contact_sheet, with: {of: $(first.picture)}, require: any}",
    "strict sheet": "all: {edit: contact_sheet, with: {of: $(first.small)}}",
    "film": "film: {edit: concat, with: {videos: $(first.clip)}, require: any}",
    "count": "count: {model: z-image/turbo, with: {prompt: 'there are $(first.picture.count)'}}",
    "of all": "end: {when: {exists: $(second.picture)}, model: z-image/turbo, with: {prompt: 'the end $(ask.n)'}}",
}
OUTPUTS = {
    "pictures": "pictures: $(first.picture)",
    "clips": "clips: $(first.clip)",
    "either": "either: $(first.clip or first.picture)",
    "logo": "logo: $(logo or all)",
    "second": "second: $(second.small)",
}


def chosen(parts: dict[str, str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(parts)), unique=True).map(
        lambda names: [parts[name] for name in parts if name in names]
    )


def keyed(lines: list[str], indent: str) -> str:
    """Lines of a mapping, the last one of each key."""
    return "".join(f"{indent}{line}\n" for line in {line.partition(":")[0]: line for line in lines}.values())


GROUPS = st.tuples(st.sampled_from(sorted(GROUP)).map(GROUP.__getitem__), chosen(RESTRICTED), chosen(STEPS))
FILES = st.tuples(chosen(BEFORE), st.lists(GROUPS, min_size=1, max_size=2), chosen(AFTER), chosen(OUTPUTS))


NEEDED = {"$(logo)": "logo", "$(script)": "script", "lines or": "lines"}


def written(file: Any) -> str:
    """A file with the steps that others refer to."""
    before, groups, after, outputs = file
    body = ""
    for name, (items, restricted, asked) in zip(("first", "second"), groups):
        here = keyed([items, *restricted], "    ") + "    steps:\n"
        here += keyed([STEPS["picture"], STEPS["own check"], *asked], "      ")
        by_name = {"matrix:": "$(matrix.", "foreach: $(first": "$(ask."}
        names = next((names for start, names in by_name.items() if items.startswith(start)), "$(item.")
        body += f"  {name}:\n" + here.replace("$(item.", names).replace("$(ask.t)", "$(id)")
    body += keyed(after, "  ")
    needed = [BEFORE[step] for text, step in NEEDED.items() if text in body]
    start = "params: {rows: {type: table, columns: {t: string, n: integer}}}\nsteps:\n"
    head = start + keyed([BEFORE["ask"], *needed, *before], "  ")
    return head + body + ("outputs:\n" + keyed(outputs, "  ") if outputs else "")


def read(text: str) -> Pipeline:
    """A pipeline without the lines that are wrong in it, such as those that refer to steps which are not there."""
    lines = text.splitlines()
    while True:
        try:
            return Pipeline.from_text("\n".join(lines))
        except PipelineError as error:
            del lines[max(problem.line for problem in error.found) - 1]


@search(24)
@given(FILES, st.integers(0, 5))
async def test_parts_of_any_pipeline_say_what_a_whole_plan_says(file: Any, seed: int) -> None:
    rows = [{"t": t, "n": n} for t, n in (("a", 1), ("b", 2), ("c", 3))]
    await World(read(written(file)), {"rows": rows}, random.Random(seed)).play_twice()


async def test_the_collector_of_cycles_is_paused_for_a_plan_only() -> None:
    class Broken(Records):
        async def find(self, queries: Sequence[WorkQuery]) -> list[KnownWork | None]:
            assert not gc.isenabled()
            raise StoreError("the store is away")

    pipeline = Pipeline.from_text(steps(a=PICTURE % "x"))
    with pytest.raises(StoreError):
        await pipeline.plan(known=Broken())
    assert gc.isenabled()


async def test_a_part_that_is_planned_again_frees_its_steps_without_a_pass_of_the_collector() -> None:
    def count_steps() -> int:
        return sum(type(one) is PlannedStep for one in gc.get_objects())

    records = Records()
    gc.collect()
    gc.disable()
    try:
        before, plan = count_steps(), await Pipeline.from_text(SHOTS).plan(rows=ROWS, known=records)
        count, planner = len(plan.instances), plan.planner
        assert planner is not None
        plan = Plan("another one")
        while new := [
            (one, work)
            for one in planner.instances
            for work in one.works
            if work.is_settled and work.key not in records.known
        ]:
            records.known.update({work.key: result(work.key, one.model) for one, work in new})
            await planner.update([work.key for _, work in new])
            del new
        assert count_steps() == before + count
        planner.free()
        del planner
        await until(lambda: count_steps() == before)  # the thread that finished the plan may still return from it
    finally:
        gc.enable()


async def test_a_step_of_an_item_with_another_number_than_at_its_start_fails() -> None:
    script = ANSWER % "$(item.t)" + ", parse: {object: {keep: boolean, name: string}}"
    shots = group("foreach: $(each.script), where: $(item.keep), id: $(item.name)", picture=PICTURE % "$(item.name)")
    records, rows = Records(), [{"t": "a"}, {"t": "b"}]
    pipeline = Pipeline.from_text(of_rows("t: string", script=script) + further(shots=shots))
    plan = await pipeline.plan(rows=rows, known=records)
    planner, (first, second) = plan.planner, plan.steps["each.script"]
    assert planner is not None
    for one, keep, name in ((second, True, "B"), (first, False, "A")):
        records.answer(one, {"keep": keep, "name": name})
        await planner.update([one.works[0].key])
    # Its number was 2, and what has become of the first item is planned no more.
    changed = await planner.update([], ["shots[B].picture", "shots[1].picture"])
    assert list(changed) == [("shots", 1)]


async def test_a_step_that_only_what_exists_takes_is_not_needed_any_more() -> None:
    each = group("foreach: $(script), when: $(ask.ok)", p=PICTURE % "$(item.t)")
    text = steps(ask=ASK % "x", script=LIST % "y", each=each)
    for seed in range(20):
        await World(Pipeline.from_text(text), {}, random.Random(seed)).play()
