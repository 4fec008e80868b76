"""What a plan says of steps and items that depend on conditions which are not decided yet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.media.media import Media
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, Plan
from rh_prefect.pipelines.plan.planned_steps import Round, Selection
from tests.support.samples.pipeline_assets import photo
from tests.support.world.planned_works import Records, run

ASK = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {object: {ok: boolean}}"
PICTURE = "model: z-image/turbo, with: {prompt: %s}"
CLIP = "model: kling-v2.6-pro-image-to-video, from: %s, with: {prompt: slow, duration: 5, sound: false}"


async def test_an_undecided_condition_in_one_used_file_does_not_hold_back_another(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(
        "params: {ok: {type: boolean}, t: string}\nsteps:\n"
        f"  a: {{when: $(params.ok), {PICTURE % '$(params.t)'}}}\n"
        f"  b: {{{PICTURE % 'b $(params.t)'}}}\n  c: {{{CLIP % '$(a or b)'}}}\n"
    )
    given = {"one": "$(j.ok)", "two": "true", "three": "true"}
    uses = "".join(f"  {name}: {{use: ./inner.yaml, with: {{ok: {ok}, t: {name}}}}}\n" for name, ok in given.items())
    outer = tmp_path / "outer.yaml"
    outer.write_text(f"steps:\n  j: {{{ASK}}}\n{uses}")
    plan = await Pipeline.from_file(outer).plan()
    assert plan.problems == []
    waiting = {one.address for one in plan.instances if one.waits_for}
    assert waiting == {"one.a", "one.c"}


ROWS = [{"t": name} for name in "abc"]
EACH = "params: {rows: {type: table, columns: {t: string}}}\nsteps:\n  each:\n    foreach: $(params.rows)\n    steps:\n"
PIC = PICTURE % "$(item.t)"
CHECK = ASK.replace("x}", "ok $(item.t)}", 1)
FAN_OUTS = {
    "foreach": f"  clips: {{foreach: $(each.pic), steps: {{clip: {{{CLIP % '$(item)'}}}}}}}\n",
    "matrix": f"  clips: {{matrix: {{x: $(each.pic)}}, steps: {{clip: {{{CLIP % '$(matrix.x)'}}}}}}}\n",
}


async def existing_pictures() -> Records:
    records = Records()
    await run(Pipeline.from_text(f"{EACH}      pic: {{{PIC}}}\n"), records, rows=ROWS)
    return records


def checked(fan_out: str) -> Pipeline:
    return Pipeline.from_text(f"{EACH}      check: {{{CHECK}}}\n      pic: {{when: $(check.ok), {PIC}}}\n{fan_out}")


@pytest.mark.parametrize("fan_out", FAN_OUTS.values(), ids=FAN_OUTS)
async def test_a_step_of_an_existing_result_waits_for_the_condition_of_that_result(fan_out: str) -> None:
    plan = await checked(fan_out).plan(rows=ROWS, known=await existing_pictures())
    assert plan.problems == []
    clips = plan.steps["clips.clip"]
    assert all(one.is_pending for one in clips)
    checks = [one.address for one in plan.steps["each.check"]]
    # The items have no ids of their own, so that each has its number only if those before it are there.
    assert [[one.address for one in clip.waits_for] for clip in clips] == [
        list(dict.fromkeys([own, *(checks if number else [])])) for number, own in enumerate(checks)
    ]
    assert str(plan.price.least) == "0.06"
    assert str(plan.price.most) == "5.31"


async def test_items_begin_when_the_condition_of_each_is_decided_or_has_failed() -> None:
    records = await existing_pictures()
    plan = await checked(FAN_OUTS["foreach"]).plan(rows=ROWS, known=records)
    for one, answer in zip(plan.steps["each.check"], (True, False)):
        records.known[one.works[0].key] = KnownWork("=", value={"ok": answer})
    lost = ["each[3].check", "each[3].pic", "clips[2].clip"]
    plan = await checked(FAN_OUTS["foreach"]).plan(rows=ROWS, known=records, failed=lost)
    assert [(one.address, one.is_pending) for one in plan.steps["clips.clip"]] == [
        ("clips[1].clip", False),
        ("clips[2].clip", True),
    ]


ANSWER = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: %s}, parse: {list: {t: string}, at_most: %d}"
OR = (
    f"steps:\n  s: {{{ASK}}}\n  a: {{when: $(s.ok), {ANSWER % ('a', 3)}}}\n  b: {{{ANSWER % ('b', 10)}}}\n"
    f"  pics: {{foreach: $(a or b), steps: {{p: {{{PIC}}}}}}}\n"
)


@pytest.mark.parametrize("has_first", [True, False])
async def test_items_of_one_of_two_lists_wait_until_it_is_known_which_and_the_price_covers_both(
    *, has_first: bool
) -> None:
    records, pipeline = Records(), Pipeline.from_text(OR)
    if has_first:
        [first] = (await pipeline.plan()).steps["a"]
        records.known[first.works[0].key] = KnownWork("=", value=[{"t": "one"}, {"t": "two"}])
    plan = await pipeline.plan(known=records)
    assert plan.problems == []
    pics = plan.steps["pics.p"]
    assert all(one.is_pending and not one.is_sure for one in pics)
    assert all("s" in {one.address for one in pic.waits_for} for pic in pics)
    assert str(plan.price_of(pics).most) == "0.40"
    assert str(plan.price_of(pics).least) == "0"


@pytest.mark.parametrize("is_used", [False, True])
async def test_an_existing_list_is_not_paid_for_while_another_one_may_take_its_place(
    tmp_path: Path, *, is_used: bool
) -> None:
    inner = f"steps: {{p: {{foreach: $(params.rows), steps: {{p: {{{PIC}}}}}}}}}\n"
    (tmp_path / "inner.yaml").write_text(f"params: {{rows: {{type: table, columns: {{t: string}}}}}}\n{inner}")
    used = f"{OR.partition('  pics:')[0]}  pics: {{use: ./inner.yaml, with: {{rows: $(a or b)}}}}\n"
    (tmp_path / "outer.yaml").write_text(used if is_used else OR)
    records, pipeline = Records(), Pipeline.from_file(tmp_path / "outer.yaml")
    for name, rows in (("a", 2), ("b", 3)):
        [one] = (await pipeline.plan()).steps[name]
        records.known[one.works[0].key] = KnownWork("=", value=[{"t": f"{name}{n}"} for n in range(rows)])
    plan = await pipeline.plan(known=records)
    pics = [one for one in plan.instances if one.address.startswith("pics")]
    assert len(pics) == 3
    assert all(one.is_pending and not one.is_sure and "s" in [each.address for each in one.waits_for] for one in pics)


LONGEST = f"""
params: {{photo: image, rows: {{type: table, columns: {{t: string}}}}}}
steps:
  each: {{foreach: $(params.rows), steps: {{clip: {{{CLIP % "$(params.photo)"}}}}}}}
  best:
    foreach: $(each.clip)
    sort: {{by: seconds}}
    limit: 1
    steps: {{large: {{model: rh-video-upscaler, from: $(item), with: {{target_resolution: 1080p}}}}}}
