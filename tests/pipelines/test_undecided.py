"""What a plan says of steps and items that depend on conditions which are not decided yet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.media.media import Media
from rh_prefect.pipelines.plan import KnownWork, Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Round, Selection
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import ANSWER, ASK, CLIP, PICTURE, SPEECH, further, group, of_rows, steps
from tests.support.world.planned_works import Records, ago, plan_of, result, run, states, using

ROWS = [{"t": name} for name in "abc"]
PIC = PICTURE % "$(item.t)"
CHECK = ASK.replace("x}", "ok $(item.t)}", 1)
LIST = ANSWER % "x" + ", parse: {list: {name: string}, at_most: 5}"
WORD = ANSWER % "x" + ", parse: {text: {max: 9}}"


def waits_for(one: PlannedStep) -> list[str]:
    return [each.address for each in one.waits_for]


async def test_an_undecided_condition_in_one_used_file_does_not_hold_back_another(tmp_path: Path) -> None:
    inner = steps(a=f"when: $(params.ok), {PICTURE % '$(params.t)'}", b=PICTURE % "b $(params.t)", c=CLIP % "$(a or b)")
    inner = f"params: {{ok: {{type: boolean}}, t: string}}\n{inner}"
    given = {"one": "$(j.ok)", "two": "true", "three": "true"}
    uses = {name: f"use: ./inner.yaml, with: {{ok: {ok}, t: {name}}}" for name, ok in given.items()}
    plan = await plan_of(using(tmp_path, steps(j=ASK, **uses), inner=inner))
    assert {one.address for one in plan.instances if one.waits_for} == {"one.a", "one.c"}


FAN_OUTS = {
    "foreach": further(clips=group("foreach: $(each.pic)", clip=CLIP % "$(item)")),
    "matrix": further(clips=group("matrix: {x: $(each.pic)}", clip=CLIP % "$(matrix.x)")),
}
CHECKED = of_rows("t: string", check=CHECK, pic=f"when: $(check.ok), {PIC}")


async def existing_pictures() -> Records:
    records = Records()
    await run(of_rows("t: string", pic=PIC), records, rows=ROWS)
    return records


@pytest.mark.parametrize("fan_out", FAN_OUTS.values(), ids=FAN_OUTS)
async def test_a_step_of_an_existing_result_waits_for_the_condition_of_that_result(fan_out: str) -> None:
    plan = await plan_of(CHECKED + fan_out, rows=ROWS, known=await existing_pictures())
    clips, checks = plan.steps["clips.clip"], [one.address for one in plan.steps["each.check"]]
    assert all(one.is_pending for one in clips)
    # The items have no ids of their own, so that each has its number only if those before it are there.
    for number, (clip, own) in enumerate(zip(clips, checks)):
        assert waits_for(clip) == list(dict.fromkeys([own, *(checks if number else [])]))
    assert (str(plan.price.least), str(plan.price.most)) == ("0.06", "5.31")


async def test_items_begin_when_the_condition_of_each_is_decided_or_has_failed() -> None:
    records, file = await existing_pictures(), CHECKED + FAN_OUTS["foreach"]
    for one, answer in zip((await plan_of(file, rows=ROWS, known=records)).steps["each.check"], (True, False)):
        records.answer(one, {"ok": answer})
    lost = ["each[3].check", "each[3].pic", "clips[2].clip"]
    plan = await plan_of(file, rows=ROWS, known=records, failed=lost)
    begun = {one.address: not one.is_pending for one in plan.steps["clips.clip"]}
    assert begun == {"clips[1].clip": True, "clips[2].clip": False}


LISTS = {
    "s": ASK,
    "a": f"when: $(s.ok), {ANSWER % 'a'}, parse: {{list: {{t: string}}, at_most: 3}}",
    "b": f"{ANSWER % 'b'}, parse: {{list: {{t: string}}, at_most: 10}}",
}
OR = steps(**LISTS, pics=group("foreach: $(a or b)", p=PIC))


@pytest.mark.parametrize("has_first", [True, False])
async def test_items_of_one_of_two_lists_wait_until_it_is_known_which(*, has_first: bool) -> None:
    records = Records()
    if has_first:
        records.answer((await plan_of(OR)).steps["a"][0], [{"t": "one"}, {"t": "two"}])
    plan = await plan_of(OR, known=records)
    pics = plan.steps["pics.p"]
    assert all(one.is_pending and not one.is_sure and "s" in waits_for(one) for one in pics)
    assert (str(plan.price_of(pics).least), str(plan.price_of(pics).most)) == ("0", "0.40")


@pytest.mark.parametrize("is_used", [False, True])
async def test_an_existing_list_is_not_used_while_another_may_take_its_place(tmp_path: Path, *, is_used: bool) -> None:
    inner = of_rows("t: string", p=PIC)
    used = steps(**LISTS, pics="use: ./inner.yaml, with: {rows: $(a or b)}")
    records, pipeline = Records(), using(tmp_path, used if is_used else OR, inner=inner)
    for name, count in (("a", 2), ("b", 3)):
        records.answer((await pipeline.plan()).steps[name][0], [{"t": f"{name}{n}"} for n in range(count)])
    pics = [one for one in (await pipeline.plan(known=records)).instances if one.address.startswith("pics")]
    assert [one.is_pending and not one.is_sure and "s" in waits_for(one) for one in pics] == [True] * 3


async def test_the_lowest_price_counts_the_cheapest_items_that_a_limit_can_leave(tmp_path: Path) -> None:
    clip = (CLIP % "$(params.photo)").replace("slow", "$(item.t)")
    large = "model: rh-video-upscaler, from: $(item), with: {target_resolution: 1080p}"
    best = group("foreach: $(each.clip), sort: {by: seconds}, limit: 1", large=large)
    file = of_rows("t: string", clip=clip).replace("{rows", "{photo: image, rows", 1) + further(best=best)
    records, given = Records(), {"photo": photo(tmp_path / "p.png")}
    await run(file, records, rows=ROWS[:1], **given)
    plan = await plan_of(file, rows=[ROWS[1], ROWS[0]], known=records, **given)
    assert states(plan) == "+=>="
    price, clips, (new, _) = plan.price, plan.price_of(plan.steps["each.clip"]), plan.steps["best.large"]
    assert (price.least, price.most) == (clips.least, clips.most + new.works[0].price.most)
    assert new.works[0].price.least > 0


async def test_the_highest_price_counts_what_an_item_costs_beside_the_works_of_other_steps() -> None:
    chosen = "foreach: $(params.rows), where: {equals: [$(s.ok), true]}, limit: 1"
    best = group(chosen, p=f"{PIC}, takes: $(item.n)")
    file = "params: {rows: {type: table, columns: {t: string, n: integer}}}\n"
    file += steps(s=ASK, shared=PICTURE % "mug" + ", takes: 3", best=best)
    plan = await plan_of(file, rows=[{"t": "mug", "n": 3}, {"t": "cup", "n": 2}])
    assert (str(plan.price.least), str(plan.price.most)) == ("0.14", "0.22")

    # Of a selected item the other one may not be selected, so that this one is what the limit leaves.
    second = plan.price_of(plan.instances, Selection(items=frozenset({"2"})))
    assert str(second.most) == "0.22", "0.14 without the selected item"


async def rated(keys: str, **options: Any) -> Plan:
    """A plan of a fan-out over three ratings, of which the second is not made yet."""
    rate = CHECK.replace("ok: boolean", "ok: boolean, t: string")
    good = f"foreach: $(each.rate), where: $(item.ok), {keys}steps: {{p: {{{PIC}}}}}"
    records, file = Records(), of_rows("t: string", rate=rate) + further(good=good)
    for one, name in zip((await plan_of(file, rows=ROWS)).steps["each.rate"], "abc"):
        if name != "b":
            records.answer(one, {"ok": True, "t": name})
    return await plan_of(file, rows=ROWS, known=records, **options)


@pytest.mark.parametrize(
    ("keys", "begin"),
    [
        ("", ["good[1].p"]),  # `good[3]` is `good[2]` if the second item is not chosen
        ("id: $(item.t), ", ["good[a].p", "good[c].p"]),
        ("id: $(item.t)-$(number), ", ["good[a-1].p"]),
    ],
)
async def test_an_item_waits_for_the_items_before_it_where_its_number_counts(keys: str, begin: list[str]) -> None:
    plan = await rated(keys)
    assert [one.address for one in plan.steps["good.p"] if not one.is_pending] == begin
    assert {name for one in plan.steps["good.p"] if one.is_pending for name in waits_for(one)} == {"each[2].rate"}
    plan = await rated(keys, failed=["each[2].rate"])
    assert len([one for one in plan.steps["good.p"] if not one.is_pending]) == 2


async def test_an_item_that_is_held_back_by_one_that_is_not_selected_is_out_of_reach() -> None:
    reached = (await rated("")).out_of_reach(Selection(items=frozenset({"3"})))
    assert [(one.address, need.address) for one, need in reached] == [("good[3].p", "each[2].rate")]


async def test_a_request_with_the_count_of_a_list_that_is_not_made_yet_waits_for_the_list() -> None:
    """It was paid for with the most items that the list can have, and then again with their number."""
    each = group("foreach: $(write)", pic=PICTURE % "$(item.name)")
    plan = await plan_of(steps(write=LIST, each=each, sum=PICTURE % "one of $(each.count)"))
    assert not all(work.is_settled for work in plan.steps["sum"][0].works)


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
    inner = group("foreach: [$(item.name)]", own=PICTURE % "inner $(item)")
    each = group("foreach: $(write)", pic=PICTURE % "$(item.name)", inner=inner)
    file = steps(write=LIST, each=each, further=group(foreach, pic=PICTURE % prompt))
    records = Records()
    plan = await plan_of(file, known=records)
    assert all(one.is_pending for one in plan.steps["further.pic"])
    records.answer(plan.steps["write"][0], texts=('[{"name": "a"}]',))
    plan = await plan_of(file, known=records)
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
async def test_an_item_waits_for_its_id(foreach: str, tmp_path: Path) -> None:
    """It was paid for, or saved, with a number or a hash in place of the id, and then again with the id.

    The item has no address before, and so no take.
    """
    b = PICTURE % "b $(number)" + ", save_as: $(id).png"
    each = group(foreach, a=PICTURE % "of $(id)", b=b, c=PICTURE % "c $(number)")
    file = "params: {photo: image}\n" + steps(picture=PICTURE % "one", word=WORD, each=each)
    plan = await plan_of(file, photo=photo(tmp_path / "x.png"))
    assert plan.steps["each.a"][0].request["prompt"] == "of x"
    assert [one.works[0].is_settled for one in plan.steps["each.a"]] == [True, False]
    assert [one.is_pending for one in plan.steps["each.b"]] == [False, True]
    assert [(one.is_pending, one.works[0].is_settled) for one in plan.steps["each.c"]] == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("foreach: $(face), id: $(item.faceId)", "$(item.faceId)"),
        ("foreach: $(face), id: face-$(item.faceId)", "$(item.faceId)"),
        ("foreach: $(face), id: $(item.faceId)", "$(id)"),
        ("matrix: {f: $(face.faceId)}", "$(matrix.f)"),
    ],
)
async def test_an_item_with_an_expiring_id_of_the_site_starts_once_the_id_is_there(keys: str, shown: str) -> None:
    """Its number stays in the address, because the id expires; the steps of the items stayed pending for ever."""
    face = ANSWER % "faces" + ", reuse: 12h, parse: {list: {faceId: handle}, at_most: 3}"
    file, records = steps(face=face, each=group(keys, lips=PICTURE % f"of {shown}")), Records()
    plan = await plan_of(file, known=records)
    assert all(one.is_pending for one in plan.steps["each.lips"])
    records.answer(plan.steps["face"][0], [{"faceId": "f1"}, {"faceId": "f2"}], texts=("[]",), at=ago(60))
    found = (await plan_of(file, known=records)).steps["each.lips"]
    assert [one.address for one in found] == ["each[1].lips", "each[2].lips"]
    assert [(one.state, one.is_pending, one.works[0].is_settled) for one in found] == [("+", False, True)] * 2


@pytest.mark.parametrize("failed", [[], ["each[1].pic"]])
async def test_the_number_of_items_is_known_before_their_ids(failed: list[str]) -> None:
    """A step with the number waited for the ids, was not run after a failure, and missed in the lowest price."""
    clips = group("matrix: {x: $(each.pic)}", clip=CLIP % "$(matrix.x)")
    file = of_rows("t: string", pic=PIC) + further(clips=clips, say=SPEECH % "$(clips.count) clips")
    plan = await plan_of(file, rows=ROWS[:2], failed=failed)
    assert [one.is_pending for one in plan.steps["clips.clip"]] == [True, True]
    (say,) = plan.steps["say"]
    assert (say.state, say.is_pending, say.is_sure, say.blocked_by, waits_for(say)) == ("+", False, True, "", [])


async def test_a_step_waits_for_the_name_of_its_file() -> None:
    """Its file was saved as `<text:…>`, and again under its name."""
    file, records = steps(word=WORD, picture=PICTURE % "one" + ", save_as: $(word).png"), Records()
    word, picture = (await plan_of(file)).instances
    assert picture.is_pending
    records.answer(word, texts=("mug",))
    _, picture = (await plan_of(file, known=records)).instances
    assert (picture.is_pending, picture.save_as) == (False, "mug.png")


async def test_values_of_used_files_and_candidates_wait_for_the_conditions_of_what_exists(tmp_path: Path) -> None:
    clip = "model: kling-v2.6-pro-image-to-video, from: $(params.photo), with: {prompt: $(params.title), duration: 5}"
    titled = "params: {title: string, photo: image}\n" + steps(clip=clip)
    is_long = "when: {gt: [$(voice.seconds), 4]}"
    uses = steps(
        voice=SPEECH % "$(params.line)",
        title=f"{is_long}, {WORD}",
        large=f"{is_long}, {PICTURE % 'large'}",
        small=PICTURE % "small",
        made="use: ./titled.yaml, with: {title: $(title or params.line), photo: $(large or small)}",
        chosen="review: $(large or small)",
    )
    pipeline, records = using(tmp_path, "params: {line: string}\n" + uses, titled=titled), Records()
    await run(pipeline, records, line="a long line " * 9)
    plan = await plan_of(pipeline, known=records, line="a line of few words here")
    assert (states(plan), plan.steps["made.clip"][0].works[0].is_settled) == ("+===>r", False)
    assert waits_for(plan.steps["chosen"][0]) == ["voice"]
    short = Media(uri="v.mp3", kind="audio", mime="", size=1, sha256="a" * 64, seconds=2)
    records.answer(plan.steps["voice"][0], outputs=(short,))
    plan = await plan_of(pipeline, known=records, line="a line of few words here")
    assert states(plan) == "=xx=+r"
    assert plan.steps["made.clip"][0].request["prompt"] == "a line of few words here"


async def test_the_parts_of_what_a_review_shows_wait_for_the_choice() -> None:
    """An item of an answer, an answer, and what used files return."""
    shots = group("foreach: $(list)", checked="review: $(item)", picture=PICTURE % "$(checked.name)")
    pipeline, records = (
        steps(
            list=LIST,
            shots=shots,
            answer=ANSWER % "y" + ", parse: {object: {t: string}}, takes: 2",
            chosen="review: $(answer)",
            picture=PICTURE % "of $(chosen.t)",
        ),
        Records(),
    )
    plan = await plan_of(pipeline, known=records)
    records.answer(plan.steps["list"][0], [{"name": "one"}, {"name": "two"}])
    for work, title in zip(plan.steps["answer"][0].works, ("a mug", "a cup"), strict=True):
        records.known[work.key] = KnownWork("=", value={"t": title})
    plan = await plan_of(pipeline, known=records)
    assert states(plan) == "=rrrr=rr"
    of = {one.address: one.request["of"] for one in plan.instances if one.model == "review"}
    choices = {"chosen": {"take": 2}, "shots[2].checked": {"take": 1}}
    choices = {name: {"of": of[name], **choice} for name, choice in choices.items()}
    plan = await plan_of(pipeline, known=records, choices=choices)
    assert states(plan) == "=r=r+==+"
    assert plan.steps["picture"][0].request["prompt"] == "of a cup"


async def test_the_outputs_of_a_used_file_wait_for_the_choice_among_files(tmp_path: Path) -> None:
    shown = steps(pics=group("foreach: $(params.names)", p=PICTURE % "$(item)"), last=PICTURE % "last")
    a = f"params: {{names: list}}\n{shown}outputs: {{pics: $(pics.p), last: $(last)}}\n"
    main = steps(
        a="use: ./a.yaml, with: {names: [one]}",
        b="use: ./b.yaml, with: {names: [two, three]}",
        chosen="review: [$(b), $(a)]",
        clips=group("foreach: $(chosen.pics)", clip=CLIP % "$(item)"),
        more=f"when: {{missing: $(chosen.last)}}, {PICTURE % 'more'}",
    )
    pipeline, records = using(tmp_path, main, a=a, b=a.replace(", last: $(last)", "")), Records()
    records.make(await plan_of(pipeline))
    plan = await plan_of(pipeline, known=records)
    assert states(plan, "chosen", "clips.clip", "more") == "rrrr"
    assert waits_for(plan.steps["more"][0]) == ["chosen"]
    of = plan.steps["chosen"][0].request["of"]
    for take, found in ((1, "=+++"), (2, "=+x")):
        plan = await plan_of(pipeline, known=records, choices={"chosen": {"take": take, "of": of}})
        assert states(plan, "chosen", "clips.clip", "more") == found


async def test_the_parts_of_an_argument_wait_for_the_decision_which_it_is(tmp_path: Path) -> None:
    shot = ANSWER % "%s" + ", parse: {object: {%s}}"
    inner = "params: {shot: any}\n" + steps(
        pic=PICTURE % "$(params.shot.t)",
        more=f"when: {{exists: $(params.shot.u)}}, {PICTURE % 'more'}",
        other=PICTURE % "other",
    )
    first, second = shot % ("a", "t: string"), shot % ("b", "t: string, u: string")
    uses = steps(ask=ASK, a=f"when: $(ask.ok), {first}", b=second, u="use: ./inner.yaml, with: {shot: $(a or b)}")
    pipeline, records = using(tmp_path, uses, inner=inner), Records()
    plan = await plan_of(pipeline, known=records)
    for name, answer in {"a": {"t": "shot a"}, "b": {"t": "shot b", "u": "v"}}.items():
        records.answer(plan.steps[name][0], answer)
    plan = await plan_of(pipeline, known=records)
    assert [(one.is_pending, one.works[0].is_settled) for one in plan.instances[3:]] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    for is_ok, found in ((True, "+x+"), (False, "+++")):
        records.answer(plan.steps["ask"][0], {"ok": is_ok})
        decided = await plan_of(pipeline, known=records)
        assert states(decided)[3:] == found
        assert decided.steps["u.pic"][0].request["prompt"] == ("shot a" if is_ok else "shot b")


async def test_a_list_parameter_takes_strings_that_are_not_decided_yet(tmp_path: Path) -> None:
    each = group("foreach: $(params.names)", pic=PICTURE % "$(item)")
    inner = "params: {names: list}\n" + steps(each=each)
    uses = steps(
        ask=ASK, word=f"when: $(ask.ok), {ANSWER % 'w'}", u="use: ./inner.yaml, with: {names: [$(word or 'jug'), mug]}"
    )
    pipeline, records = using(tmp_path, uses, inner=inner), Records()
    plan = await plan_of(pipeline, known=records)
    records.answer(plan.steps["word"][0], texts=("cup",))
    records.answer(plan.steps["ask"][0], {"ok": True})
    assert [one.works[0].is_settled for one in plan.steps["u.each.pic"]] == [False, True]
    decided = (await plan_of(pipeline, known=records)).steps["u.each.pic"]
    assert [(one.is_pending, one.request["prompt"]) for one in decided] == [(False, "cup"), (False, "mug")]


@pytest.mark.parametrize("invalid_items", ["", "invalid_items: skip\n"], ids=["refuse", "skip"])
async def test_an_edit_takes_an_option_that_is_not_decided_yet(invalid_items: str, tmp_path: Path) -> None:
    params = "params: {at: {enum: [first, last]}, t: string}\n"
    inner = params + steps(q=PICTURE % "x") + "outputs: {at: $(params.at)}\n"
    outer = invalid_items + of_rows(
        "t: string",
        j=ASK,
        v="model: kling-v2.6-pro-text-to-video, with: {prompt: x, duration: 5, sound: false}",
        u="when: $(j.ok), use: ./inner.yaml, with: {at: first, t: x}",
        f="edit: frame, with: {video: $(v), at: $(u.at or 'last')}",
    )
    plan = await plan_of(using(tmp_path, outer, inner=inner), rows=ROWS[:1])
    assert states(plan) == "+++>"


@pytest.mark.parametrize("candidates", ["$(a), $(film)", "$(film), $(a)"])
@pytest.mark.parametrize("condition", ["missing", "exists"])
async def test_a_condition_on_the_starts_of_a_choice_waits_for_the_choice(candidates: str, condition: str) -> None:
    file = steps(
        p=PICTURE % "p",
        a=CLIP % "$(p)",
        b=CLIP.replace("slow", "fast") % "$(p)",
        film="edit: concat, with: {videos: [$(a), $(b)]}",
        chosen=f"review: [{candidates}]",
        pay=f"when: {{{condition}: $(chosen.starts)}}, {PICTURE % 'hello'}",
    )
    plan = await plan_of(file)
    assert waits_for(plan.steps["pay"][0]) == ["chosen"]
    of = plan.steps["chosen"][0].request["of"]
    for take, candidate in enumerate(candidates.split(", "), 1):
        plan = await plan_of(file, choices={"chosen": {"take": take, "of": of}})
        assert states(plan, "pay") == ("+" if (candidate == "$(film)") == (condition == "exists") else "x")


@pytest.mark.parametrize(("first", "second"), [("film", "clip"), ("clip", "film")])
@pytest.mark.parametrize("condition", ["missing", "exists"])
async def test_a_condition_on_the_starts_of_an_option_waits_for_the_decision(
    first: str, second: str, condition: str
) -> None:
    made = {"film": "edit: concat, with: {videos: [$(a), $(b)]}", "clip": CLIP.replace("slow", "still") % "$(p)"}
    file = steps(
        ask=ASK,
        p=PICTURE % "p",
        a=CLIP % "$(p)",
        b=CLIP.replace("slow", "fast") % "$(p)",
        **{first: f"when: $(ask.ok), {made[first]}", second: made[second]},
        chosen=f"review: $({first} or {second})",
        pay=f"when: {{{condition}: $(chosen.starts)}}, {PICTURE % 'hello'}",
    )
    (pay,) = (await plan_of(file)).steps["pay"]
    assert (pay.state, pay.is_pending) == ("r", True)


async def test_an_edit_whose_only_clip_cannot_be_made_is_planned() -> None:
    clip = "expect: $(j.ok), model: kling-v2.6-pro-text-to-video, with: {prompt: slow, duration: 5, sound: false}"
    film = "edit: concat, with: {videos: $(one.clip)}, require: any"
    file, records = steps(j=ASK, one=group("", clip=clip), film=film), Records()
    records.answer((await plan_of(file)).steps["j"][0], {"ok": False})
    assert [one.address for one in (await plan_of(file, known=records)).instances] == ["j", "one.clip", "film"]


async def test_an_undecided_value_is_a_barrier_for_what_depends_on_it_and_for_nothing_else() -> None:
    extra = f"when: {{equals: [$(s.ok), true]}}, {PICTURE % 'extra'}"
    after = f"when: {{exists: $(extra)}}, {CLIP % '$(extra)'}"
    file, records = steps(s=ASK, extra=extra, after=after, beside=PICTURE % "beside"), Records()
    key = (await plan_of(file)).steps["extra"][0].works[0].key
    records.known[key] = result(key, "z-image/turbo")
    plan = await plan_of(file, known=records)
    assert states(plan) == "+=>+"
    ask, _, after_it, beside = plan.instances
    assert [one.is_pending for one in (after_it, beside)] == [True, False]
    assert "s" in waits_for(after_it)
    prices = [one.works[0].price for one in (ask, after_it, beside)]
    assert plan.price.least == prices[0].least + prices[2].least
    assert plan.price.most == sum(one.most for one in prices)
    records.answer(ask, {"ok": False})
    assert states(await plan_of(file, known=records)) == "=xx+"


async def test_a_step_behind_a_false_expect_is_planned_as_one_that_cannot_be_made() -> None:
    first = f"expect: {{lt: [$(params.n), 3]}}, {PICTURE % 'x'}"
    [unmet, second] = (await plan_of("params: {n: integer}\n" + steps(a=first, b=CLIP % "$(a)"), n=5)).instances
    assert (unmet.state, second.state, second.blocked_by) == ("x", "x", "a")
    assert second.note == "it needs a, which fails: the expect condition is false"


class Rounds(Records):
    number = 1

    async def round(self, pipeline: str) -> Round:
        return Round(f"{pipeline}-{self.number}", datetime.now(UTC))


@pytest.mark.parametrize("when", ["{exists: $(ask)}", "{equals: [$(ask), a text]}"])
async def test_the_step_of_a_condition_is_made_in_each_round_even_where_what_follows_exists(when: str) -> None:
    file = steps(ask=ANSWER % "x" + ", reuse: never", clip=f"when: {when}, {PICTURE % 'a'}")
    rounds = Rounds()
    assert await run(file, rounds) == 2
    rounds.number = 2
    assert await run(file, rounds) == 1
