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
from tests.support.world.planned_works import Records, plan_of

TEXT = "rhart-text-g-3-flash-preview/text-to-text"


async def shipped(name: str, folder: Path) -> Plan:
    return await Pipeline.shipped(name).plan(GIVEN[name][0](folder))


@pytest.mark.parametrize("name", GIVEN)
async def test_an_example_costs_what_the_design_says(name: str, tmp_path: Path) -> None:
    plan = await shipped(name, tmp_path)
    assert [problem.head for problem in plan.problems] == []
    assert " / ".join(prices(plan.price)) == GIVEN[name][1]


SOUNDS = """\
params: {one: audio, other: audio}
steps:
  sound:
    model: doubao-seed-audio-1.0
    with: {text_prompt: rain, speech_rate: 0, audio_url: [$(params.one), $(params.other)]}
"""


@pytest.mark.parametrize("claim", ["", "    assume: {seconds: 1}", "    assume: {seconds: 20}"])
@pytest.mark.parametrize("lengths", [(2, 9), (9, 2)])
async def test_what_is_charged_for_inputs_of_unlike_lengths_is_between_least_and_most(
    rh: Emulator, tmp_path: Path, lengths: tuple[int, int], claim: str
) -> None:
    files = [sound(tmp_path / f"{seconds}.wav", seconds) for seconds in lengths]
    plan = await Pipeline.from_text(SOUNDS + claim).plan(one=files[0], other=files[1])
    assert not plan.problems
    async with Client(rh.key, base_url=rh.url) as client:
        links = [(await client.upload(Path(file), name=Path(file).name, mime="audio/wav")).url for file in files]
        request = {"text_prompt": "rain", "speech_rate": 0, "audio_url": links}
        charged = (await client.price_preview("bytedance/doubao-seed-audio-1.0", request)).amount
    assert plan.price.least <= charged <= plan.price.most


async def test_a_claim_counts_where_a_length_is_not_known(tmp_path: Path) -> None:
    text = """\
params: {words: string}
steps:
  voice: {model: minimax/speech-2.8-hd, with: {text: $(params.words)}}
  lips:
    model: kling-lip-sync/lip-sync-video
    from: $(voice)
    with: {session_id: s, face_id: f, sound_start_time: 0, sound_end_time: 5000, sound_insert_time: 0}
    assume: {seconds: 12}
"""
    plan = await Pipeline.from_text(text).plan(words="x" * 300)  # 10 to 100 s of speech
    price = plan.price_of(plan.steps["lips"])
    assert (price.least, price.expected, price.most) == (Decimal("0.70"), Decimal("1.05"), Decimal("1.05"))


MOOD = "{model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {object: {mood: string}}}"
ONE = "model: z-image/turbo, with: {prompt: hi}"
MAYBE = f"a: {{when: {{equals: [$(s.mood), calm]}}, {ONE}}}"


@pytest.mark.parametrize(
    ("steps", "least", "most"),
    [
        ((f"p: {{when: {{in: [$(params.a), [$(s.mood), b]]}}, {ONE}}}",), "0.02", "0.06"),
        ((f"p: {{when: {{in: [$(params.a), [$(s.mood), calm]]}}, {ONE}}}",), "0.06", "0.06"),
        ((f"p: {{when: {{equals: [[$(s.mood)], [$(params.a)]]}}, {ONE}}}",), "0.02", "0.06"),
        ((MAYBE, f"p: {{when: {{missing: $(a)}}, {ONE}, takes: 2}}"), "0.02", "0.10"),
        ((MAYBE, f"p: {{when: {{exists: $(a)}}, {ONE}, takes: 2}}"), "0.02", "0.10"),
        ((MAYBE, f"p: {{when: {{not: {{exists: $(a)}}}}, {ONE}, takes: 2}}"), "0.02", "0.10"),
        ((f"p: {{when: {{exists: $(s)}}, {ONE}}}",), "0.06", "0.06"),
    ],
)
async def test_a_condition_on_what_is_not_known_yet_is_not_decided(
    steps: tuple[str, ...], least: str, most: str
) -> None:
    text = "params: {a: string}\nsteps:\n" + "".join(f"  {step}\n" for step in (f"s: {MOOD}", *steps))
    price = (await Pipeline.from_text(text).plan(a="calm")).price
    assert (str(price.least), str(price.most)) == (least, most)