""".replace("slow", "$(item.t)")


async def test_the_lowest_price_counts_the_cheapest_items_that_a_limit_can_leave(tmp_path: Path) -> None:
    records, pipeline = Records(), Pipeline.from_text(LONGEST)
    given: dict[str, Any] = {"photo": photo(tmp_path / "p.png")}
    await run(pipeline, records, rows=ROWS[:1], **given)
    plan = await pipeline.plan(rows=[ROWS[1], ROWS[0]], known=records, **given)
    assert plan.problems == []
    assert "".join(one.state for one in plan.instances) == "+=>="
    price, (new, _) = plan.price, plan.steps["best.large"]
    assert price.least == plan.price_of(plan.steps["each.clip"]).least
    assert price.most == plan.price_of(plan.steps["each.clip"]).most + new.works[0].price.most
    assert new.works[0].price.least > 0


async def test_the_highest_price_counts_what_an_item_costs_beside_the_works_of_other_steps() -> None:
    text = f"""
params: {{rows: {{type: table, columns: {{t: string, n: integer}}}}}}
steps:
  s: {{{ASK}}}
  shared: {{{PICTURE % "mug"}, takes: 3}}
  best:
    foreach: $(params.rows)
    where: {{equals: [$(s.ok), true]}}
    limit: 1
    steps: {{p: {{{PICTURE % "$(item.t)"}, takes: $(item.n)}}}}
