"""The prices of the twelve examples, for the inputs that the design names."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client
from rh_prefect.emulator import Emulator
from rh_prefect.pipelines.call_builder import work_call
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PriceRange, Selection
from rh_prefect.pipelines.plan.render import prices
from tests.support.samples.example_prices import GIVEN
from tests.support.samples.pipeline_assets import photo, sound, video
from tests.support.samples.steps import ANSWER, CLIP, LIPS, PICTURE, SPEECH, TEXT_MODEL, group, steps
from tests.support.world.planned_works import Records, plan_of


async def shipped(name: str, folder: Path) -> Plan:
    return await Pipeline.shipped(name).plan(GIVEN[name][0](folder))


@pytest.mark.parametrize("name", GIVEN)
async def test_an_example_costs_what_the_design_says(name: str, tmp_path: Path) -> None:
    plan = await shipped(name, tmp_path)
    assert [problem.head for problem in plan.problems] == []
    assert " / ".join(prices(plan.price)) == GIVEN[name][1]


RAIN = "model: doubao-seed-audio-1.0, with: {text_prompt: rain, speech_rate: 0, audio_url: [$(params.a), $(params.b)]}"


@pytest.mark.parametrize("claim", ["", ", assume: {seconds: 1}", ", assume: {seconds: 20}"])
@pytest.mark.parametrize("lengths", [(2, 9), (9, 2)])
async def test_what_is_charged_for_inputs_of_unlike_lengths_is_between_least_and_most(
    rh: Emulator, tmp_path: Path, lengths: tuple[int, int], claim: str
) -> None:
    first, second = (sound(tmp_path / f"{seconds}.wav", seconds) for seconds in lengths)
    plan = await plan_of("params: {a: audio, b: audio}\n" + steps(rain=RAIN + claim), a=first, b=second)
    async with Client(rh.key, base_url=rh.url) as client:
        links = [(await client.upload(Path(one), name=Path(one).name, mime="audio/wav")).url for one in (first, second)]
        request = {"text_prompt": "rain", "speech_rate": 0, "audio_url": links}
        charged = (await client.price_preview("bytedance/doubao-seed-audio-1.0", request)).amount
    assert plan.price.least <= charged <= plan.price.most


async def test_a_claim_counts_where_a_length_is_not_known() -> None:
    lips = LIPS % ("s", "f") + ", assume: {seconds: 12}"
    text = "params: {words: string}\n" + steps(voice=SPEECH % "$(params.words)", lips=lips)
    plan = await plan_of(text, words="x" * 300)  # 10 to 100 s of speech
    price = plan.price_of(plan.steps["lips"])
    assert (price.least, price.expected, price.most) == (Decimal("0.70"), Decimal("1.05"), Decimal("1.05"))


MOOD = ANSWER % "x" + ", parse: {object: {mood: string}}"
CALM = "when: {equals: [$(s.mood), calm]}"
"""A condition that is not decided before the step `s` has its answer."""

ONE = PICTURE % "hi"
MAYBE = f"{CALM}, {ONE}"


async def least_and_most(pipeline: Pipeline, **params: Any) -> tuple[str, str]:
    price = (await plan_of(pipeline, params)).price
    return str(price.least), str(price.most)


@pytest.mark.parametrize(
    ("following", "least", "most"),
    [
        ({"p": f"when: {{in: [$(params.a), [$(s.mood), b]]}}, {ONE}"}, "0.02", "0.06"),
        ({"p": f"when: {{in: [$(params.a), [$(s.mood), calm]]}}, {ONE}"}, "0.06", "0.06"),
        ({"p": f"when: {{equals: [[$(s.mood)], [$(params.a)]]}}, {ONE}"}, "0.02", "0.06"),
        ({"a": MAYBE, "p": f"when: {{missing: $(a)}}, {ONE}, takes: 2"}, "0.02", "0.10"),
        ({"a": MAYBE, "p": f"when: {{exists: $(a)}}, {ONE}, takes: 2"}, "0.02", "0.10"),
        ({"a": MAYBE, "p": f"when: {{not: {{exists: $(a)}}}}, {ONE}, takes: 2"}, "0.02", "0.10"),
        ({"p": f"when: {{exists: $(s)}}, {ONE}"}, "0.06", "0.06"),
        # In a group that may be absent, the step `a` is certain for the step beside it.
        ({"g": group(CALM, a=ONE, b=f"when: {{missing: $(a)}}, {ONE}, takes: 5")}, "0.02", "0.06"),
    ],
)
async def test_a_condition_on_what_is_not_known_is_open(following: dict[str, str], least: str, most: str) -> None:
    pipeline = Pipeline.from_text("params: {a: string}\n" + steps(s=MOOD, **following))
    assert await least_and_most(pipeline, a="calm") == (least, most)


async def test_a_used_file_whose_condition_is_not_decided_does_not_count_for_the_least(tmp_path: Path) -> None:
    (tmp_path / "used.yaml").write_text(steps(p=ONE) + "outputs: {p: $(p)}\n")
    (tmp_path / "outer.yaml").write_text(steps(s=MOOD, u=f"{CALM}, use: ./used.yaml"))
    assert await least_and_most(Pipeline.from_file(tmp_path / "outer.yaml")) == ("0.02", "0.06")


@pytest.mark.parametrize(
    ("fan_out", "prompt"),
    [
        ("foreach: $(s)", "$(item.a)"),
        ("matrix: {x: $(s.a)}", "$(matrix.x)"),
        ("matrix: {y: [1], x: $(s.a)}", "$(matrix.x)"),
    ],
)
async def test_of_an_answer_s_items_only_the_first_is_certain(fan_out: str, prompt: str) -> None:
    answer = ANSWER % "x" + ", parse: {list: {a: string}, at_most: 6}"
    pipeline = Pipeline.from_text(steps(s=answer, g=group(fan_out, p=PICTURE % prompt)))
    assert await least_and_most(pipeline) == ("0.06", "0.26")


OF_PHOTO = CLIP % "$(params.f)"
UPSCALE = "model: topazlabs-video-upscale, from: %s"


async def test_the_price_of_the_first_that_exists_covers_the_next_one_while_that_is_not_known(tmp_path: Path) -> None:
    given = {"f": photo(tmp_path / "f.png"), "v": video(tmp_path / "v.mp4", 30)}
    prices = []
    for source in ("$(a or params.v)", "$(sure or params.v)", "$(params.v)"):
        made = steps(s=MOOD, a=f"{CALM}, {OF_PHOTO}", sure=OF_PHOTO, up=UPSCALE % source)
        plan = await plan_of("params: {f: image, v: video}\n" + made, given)
        prices.append(plan.price_of(plan.steps["up"]))
    either, clip, film = prices
    assert clip.most < film.least
    assert (either.least, either.most) == (clip.least, film.most)


@pytest.mark.parametrize("source", ["$(a or b)", "$(b)"])
async def test_the_price_is_open_if_one_of_several_inputs_has_no_known_length(source: str, tmp_path: Path) -> None:
    unknown = "model: hailuo-2.3-t2v-pro, with: {prompt: x}"
    made = steps(s=MOOD, a=f"{CALM}, {OF_PHOTO}", b=unknown, up=UPSCALE % source)
    plan = await plan_of("params: {f: image}\n" + made, f=photo(tmp_path / "f.png"))
    assert plan.price_of(plan.steps["up"]).is_open
    assert [note for note in plan.notes if "topazlabs-video-upscale" in note]


TIMED = "model: kling-video-o3-pro/reference-to-video, with: {prompt: %s, sound: false, duration: %s}"
SECONDS = ANSWER + ", parse: {object: {seconds: integer}}"


@pytest.mark.parametrize("first", [TIMED % ("a", 5), SECONDS % "a"])
@pytest.mark.parametrize("other", ["10", "b.seconds"])
async def test_the_price_covers_a_number_in_place_of_one_that_may_be_absent(first: str, other: str) -> None:
    records, prices = Records(), []
    for duration in (f"$(a.seconds or {other})", "5", "10"):
        text = steps(s=MOOD, b=SECONDS % "b", a=f"{CALM}, {first}", clip=TIMED % ("clip", duration))
        plan = await plan_of(text)
        records.answer(plan.steps["b"][0], {"seconds": 10})
        if "object" in first:
            records.answer(plan.steps["a"][0], {"seconds": 5})
        plan = await plan_of(text, known=records)
        prices.append(plan.price_of(plan.steps["clip"]))
    either, short, long = prices
    assert either.least <= short.least < long.most <= either.most


@pytest.mark.parametrize(
    ("text", "is_open"), [("words", True), ("long.text", True), ("short.text", False), ("short.number", False)]
)
async def test_the_price_of_speech_is_open_if_its_text_has_no_limit(text: str, *, is_open: bool) -> None:
    made = steps(
        words=ANSWER % "x",
        long=ANSWER % "x" + ", parse: {object: {text: string}}",
        short=ANSWER % "x" + ", parse: {object: {text: {type: string, max: 99}, number: integer}}",
        voice=f'model: minimax/speech-2.8-hd, with: {{text: "say $({text})", voice_id: Wise_Woman}}',
    )
    plan = await plan_of(made)
    price = plan.price_of(plan.steps["voice"])
    assert price.is_open is is_open
    assert price.is_open or price.most < Decimal("0.07")


@pytest.mark.parametrize("attempts", [(1, 3), (3, 1)])
async def test_an_equal_request_of_two_steps_has_the_higher_price_and_attempts(attempts: tuple[int, int]) -> None:
    plan = await plan_of(steps(**{name: f"{ONE}, attempts: {count}" for name, count in zip("ab", attempts)}))
    assert plan.price.most == plan.price.least * 3
    assert [work_call(one, one.works[0]).attempts for one in plan.instances] == [3, 3]


@pytest.mark.parametrize(("assume", "most"), [("price: 7", Decimal(7)), ("seconds: 5", None)])
async def test_an_open_price_of_the_catalogue_is_no_maximum(assume: str, most: Decimal | None) -> None:
    with_a_new_option = "with: {prompt: waves, unchecked: {resolution: new}}"
    made = steps(a=f"model: alibaba/wan-2.6/text-to-video, {with_a_new_option}, assume: {{{assume}}}")
    (one,) = (await plan_of(made)).instances
    assert work_call(one, one.works[0]).price == most


@pytest.mark.parametrize(
    ("model", "param", "kind", "known"),
    [
        ("kling-v2.6-pro-image-to-video", "duration", "integer", [5, 10]),
        ("kling-v2.6-pro-image-to-video", "sound", "boolean", [True, False]),
        ("midjourney-text-to-image-v8.1", "hd", "boolean", [True, False]),
        ("nano-banana-pro/text-to-image-official-stable", "resolution", "string", ["1k", "4k"]),
        ("qwen-image-2.0/text-to-image", "image_num", "integer", [1, 6]),
    ],
)
async def test_the_price_covers_each_value_that_a_step_may_choose(
    model: str, param: str, kind: str, known: list[Any], tmp_path: Path
) -> None:
    given = {"duration": 5, "sound": False} if "kling" in model else {}
    picture = {"image_url": "$(params.photo)"} if "kling" in model else {}

    async def price(value: Any) -> PriceRange:
        step = {"model": model, "with": {"prompt": "a cup", **picture, **given, param: value}}
        answer = {"model": TEXT_MODEL, "with": {"prompt": "Choose"}, "parse": {"object": {"chosen": kind}}}
        file = {"params": {"photo": {"type": "image"}}, "steps": {"answer": answer, "step": step}}
        return (await plan_of(Pipeline.from_dict(file), photo=photo(tmp_path / "p.png"))).price

    unknown, each = await price("$(answer.chosen)"), [await price(value) for value in known]
    assert not unknown.is_open
    assert unknown.least == min(one.least for one in each)
    assert unknown.most == max(one.most for one in each)


async def test_a_budget_of_items_below_their_lowest_price_is_a_problem() -> None:
    each = group("foreach: [cup, mug], id: $(item)", picture=PICTURE % "$(item)", clip=CLIP % "$(picture)")
    text = "budget: {amount: 50, item: 1}\n" + steps(each=each)
    [problem] = (await Pipeline.from_text(text, name="f.yaml").plan()).problems
    assert str(problem).startswith(
        "f.yaml:1:28: item cup costs at least 1.79 CNY and would not be finished: the budget of an item is 1 (2 items "
        "cost more than this); raise `budget.item`, or select other items"
    )
    await plan_of(text, selection=Selection(frozenset({"each.picture"})))
    await plan_of(text.replace("item: 1", "item: 1.79"))