CLIP = "kling-v2.6-pro-image-to-video, with: {image_url: $(params.f), prompt: x, duration: 5, sound: false}"


async def test_the_price_of_the_first_that_exists_covers_the_next_one_while_that_is_not_known(tmp_path: Path) -> None:
    given = {"f": photo(tmp_path / "f.png"), "v": video(tmp_path / "v.mp4", 30)}
    text = (
        f"params: {{f: image, v: video}}\nsteps:\n  s: {MOOD}\n"
        f"  a: {{when: {{equals: [$(s.mood), calm]}}, model: {CLIP}}}\n  sure: {{model: {CLIP}}}\n"
    )
    prices = []
    for source in ("$(a or params.v)", "$(sure or params.v)", "$(params.v)"):
        plan = await Pipeline.from_text(f"{text}  up: {{model: topazlabs-video-upscale, from: {source}}}\n").plan(given)
        assert plan.problems == []
        prices.append(plan.price_of(plan.steps["up"]))
    either, clip, film = prices
    assert clip.most < film.least
    assert (either.least, either.most) == (clip.least, film.most)


@pytest.mark.parametrize("source", ["$(a or b)", "$(b)"])
async def test_the_price_is_open_if_one_of_several_inputs_has_no_known_length(source: str, tmp_path: Path) -> None:
    text = (
        f"params: {{f: image}}\nsteps:\n  s: {MOOD}\n  a: {{when: {{equals: [$(s.mood), calm]}}, model: {CLIP}}}\n"
        "  b: {model: hailuo-2.3-t2v-pro, with: {prompt: x}}\n"
        f"  up: {{model: topazlabs-video-upscale, from: {source}}}\n"
    )
    plan = await plan_of(text, f=photo(tmp_path / "f.png"))
    assert plan.price_of(plan.steps["up"]).is_open
    assert [note for note in plan.notes if "topazlabs-video-upscale" in note]


TIMED = "model: kling-video-o3-pro/reference-to-video, with: {prompt: %s, sound: false, duration: %s}"
SECONDS = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: %s}, parse: {object: {seconds: integer}}"


@pytest.mark.parametrize("first", [TIMED % ("a", 5), SECONDS % "a"])
@pytest.mark.parametrize("other", ["10", "b.seconds"])
async def test_the_price_covers_a_number_in_place_of_one_that_may_be_absent(first: str, other: str) -> None:
    records, prices = Records(), []
    for duration in (f"$(a.seconds or {other})", "5", "10"):
        text = (
            f"steps:\n  s: {MOOD}\n  b: {{{SECONDS % 'b'}}}\n  a: {{when: {{equals: [$(s.mood), calm]}}, {first}}}\n"
            f"  clip: {{{TIMED % ('clip', duration)}}}\n"
        )
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
    answer = f"model: {TEXT}, with: {{prompt: x}}"
    plan = await plan_of(
        f"steps:\n  words: {{{answer}}}\n  long: {{{answer}, parse: {{object: {{text: string}}}}}}\n"
        f"  short: {{{answer}, "
        "parse: {object: {text: {type: string, max: 99}, number: integer}}}\n"
        f'  voice: {{model: minimax/speech-2.8-hd, with: {{text: "say $({text})", voice_id: Wise_Woman}}}}\n'
    )
    price = plan.price_of(plan.steps["voice"])
    assert price.is_open is is_open
    assert price.is_open or price.most < Decimal("0.07")