"""
    rows = [{"t": "mug", "n": 3}, {"t": "cup", "n": 2}]
    plan = await Pipeline.from_text(text).plan(rows=rows)
    assert plan.problems == []
    assert (str(plan.price.least), str(plan.price.most)) == ("0.14", "0.22")

    # Of a selected item the other one may not be selected, so that this one is what the limit leaves.
    second = plan.price_of(plan.instances, Selection(items=frozenset({"2"})))
    assert str(second.most) == "0.22", "0.14 without the selected item"


@pytest.mark.parametrize(
    ("named", "begin"),
    [
        ("", ["good[1].p"]),  # `good[3]` is `good[2]` if the second item is not chosen
        ("id: $(item.t), ", ["good[a].p", "good[c].p"]),
        ("id: $(item.t)-$(number), ", ["good[a-1].p"]),
    ],
)
async def test_an_item_waits_for_the_items_before_it_where_its_number_counts(named: str, begin: list[str]) -> None:
    pipeline = Pipeline.from_text(
        f"{EACH}      rate: {{{CHECK.replace('ok: boolean', 'ok: boolean, t: string')}}}\n"
        f"  good: {{foreach: $(each.rate), where: $(item.ok), {named}steps: {{p: {{{PIC}}}}}}}\n"
    )
    records = Records()
    plan = await pipeline.plan(rows=ROWS)
    for one, name in zip(plan.steps["each.rate"], "abc"):
        if name != "b":
            records.known[one.works[0].key] = KnownWork("=", value={"ok": True, "t": name})
    plan = await pipeline.plan(rows=ROWS, known=records)
    assert plan.problems == []
    assert [one.address for one in plan.steps["good.p"] if not one.is_pending] == begin
    plan = await pipeline.plan(rows=ROWS, known=records, failed=["each[2].rate"])
    assert len([one for one in plan.steps["good.p"] if not one.is_pending]) == 2


LIST = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {list: {name: string}, at_most: 5}"


async def test_a_request_with_the_count_of_a_list_that_is_not_made_yet_waits_for_the_list() -> None:
    """It was paid for with the most items that the list can have, and then again with their number."""
    pipeline = Pipeline.from_text(
        f"steps:\n  write: {{{LIST}}}\n  each: {{foreach: $(write), steps: {{pic: {{{PICTURE % '$(item.name)'}}}}}}}\n"
        f"  sum: {{{PICTURE % 'one of $(each.count)'}}}\n"
    )
    plan = await pipeline.plan()
    assert plan.problems == []
    (sum_up,) = plan.steps["sum"]
    assert not all(work.is_settled for work in sum_up.works)


@pytest.mark.parametrize(
    ("foreach", "prompt"),
    [
        ("foreach: $(write.name)", "fixed $(number)"),
        ("foreach: [first, $(write.name), last]", "$(number) $(item)"),
        ("foreach: $(each.pic)", "fixed $(number)"),
        ("foreach: [$(each.item.name), last]", "$(number) $(item)"),
        ("foreach: [$(each.inner.item), last]", "$(number) $(item)"),
        ("matrix: {name: [$(write.name), last], size: [1, 2]}", "$(number) $(matrix.size)"),
    ],
)
async def test_items_of_a_list_that_is_not_made_yet_wait_for_the_list(foreach: str, prompt: str) -> None:
    """Items that the list turned out not to have were paid for, and others again under their own numbers."""
    pipeline = Pipeline.from_text(
        f"steps:\n  write: {{{LIST}}}\n  each:\n    foreach: $(write)\n    steps:\n"
        f"      pic: {{{PICTURE % '$(item.name)'}}}\n"
        f"      inner: {{foreach: [$(item.name)], steps: {{own: {{{PICTURE % 'inner $(item)'}}}}}}}\n"
        f"  further: {{{foreach}, steps: {{pic: {{{PICTURE % prompt}}}}}}}\n"
    )
    records = Records()
    plan = await pipeline.plan(known=records)
    assert plan.problems == []
    assert all(one.is_pending for one in plan.steps["further.pic"])
    records.known[plan.steps["write"][0].works[0].key] = KnownWork("=", texts=('[{"name": "a"}]',))
    plan = await pipeline.plan(known=records)
    assert not any(one.is_pending for one in plan.steps["further.pic"])


@pytest.mark.parametrize(
    "foreach",
    [
        "foreach: [{t: x}, {t: $(word)}], id: $(item.t)",
        "foreach: [$(params.photo), $(picture)]",
        "matrix: {t: [x, $(word)]}",
        "matrix: {photo: [$(params.photo), $(picture)]}",
    ],
)
async def test_a_request_or_a_name_with_an_id_that_is_not_made_yet_waits_for_it(foreach: str, tmp_path: Path) -> None:
    """It was paid for, or saved, with a number or a hash in place of the id, and then again with the id."""
    pipeline = Pipeline.from_text(
        f"params: {{photo: image}}\nsteps:\n  picture: {{{PICTURE % 'one'}}}\n"
        "  word: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {text: {max: 9}}}\n"
        f"  each: {{{foreach}, steps: {{a: {{{PICTURE % 'of $(id)'}}}, b: {{{PICTURE % 'b $(number)'}, "
        "save_as: $(id).png}, c: {" + PICTURE % "c $(number)" + "}}}\n"
    )
    plan = await pipeline.plan(photo=photo(tmp_path / "x.png"))
    assert plan.problems == []
    assert plan.steps["each.a"][0].request["prompt"] == "of x"
    assert [one.works[0].is_settled for one in plan.steps["each.a"]] == [True, False]
    assert [one.is_pending for one in plan.steps["each.b"]] == [False, True]
    assert not any(one.is_pending for one in plan.steps["each.c"])


async def test_a_step_waits_for_the_name_of_its_file() -> None:
    """Its file was saved as `<text:…>`, and again under its name."""
    word = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {text: {max: 9}}"
    pipeline = Pipeline.from_text(
        f"steps:\n  word: {{{word}}}\n  picture: {{{PICTURE % 'one'}, save_as: $(word).png}}\n"
    )
    plan = await pipeline.plan()
    assert plan.steps["picture"][0].is_pending
    records = Records()
    records.known[plan.steps["word"][0].works[0].key] = KnownWork("=", texts=("mug",))
    (picture,) = (await pipeline.plan(known=records)).steps["picture"]
    assert (picture.is_pending, picture.save_as) == (False, "mug.png")


async def rated(named: str, order: str, records: Records) -> Plan:
    """A plan in which the second of three rows is not rated yet; each is rated after the others' names and size."""
    parse = "ok: boolean, t: string, size: integer"
    pipeline = Pipeline.from_text(
        f"{EACH}      rate: {{{CHECK.replace('ok: boolean', parse)}}}\n"
        f"  good: {{foreach: $(each.rate), where: {{any: [$(item.ok)]}}, {order}{named}steps: {{p: {{{PIC}}}}}}}\n"
    )
    for number, one in enumerate((await pipeline.plan(rows=ROWS)).steps["each.rate"]):
        if number != 1:
            value = {"ok": True, "t": "abc"[number], "size": 30 - 10 * number}
            records.known[one.works[0].key] = KnownWork("=", value=value)
    return await pipeline.plan(rows=ROWS, known=records)


async def test_a_held_back_item_waits_for_the_steps_that_decide_those_before_it() -> None:
    plan = await rated("", "", Records())
    held = plan.steps["good.p"][2]
    assert held.is_pending
    assert [one.address for one in held.waits_for] == ["each[2].rate"]
    only = Selection(items=frozenset({"3"}))
    assert [(one.address, need.address) for one, need in plan.out_of_reach(only)] == [("good[3].p", "each[2].rate")]


async def test_an_edit_whose_only_clip_cannot_be_made_is_planned() -> None:
    clip = f"{{expect: $(j.ok), {CLIP.replace('from: %s, ', '')}}}".replace("image-to-video", "text-to-video", 1)
    film = "{edit: concat, with: {videos: $(one.clip)}, require: any}"
    pipeline = Pipeline.from_text(f"steps:\n  j: {{{ASK}}}\n  one: {{steps: {{clip: {clip}}}}}\n  film: {film}\n")
    records = Records()
    [ask] = (await pipeline.plan()).steps["j"]
    records.known[ask.works[0].key] = KnownWork("=", value={"ok": False})
    plan = await pipeline.plan(known=records)
    assert [one.address for one in plan.instances] == ["j", "one.clip", "film"]


async def test_an_undecided_value_is_a_barrier_for_what_depends_on_it_and_for_nothing_else() -> None:
    text = f"""
steps:
  s: {{{ASK}}}
  extra: {{when: {{equals: [$(s.ok), true]}}, {PICTURE % "extra"}}}
  after: {{when: {{exists: $(extra)}}, {CLIP % "$(extra)"}}}
  beside: {{{PICTURE % "beside"}}}
"""
    records, pipeline = Records(), Pipeline.from_text(text)
    first = await pipeline.plan(known=records)
    (extra,) = first.steps["extra"]
    records.known[extra.works[0].key] = KnownWork(
        "=", outputs=(Media(uri="s3://shop/a.png", kind="image", mime="", size=1, sha256="0" * 64),)
    )
    plan = await pipeline.plan(known=records)
    assert [one.state for one in plan.instances] == ["+", "=", ">", "+"]
    ask, _, after, beside = plan.instances
    assert [one.is_pending for one in (after, beside)] == [True, False]
    assert {one.address for one in after.waits_for} >= {"s"}
    prices = [one.works[0].price for one in (ask, after, beside)]
    assert plan.price.least == prices[0].least + prices[2].least
    assert plan.price.most == sum(one.most for one in prices)
    records.known[ask.works[0].key] = KnownWork("=", value={"ok": False})
    decided = await pipeline.plan(known=records)
    assert [one.state for one in decided.instances] == ["=", "x", "x", "+"]