async def test_in_a_group_that_may_be_absent_a_step_beside_another_one_is_certain() -> None:
    text = (
        f"steps:\n  s: {MOOD}\n  g:\n    when: {{equals: [$(s.mood), calm]}}\n    steps:\n"
        f"      a: {{{ONE}}}\n      b: {{when: {{missing: $(a)}}, {ONE}, takes: 5}}\n"
    )
    price = (await Pipeline.from_text(text).plan()).price
    assert (str(price.least), str(price.most)) == ("0.02", "0.06")


async def test_a_used_file_whose_condition_is_not_decided_does_not_count_for_the_least(tmp_path: Path) -> None:
    (tmp_path / "used.yaml").write_text(f"steps: {{p: {{{ONE}}}}}\noutputs: {{p: $(p)}}\n")
    outer = tmp_path / "outer.yaml"
    outer.write_text(f"steps:\n  s: {MOOD}\n  u: {{when: {{equals: [$(s.mood), calm]}}, use: ./used.yaml}}\n")
    price = (await Pipeline.from_file(outer).plan()).price
    assert (str(price.least), str(price.most)) == ("0.02", "0.06")


@pytest.mark.parametrize("fan_out", ["foreach: $(s)", "matrix: {x: $(s.a)}", "matrix: {y: [1], x: $(s.a)}"])
async def test_of_an_answer_s_items_only_the_first_is_certain(fan_out: str) -> None:
    text = (
        "steps:\n  s: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, "
        f"parse: {{list: {{a: string}}, at_most: 6}}}}\n  g: {{{fan_out}, steps: {{p: {{model: z-image/turbo, "
        f"with: {{prompt: {'$(item.a)' if 'foreach' in fan_out else '$(matrix.x)'}}}}}}}}}\n"
    )
    price = (await Pipeline.from_text(text).plan()).price
    assert (str(price.least), str(price.most)) == ("0.06", "0.26")


@pytest.mark.parametrize("attempts", [(1, 3), (3, 1)])
async def test_an_equal_request_of_two_steps_has_the_highest_price_and_the_most_attempts(
    attempts: tuple[int, int],
) -> None:
    step = "{{model: z-image/turbo, with: {{prompt: a mug}}, attempts: {}}}"
    text = f"steps: {{a: {step.format(attempts[0])}, b: {step.format(attempts[1])}}}"
    plan = await Pipeline.from_text(text).plan()
    assert plan.price.most == plan.price.least * 3
    assert [work_call(one, one.works[0]).attempts for one in plan.instances] == [3, 3]


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
        answer = {"model": TEXT, "with": {"prompt": "Choose"}, "parse": {"object": {"chosen": kind}}}
        file = {"params": {"photo": {"type": "image"}}, "steps": {"answer": answer, "step": step}}
        plan = await Pipeline.from_dict(file).plan(photo=photo(tmp_path / "p.png"))
        assert not plan.problems
        return plan.price

    unknown, each = await price("$(answer.chosen)"), [await price(value) for value in known]
    assert not unknown.is_open
    assert unknown.least == min(one.least for one in each)
    assert unknown.most == max(one.most for one in each)


ITEM_BUDGET = """
budget: {amount: 50, item: 1}
steps:
  each:
    foreach: [cup, mug]
    id: $(item)
    steps:
      picture: {model: z-image/turbo, with: {prompt: $(item)}}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: a turn, duration: 5, sound: false}}
"""


async def test_a_budget_of_items_below_their_lowest_price_is_a_problem() -> None:
    pipeline = Pipeline.from_text(ITEM_BUDGET, name="f.yaml")
    plan = await pipeline.plan()
    [problem] = plan.problems
    assert str(problem).startswith(
        "f.yaml:2:28: item cup costs at least 1.79 CNY and would not be finished: the budget of an item is 1 (2 items "
        "cost more than this); raise `budget.item`, or select other items"
    )
    plan = await pipeline.plan(selection=Selection(frozenset({"each.picture"})))
    assert not plan.problems
    plan = await Pipeline.from_text(ITEM_BUDGET.replace("item: 1", "item: 1.79")).plan()
    assert not plan.problems