async def test_a_step_behind_a_false_expect_is_planned_as_one_that_cannot_be_made() -> None:
    first = f"{{expect: {{lt: [$(params.n), 3]}}, {PICTURE % 'x'}}}"
    text = f"params: {{n: integer}}\nsteps:\n  a: {first}\n  b: {{{CLIP % '$(a)'}}}\n"
    plan = await Pipeline.from_text(text).plan(n=5)
    [unmet, second] = plan.instances
    assert (unmet.state, second.state, second.blocked_by) == ("x", "x", "a")
    assert second.note == "it needs a, whose expect condition is false"


@pytest.mark.parametrize("when", ["{exists: $(ask)}", "{equals: [$(ask), a text]}"])
async def test_the_step_of_a_condition_is_made_in_each_round_even_where_what_follows_exists(when: str) -> None:
    ask = "{model: rhart-text-g-3-flash-preview/text-to-text, reuse: never, with: {prompt: x}}"
    text = f"steps:\n  ask: {ask}\n  clip: {{when: {when}, {PICTURE % 'a'}}}\n"
    pipeline, rounds = Pipeline.from_text(text), Rounds()
    assert await run(pipeline, rounds) == 2
    rounds.number = 2
    assert await run(pipeline, rounds) == 1


class Rounds(Records):
    number = 1

    async def round(self, pipeline: str) -> Round:
        return Round(f"{pipeline}-{self.number}", datetime.now(UTC))
