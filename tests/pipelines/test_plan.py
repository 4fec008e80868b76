"""States, identities and what is needed, with records that are kept in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from rh_prefect.errors import InputError, PlanChanged
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.media import Media
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, KnownWorks, Plan, ReviewedPlan, WorkQuery
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.planned_steps import SIGNS, STATES, Selection
from tests.support.samples.pipeline_assets import photo, sound, video
from tests.support.world.call_count import calls_of
from tests.support.world.planned_works import ROWS, SHOTS, Records, result, run


def states(plan: Plan, path: str) -> str:
    return "".join(one.state for one in plan.steps[path])


async def test_the_first_plan_is_new_at_the_top_and_follows_below() -> None:
    plan = await Pipeline.from_text(SHOTS).plan(rows=ROWS, size="1080p")
    assert [states(plan, path) for path in plan.steps] == ["+", "+++", ">>>", ">>>", ">>>"]


async def test_what_is_not_wanted_is_absent_and_costs_nothing() -> None:
    plan = await Pipeline.from_text(SHOTS).plan(rows=ROWS)
    assert states(plan, "each.large") == "xxx"
    assert str(plan.price.expected) == "6.09"


async def test_the_second_run_pays_for_nothing() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    assert await run(pipeline, records, rows=ROWS, size="1080p") == 10
    plan = await pipeline.plan(known=records, rows=ROWS, size="1080p")
    assert set(plan.counts) == {"="}
    assert plan.price.most == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("picture", "still"),
        lambda text: text.replace("name: shots", "name: other\ndescription: another"),
        lambda text: text.replace("{model: z-image/turbo,", "{attempts: 3, model: rhart-image/z-image/turbo,"),
        lambda text: text.replace(
            "with: {prompt: slow, duration: 5, sound: false}", 'with: {sound: false, duration: "5", prompt: "slow"}'
        ),
        lambda text: text.replace("save_as: $(id).mp4", "save_as: other/$(id).mp4"),
    ],
    ids=["rename", "describe", "another name of the model", "reorder and quote", "save elsewhere"],
)
async def test_what_does_not_change_a_request_costs_nothing(change: Any) -> None:
    records = Records()
    await run(Pipeline.from_text(SHOTS), records, rows=ROWS)
    assert await run(Pipeline.from_text(change(SHOTS)), records, rows=[*reversed(ROWS)]) == 0


async def test_one_changed_cell_is_that_row_s_chain() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    await run(pipeline, records, rows=ROWS, size="1080p")
    rows = [ROWS[0], {**ROWS[1], "mood": "wild"}, ROWS[2]]
    plan = await pipeline.plan(known=records, rows=rows, size="1080p")
    assert [states(plan, path) for path in plan.steps] == ["=", "=+=", "=>=", "=>=", "=>="]
    assert await run(pipeline, records, rows=rows, size="1080p") == 3


async def test_a_line_below_the_table_explains_its_signs_and_no_others() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    said = signs_of(await pipeline.plan(known=records, rows=ROWS))
    assert said == "signs: = existing, + new, > waiting for a result, x absent"
    await run(pipeline, records, rows=ROWS)
    earlier = (await pipeline.plan(known=records, rows=ROWS)).as_json()
    plan = await pipeline.plan(known=records, rows=[{**ROWS[0], "mood": "wild"}, *ROWS[1:]])
    compare(plan, earlier, pipeline.file.params)
    assert signs_of(plan) == "signs: = existing, + new, ~ changed, > waiting for a result, x absent"
    assert set(SIGNS) == set(STATES)


async def test_a_picture_has_a_box_for_each_step() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    await run(pipeline, records, rows=ROWS[:1])
    picture = (await pipeline.plan(known=records, rows=ROWS, size="720p")).svg()
    lines = re.findall("<text [^>]*>([^<]*)</text>", picture)
    found = lines.index("each.clip")
    assert lines[found + 1 : found + 4] == [
        "kling-v2.6-pro-image-to-video",
        "1 existing, 2 waiting for a result",
        "3.50",
    ]


async def test_a_picture_says_that_a_price_is_open() -> None:
    text = (
        "params: {model: {enum: [z-image/turbo]}}\nsteps:\n  a: {model: $(params.model), with: {prompt: x}}\n"
        "  w: {workflow: 2030000000000000002, with: {10.image: $(a)}, assume: {kind: image}}\n"
    )
    assert "&gt;= 0.00" in (await Pipeline.from_text(text).plan(model="z-image/turbo")).svg()


def signs_of(plan: Plan) -> str:
    head, *rows = plan.table().splitlines()[1:]
    (line,) = (row.strip() for row in rows if row.strip().startswith("signs: "))
    columns = head.split()[head.split().index("=") : -2]
    assert [words.split()[0] for words in line.removeprefix("signs: ").split(", ")] == columns
    return line


async def test_a_changed_request_says_what_was_and_a_removed_row_is_named() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    await run(pipeline, records, rows=ROWS)
    earlier = (await pipeline.plan(known=records, rows=ROWS)).as_json()
    plan = await pipeline.plan(known=records, rows=[ROWS[0], {**ROWS[1], "mood": "wild"}])
    compare(plan, earlier, pipeline.file.params)
    changed = [one for one in plan.instances if one.state == "~"]
    assert [(one.address, one.why) for one in changed] == [
        ("each[bowl].picture", [{"param": "prompt", "was": "bowl, calm", "is": "bowl, wild", "from": "row 2"}])
    ]
    assert plan.removed == ["each[jug].picture", "each[jug].clip", "each[jug].video"]
    assert '~ each[bowl].picture  prompt: "bowl, calm" -> "bowl, wild"' in plan.table()


async def test_a_change_line_shows_values_as_json_and_none_where_only_the_form_differs() -> None:
    text = "params: {p: any, of: {type: table, columns: {n: any}}}\nsteps: {a: {model: z-image/turbo, with: WITH}}"
    pipeline = Pipeline.from_text(text.replace("WITH", "{prompt: x, unchecked: {seen: $(params.p)}}"))

    async def lines(was: Any, now: Any, rows: Any = (), *, to: Any = ()) -> list[str]:
        earlier = json.loads((await pipeline.plan(p=was, of=list(rows))).to_json())
        plan = await pipeline.plan(p=now, of=list(to or rows))
        compare(plan, earlier, pipeline.file.params)
        return [line for line in plan.table().splitlines() if " -> " in line]

    shown = r'["a\nb", "\u001b"] -> true'
    assert await lines(["a\nb", "\x1b"], True) == [f"changed: param p: {shown}", f"~ a  seen: {shown}"]
    assert await lines(1, True) == ["changed: param p: 1 -> true", "~ a  seen: 1 -> true"]
    assert await lines(5, 5.0, [{"n": 5}], to=[{"n": "5"}]) == []
    assert (await lines(True, "false"))[0] == "changed: param p: true -> false", "a command line has only texts"
    start = "a mug on a table, seen from above, in the light of "
    found = await lines(f"{start}dawn, calm", f"{start}noon, calm")
    assert found[0] == 'changed: param p: "… in the light of dawn, calm" -> "… in the light of noon, calm"'


async def test_a_retake_is_another_work_and_going_back_is_free() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    await run(pipeline, records, rows=ROWS)
    takes = {"each[mug].picture": 2}
    assert await run(pipeline, records, rows=ROWS, takes=takes) == 2, "the picture, and the clip that follows"
    assert await run(pipeline, records, rows=ROWS) == 0
    assert await run(pipeline, records, rows=ROWS, takes=takes) == 0
    assert await run(pipeline, records, rows=ROWS, takes={**takes, "each.picture": 2, "each[mug].picture": 1}) == 4


async def test_in_flight_unknown_and_missing_results_are_shown() -> None:
    records, pipeline = Records(), Pipeline.from_text(SHOTS)
    first = await pipeline.plan(known=records, rows=ROWS)
    states_: tuple[Literal["…", "?", "!"], ...] = ("…", "?", "!")
    for one, state in zip(first.steps["each.picture"], states_):
        records.known[one.works[0].key] = KnownWork(state)
    plan = await pipeline.plan(known=records, rows=ROWS)
    assert states(plan, "each.picture") == "…?!"
    assert plan.price_of(plan.steps["each.picture"]).most == 0


@pytest.mark.parametrize(("ages", "expected"), [((7200, 7200), [3, 4]), ((7200, 60), [2, 3]), ((60, 7200), [1, 3])])
async def test_takes_that_are_too_old_are_replaced_by_as_many_others(
    ages: tuple[int, int], expected: list[int]
) -> None:
    text = "steps: {a: {model: z-image/turbo, with: {prompt: hi}, takes: 2, reuse: 1h}}\noutputs: {a: $(a.takes)}"
    records, pipeline = Records(), Pipeline.from_text(text)
    for work, age in zip((await pipeline.plan()).works, ages):
        records.known[work.key] = result(work.key, "z-image/turbo", age=float(age))
    plan = await pipeline.plan(known=records)
    assert [work.take for work in plan.instances[0].works] == expected
    assert [work.take for work in plan.works if work.is_paid] == [take for take in expected if take > 2]


FACE = """\
params: {video: video, words: string}
steps:
  face:
    model: kling-lip-sync/identify-face
    from: $(params.video)
    parse: {object: {sessionId: handle, faceId: handle}}
    reuse: 12h
  voice: {model: minimax/speech-2.8-hd, with: {text: $(params.words)}}
  lips:
    model: kling-lip-sync/lip-sync-video
    from: $(voice)
    with:
      session_id: $(face.sessionId)
      face_id: $(face.faceId)
      sound_start_time: 0
      sound_end_time: 5000
      sound_insert_time: 0
    assume: {seconds: 5}
"""


def film(sha256: str = "a" * 64) -> Media:
    return Media(uri="film.mp4", kind="video", mime="video/mp4", size=1, sha256=sha256, seconds=5)


async def made_lips(records: Records) -> tuple[Pipeline, dict[str, Any]]:
    pipeline, given = Pipeline.from_text(FACE), {"video": film(), "words": "hello"}
    for _ in range(3):
        plan = await pipeline.plan(given, known=records)
        for path, items in plan.steps.items():
            work = items[0].works[0]
            if work.is_settled and work.known is None:
                value = {"sessionId": "s", "faceId": "f"} if path == "face" else None
                records.known[work.key] = (
                    KnownWork("=", texts=("{}",), value=value, age=60)
                    if value
                    else result(work.key, "suno" if path == "voice" else "clip")
                )
    return pipeline, given


async def test_an_expired_id_is_not_asked_for_where_nothing_needs_it() -> None:
    records = Records()
    pipeline, given = await made_lips(records)
    assert set((await pipeline.plan(given, known=records)).counts) == {"="}
    face = next(key for key, one in records.known.items() if one.value is not None)
    records.known[face] = KnownWork("=", texts=("{}",), value={"sessionId": "s", "faceId": "f"}, age=13 * 3600)
    plan = await pipeline.plan(given, known=records)
    assert (dict(plan.counts), plan.price.most) == ({"=": 3}, Decimal(0))
    changed = await pipeline.plan({**given, "words": "hello again"}, known=records)
    assert [one[0].state for one in changed.steps.values()] == ["+", "+", ">"]
    assert changed.steps["face"][0].works[0].take == 2


REVIEWED = """\
params: {look: string}
steps:
  picture: {model: z-image/turbo, takes: 3, with: {prompt: $(params.look)}}
  chosen: {review: $(picture), ask: Which one}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: slow}}
outputs: {clip: $(clip)}
"""


async def test_a_review_holds_back_what_follows_until_a_choice_among_what_was_shown() -> None:
    records, pipeline = Records(), Pipeline.from_text(REVIEWED)
    records.make(await pipeline.plan(known=records, look="red"))
    waiting = await pipeline.plan(known=records, look="red")
    assert [one[0].state for one in waiting.steps.values()] == ["=", "r", "r"]
    stale = await pipeline.plan(known=records, look="red", choices={"chosen": {"of": "00000000", "take": 2}})
    assert [one[0].state for one in stale.steps.values()] == ["=", "r", "r"]
    assert any("different candidates" in note for note in stale.notes)
    of = stale.steps["chosen"][0].request["of"]
    chosen = await pipeline.plan(known=records, look="red", choices={"chosen": {"of": of, "take": 2}})
    assert [one[0].state for one in chosen.steps.values()] == ["=", "=", "+"]
    second = await pipeline.plan(known=records, look="red", choices={"chosen": {"of": of, "take": 3}})
    assert chosen.steps["clip"][0].works[0].key != second.steps["clip"][0].works[0].key


async def test_a_correction_replaces_a_text_and_never_a_file() -> None:
    records, pipeline = Records(), Pipeline.from_text(REVIEWED)
    records.make(await pipeline.plan(known=records, look="red"))
    first = await pipeline.plan(known=records, look="red", choices={"chosen": {"of": "0"}})
    of = first.steps["chosen"][0].request["of"]
    plan = await pipeline.plan(known=records, look="red", choices={"chosen": {"of": of, "text": "/etc/passwd"}})
    assert [one[0].state for one in plan.steps.values()] == ["=", "r", "r"]
    text = """\
steps:
  line: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}}
  checked: {review: $(line)}
  voice: {model: minimax/speech-2.8-hd, with: {text: $(checked)}}
"""
    records, spoken = Records(), Pipeline.from_text(text)
    records.make(await spoken.plan(known=records))
    of = (await spoken.plan(known=records, choices={"checked": {"of": "0"}})).steps["checked"][0].request["of"]
    plan = await spoken.plan(known=records, choices={"checked": {"of": of, "text": "better"}})
    assert [one[0].state for one in plan.steps.values()] == ["=", "=", "+"]
    assert plan.steps["voice"][0].request["text"] == "better"


async def test_an_answer_that_is_there_has_its_own_number_of_items() -> None:
    pipeline, records = Pipeline.shipped("film"), Records()
    first = await pipeline.plan(known=records, prompt="x")
    assert len(first.steps["shots.picture"]) == 6
    answer = '```json\n[{"picture": "p", "move": "m", "line": "l"}, {"picture": "q", "move": "n", "line": "k"}]\n```'
    key = first.steps["script"][0].works[0].key
    records.known[key] = KnownWork("=", texts=(answer,))
    plan = await pipeline.plan(known=records, prompt="x")
    assert [one.request["prompt"] for one in plan.steps["shots.picture"]] == ["p", "q"]


CHAIN = """\
params: {hero: image, scenes: {type: table, columns: {move: string}}}
steps:
  shots:
    foreach: $(params.scenes)
    steps:
      clip: {model: kling-v2.6-pro-image-to-video, from: $(previous.end or params.hero), with: {prompt: $(item.move)}}
      end: {edit: frame, with: {video: $(clip), at: last}}
"""


async def test_a_chain_takes_the_item_before_and_follows_it(tmp_path: Path) -> None:
    pipeline, records = Pipeline.from_text(CHAIN), Records()
    given: dict[str, Any] = {"hero": photo(tmp_path / "h.png"), "scenes": [{"move": str(n)} for n in range(3)]}
    plan = await pipeline.plan(given, known=records)
    assert states(plan, "shots.clip") == "+>>"
    assert [one.needs[0].address for one in plan.steps["shots.clip"][1:]] == ["shots[1].end", "shots[2].end"]
    assert await run(pipeline, records, **given) == 3
    given["scenes"][1] = {"move": "other"}
    assert states(await pipeline.plan(given, known=records), "shots.clip") == "=+>"


async def test_a_step_that_may_be_absent_does_not_count_for_the_least() -> None:
    text = """\
params: {words: {type: string, max: 400}}
steps:
  line: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: $(params.words)}, parse: {text: {max: 300}}}
  voice: {model: minimax/speech-2.8-hd, with: {text: $(line)}}
  picture: {when: {lt: [$(voice.seconds), 12]}, model: z-image/turbo, with: {prompt: $(params.words)}}
"""
    price = (await Pipeline.from_text(text).plan(words="x")).price
    assert [str(one) for one in (price.least, price.expected, price.most)] == ["0.02", "0.1530", "0.246"]


async def test_a_model_without_a_price_is_named_with_what_helps() -> None:
    text = """\
params: {photo: image}
steps:
  a: {model: kling-v3-turbo-pro-image-to-video, from: $(params.photo), with: {prompt: x}}
"""
    media = Media(uri="p.png", kind="image", mime="", size=1, sha256="a" * 64)
    plan = await Pipeline.from_text(text).plan(photo=media)
    assert "expected >= 0.00, most >= 0.00" in plan.table()
    assert plan.notes == [
        "a: the catalogue has no price of kling-v3-turbo-pro-image-to-video; assume: {price: …} gives one."
    ]


@pytest.mark.parametrize(
    ("reuse", "all_runs", "is_noted"),
    [("", True, False), ("reuse: 7d", True, True), ("reuse: never", True, True), ("reuse: never", False, False)],
)
async def test_a_budget_of_all_runs_notes_steps_that_each_round_pays_for(
    reuse: str, all_runs: bool, is_noted: bool, tmp_path: Path
) -> None:
    """Even if only a used file has such a step."""
    step = f"steps:\n  mug: {{model: z-image/turbo, with: {{prompt: a mug}}, {reuse}}}\n"
    (tmp_path / "used.yaml").write_text(step)
    budget = f"budget: {{amount: 1, all_runs: {str(all_runs).lower()}}}\n"
    (tmp_path / "user.yaml").write_text(f"{budget}steps:\n  shop: {{use: ./used.yaml}}\n")
    for pipeline in (Pipeline.from_text(budget + step), Pipeline.from_file(tmp_path / "user.yaml")):
        notes = [one for one in (await pipeline.plan()).notes if "each round pays for mug again" in one]
        assert bool(notes) == is_noted
        notes = [one for one in (await pipeline.with_reuse("never").plan()).notes if "each round pays for" in one]
        assert bool(notes) == all_runs, "also with the run's option"


async def test_subtitles_without_the_film_s_length_are_noted() -> None:
    text = """
params: {clips: {type: files, of: video}}
steps:
  cut: {edit: concat, with: {videos: $(params.clips)}}
  words: {edit: subtitles, with: {text: [One., Two.], at: $(cut.starts)MORE}}
"""
    found = {more: Pipeline.from_text(text.replace("MORE", more)).checked.notes for more in ("", ", seconds: 4")}
    assert found[", seconds: 4"] == []
    (note,) = found[""]
    assert "pipeline.yaml:5: the last text can be shown after the end of cut; add seconds: $(cut.seconds)." in note


class OneUnderWay(KnownWorks):
    """Records in which another run has submitted the task of the last work."""

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        return [*([None] * (len(queries) - 1)), KnownWork(state="…", task_id="1")]


async def test_a_reviewed_plan_does_not_pay_again_for_the_task_of_another_run_that_fails() -> None:
    pipeline = Pipeline.from_text("steps:\n  a: {model: z-image/turbo, with: {prompt: x}}\n")
    new, waiting = await pipeline.plan(), await pipeline.plan(known=OneUnderWay())
    (one,) = waiting.instances
    assert one.state == "…"
    assert not waiting.price.most
    assert "its task was in progress" in ReviewedPlan(waiting.as_json()).refusal(one, one.works[0])
    assert not ReviewedPlan(new.as_json()).refusal(one, one.works[0])


async def test_a_reviewed_plan_does_not_pay_for_a_model_that_the_catalogue_has_elsewhere_or_dearer() -> None:
    text = """
steps:
  a: {model: z-image/turbo, with: {prompt: x}}
  b: {model: kling-v2.6-pro-image-to-video, from: $(a), with: {prompt: x, duration: 5, sound: false}}
"""
    plan = await Pipeline.from_text(text).plan()
    first, second = plan.instances
    assert not second.works[0].is_settled
    steps = plan.as_json()["steps"]
    moved = ReviewedPlan({"steps": [{**step, "endpoint": "acme/x", "work": "0" * 40} for step in steps]})
    assert [moved.refusal(one, one.works[0]) for one in (first, second)] == [
        'endpoint: "acme/x" -> "rhart-image/z-image/turbo"',
        'endpoint: "acme/x" -> "kling-v2.6-pro/image-to-video"',
    ]
    cheap = ReviewedPlan({"steps": [{**step, "price": {"most": 0.01, "open": False}} for step in steps]})
    assert [cheap.refusal(one, one.works[0]).partition(" -> ")[0] for one in (first, second)] == [
        "price: up to 0.01"
    ] * 2


async def test_a_plan_says_that_the_catalogue_changed_and_a_reviewed_one_holds_where_nothing_else_did() -> None:
    pipeline = Pipeline.from_text("steps:\n  a: {model: z-image/turbo, with: {prompt: x}}\n")
    plan = await pipeline.plan()
    reviewed = {**plan.as_json(), "catalogue": "2020-01-01"}
    again = await pipeline.plan()
    compare(again, reviewed, pipeline.file.params)
    assert [(change["what"], change["was"]) for change in again.changes] == [("catalogue", "2020-01-01")]
    ReviewedPlan(reviewed).refuse_changes(again, pipeline.file.params)
    dearer = {**reviewed, "steps": [{**reviewed["steps"][0], "price": {"most": 0.01, "open": False}}]}
    with pytest.raises(PlanChanged, match=r"catalogue: \"2020-01-01\" -> (?s:.*)price: up to 0.01 -> up to 0.04"):
        ReviewedPlan(dearer).refuse_changes(again, pipeline.file.params)


async def test_of_two_takes_a_reviewed_plan_pays_only_for_the_one_that_is_not_in_progress() -> None:
    pipeline = Pipeline.from_text("steps:\n  a: {model: z-image/turbo, takes: 2, with: {prompt: x}}\n")
    plan = await pipeline.plan(known=OneUnderWay())
    (one,) = plan.instances
    refusals = [ReviewedPlan(plan.as_json()).refusal(one, work) for work in one.works]
    assert [work.state for work in one.works] == ["+", "…"]
    assert [bool(refusal) for refusal in refusals] == [False, True]


def test_a_plan_with_a_price_that_is_no_number_is_not_read(tmp_path: Path) -> None:
    text = Pipeline.from_text("steps:\n  a: {model: z-image/turbo, with: {prompt: x}}\n").plan_now().to_json()
    for number in ("NaN", "Infinity"):
        (tmp_path / "p.json").write_text(text.replace('"most": 0.04', f'"most": {number}'))
        with pytest.raises(InputError, match="is not a plan"):
            ReviewedPlan.read(tmp_path / "p.json")


COUNTED = """\
params: {rows: {type: table, columns: {title: string, count: integer}}}
steps:
  each:
    foreach: $(params.rows)
    as: row
    id: $(item.title)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "$(item.title)"}, takes: $(item.count)}
      some: {foreach: [x, y, z], limit: $(row.count), steps: {one: {model: z-image/turbo, with: {prompt: "$(item)"}}}}
      shots:
        model: rhart-text-g-3-flash-preview/text-to-text
        with: {prompt: "$(item.title)"}
        parse: {list: {line: string}, at_most: $(item.count)}
      drawn: {foreach: $(shots), steps: {one: {model: z-image/turbo, with: {prompt: "$(item.line)"}}}}
"""


@pytest.mark.parametrize("count", [2, 2.0, "2", "2.0", "2e0", " 2.0 "])
async def test_a_whole_number_counts_in_each_of_its_forms(count: object) -> None:
    plan = await Pipeline.from_text(COUNTED).plan(rows=[{"title": "mug", "count": count}])
    assert plan.problems == []
    assert len(plan.steps["each.picture"][0].works) == 2
    assert [len(plan.steps[path]) for path in ("each.some.one", "each.drawn.one")] == [2, 2]
    assert plan.steps["each.shots"][0].at_most == 2


USED = """\
params:
  count: {type: integer, max: 2, default: 1}
  flag: {type: boolean, default: false}
  look: {enum: [studio, outdoors], default: studio}
  photo: {type: image, max_mb: 1, default: ./photo.png}
  rows: {type: table, columns: COLUMNS, default: ./rows.csv}
steps:
  picture: {model: z-image/turbo, with: {prompt: "$(params.look) $(params.flag)"}, takes: $(params.count)}
  each: {foreach: $(params.rows), steps: {one: {model: z-image/turbo, with: {prompt: "$(item.title)"}}}}
  small: {edit: resize, with: {file: $(params.photo), width: 20, height: 20}}
outputs: {picture: $(picture)}
""".replace(
    "COLUMNS",
    "{title: string, sold: {type: integer, min: 0, optional: true}, logo: {type: image, optional: true}}",
)


def using(folder: Path, params: str, given: str, *before: str) -> Pipeline:
    (folder / "used.yaml").write_text(USED)
    (folder / "rows.csv").write_text("title\nmug\njug\n")
    photo(folder / "photo.png")
    steps = "".join(f"  {step}\n" for step in before)
    (folder / "outer.yaml").write_text(f"params: {params}\nsteps:\n{steps}  u: {{use: ./used.yaml, with: {given}}}\n")
    return Pipeline.from_file(folder / "outer.yaml")


async def test_the_defaults_of_a_used_file_are_read_relative_to_that_file(tmp_path: Path) -> None:
    plan = await using(tmp_path, "{}", "{}").plan()
    assert plan.problems == []
    assert [one.request["prompt"] for one in plan.steps["u.each.one"]] == ["mug", "jug"]
    assert {Path(one["uri"]).name for one in plan.inputs} == {"rows.csv", "photo.png"}


async def test_a_cut_picture_is_found_before_anything_is_paid(tmp_path: Path) -> None:
    pipeline = using(tmp_path, "{}", "{}")
    picture = tmp_path / "photo.png"
    picture.write_bytes(picture.read_bytes()[:-20])
    (problem,) = {one.message for one in (await pipeline.plan()).problems}
    assert "photo.png is a damaged png file: its end is missing. What to do: create or download it" in problem


@pytest.mark.parametrize(
    ("name", "kind", "value", "said"),
    [
        ("count", "integer", 50, "count takes a whole number up to 2, but 50 is more"),
        ("flag", "string", "maybe", "flag takes true or false, but 'maybe' is a text"),
        ("look", "string", "none", "look takes studio or outdoors, but 'none' is a text"),
        (
            "rows",
            "{type: table, columns: {title: string, sold: integer}}",
            [{"title": "mug", "sold": -1}],
            "row 1 of rows",
        ),
    ],
)
async def test_a_used_file_takes_no_value_that_it_does_not_take_alone(
    name: str, kind: str, value: object, said: str, tmp_path: Path
) -> None:
    pipeline = using(tmp_path, f"{{k: {kind}}}", f"{{{name}: $(params.k)}}")
    (problem,) = (await pipeline.plan(k=value)).problems
    assert said in problem.message
    assert problem.line == 3


async def test_a_used_file_reads_a_text_as_its_parameter_s_type(tmp_path: Path) -> None:
    plan = await using(tmp_path, "{k: string}", "{flag: $(params.k)}").plan(k="True")
    assert plan.problems == []
    assert plan.steps["u.picture"][0].request["prompt"] == "studio true"


async def test_an_answer_that_a_used_file_does_not_take_fails_its_steps_before_they_are_paid(tmp_path: Path) -> None:
    text = "look: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}}"
    pipeline, records = using(tmp_path, "{}", "{look: $(look)}", text), Records()
    records.make(await pipeline.plan(known=records))
    plan = await pipeline.plan(known=records)
    assert plan.steps["u.picture"][0].problems == ("look takes studio or outdoors, but 'a text' is a text",)


@pytest.mark.parametrize(
    ("params", "value", "said"),
    [
        ("{k: {type: table, columns: {name: string}}}", "$(params.k)", "rows needs the column title, and $(params.k)"),
        ("{}", "[{name: a}]", "rows needs the column title, and this list has none; there are name"),
        ("{}", "[a, b]", "rows takes rows of columns, but this list has no columns"),
        ("{}", "[{title: a, logo: b.png}]", "its column logo takes an image, but that of this list is a text"),
    ],
)
def test_a_table_without_the_columns_that_a_used_file_needs_is_refused_by_check(
    params: str, value: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=re.escape(said)):
        using(tmp_path, params, f"{{rows: {value}}}")


RESIZED = (
    "params: {f: image, w: WIDTH}\nsteps: {a: {edit: resize, with: {file: $(params.f), width: VALUE, height: 20}}}\n"
)


@pytest.mark.parametrize("written", ['"20"', '"2e1"', "20.0", "20"])
async def test_an_edit_takes_a_number_in_each_of_its_forms(written: str, tmp_path: Path) -> None:
    pipeline = Pipeline.from_text(RESIZED.replace(", w: WIDTH", "").replace("VALUE", written))
    plan = await pipeline.plan(f=str(photo(tmp_path / "mug.png")))
    assert plan.problems == []
    assert repr(plan.steps["a"][0].values["width"]) == "20"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("20.5", "width takes a whole number, not 20.5"),
        ('"20.5"', "width takes a whole number, not 20.5"),
        ('"9"', "width takes a number from 16 to 8192, not 9"),
    ],
)
async def test_a_number_that_an_edit_does_not_take_is_refused_by_check_and_plan(
    written: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=re.escape(said)):
        Pipeline.from_text(RESIZED.replace(", w: WIDTH", "").replace("VALUE", written))
    pipeline = Pipeline.from_text(RESIZED.replace("WIDTH", "number").replace("VALUE", "$(params.w)"))
    plan = await pipeline.plan(f=str(photo(tmp_path / "mug.png")), w=written.strip('"'))
    assert [problem.message for problem in plan.problems] == [said]


@pytest.mark.parametrize("kind", ["integer", "number", "{type: number, min: 0, max: 3}"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1e999", "9" * 5000, 10**400, float("nan"), float("inf")])
async def test_a_number_that_is_not_finite_or_too_long_is_a_problem(kind: str, value: object) -> None:
    pipeline = Pipeline.from_text(
        f"params: {{n: {kind}}}\nsteps: {{p: {{model: z-image/turbo, with: {{prompt: k $(params.n)}}}}}}"
    )
    (problem,) = (await pipeline.plan(n=value)).problems
    assert re.match(
        r"n takes a (whole )?number, but ('9{37}...' is a text|this one is not finite or has)", problem.message
    )


async def test_a_name_with_the_label_of_the_item_before_is_the_label() -> None:
    pipeline = Pipeline.from_text(
        "params: {t: {type: table, columns: {a: string}}}\nsteps:\n  g:\n    foreach: $(params.t)\n    steps:\n"
        "      p: {model: z-image/turbo, with: {prompt: $(item.a)}}\n"
        '      q: {edit: resize, with: {file: $(p), width: 20, height: 20}, save_as: "$(previous.q.label or id).png"}\n'
    )
    plan = await pipeline.plan(t=[{"a": "x"}, {"a": "y"}])
    assert [one.save_as for one in plan.steps["g.q"]] == ["1.png", "resize.png"]


async def test_an_answer_that_is_no_number_fails_the_step_with_the_condition() -> None:
    pipeline, records = (
        Pipeline.from_text(
            "steps:\n  s: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}}\n"
            "  p: {when: {gt: [$(s), 3]}, model: z-image/turbo, with: {prompt: x}}\n"
        ),
        Records(),
    )
    records.make(await pipeline.plan(known=records))
    (step,) = (await pipeline.plan(known=records)).steps["p"]
    assert (step.state, step.problems) == ("x", ("gt compares numbers, and $(s) is 'a text'",))


@pytest.mark.parametrize(
    ("param", "value", "is_taken"),
    [
        ("{enum: [5, 10]}", "5", True),
        ("{type: files, of: image}", ["PHOTO"], True),
        ("string", 5, True),
        ("integer", "1e1", True),
        ("integer", "5.0", True),
        ("{type: number, optional: true}", "", True),
        ("{type: boolean}", "yes", False),
        ("{type: boolean}", "1", False),
        ("{type: boolean}", 1, False),
        ("{type: integer, max: 3}", 4, False),
    ],
)
async def test_a_flow_leaves_the_check_of_a_parameter_to_the_plan(
    param: str, value: Any, is_taken: bool, tmp_path: Path
) -> None:
    text = f"params: {{x: {param}}}\nsteps: {{p: {{model: z-image/turbo, with: {{prompt: x}}}}}}\n"
    value = [str(photo(tmp_path / "mug.png"))] if value == ["PHOTO"] else value
    given = pipeline_flow(Pipeline.from_text(text)).validate_parameters({"x": value})
    assert given["x"] is value
    assert (not (await Pipeline.from_text(text).plan({"x": given["x"]})).problems) is is_taken


def test_the_form_of_a_flow_shows_the_types_of_its_parameters() -> None:
    text = "params: {x: {type: integer, min: 1, max: 3}}\nsteps: {p: {model: z-image/turbo, with: {prompt: x}}}\n"
    schema = pipeline_flow(Pipeline.from_text(text)).parameters.properties["x"]
    assert (schema["type"], schema["minimum"], schema["maximum"]) == ("integer", 1, 3)


@pytest.mark.parametrize("value", ["a\ud800b", "\udcff"])
async def test_half_of_a_surrogate_pair_is_refused_by_plan_and_before_a_flow_run_is_created(value: str) -> None:
    text = "params: {x: string}\nsteps: {p: {model: z-image/turbo, with: {prompt: $(params.x)}}}\n"
    (problem,) = (await Pipeline.from_text(text).plan(x=value)).problems
    assert problem.message.startswith("x contains an incomplete character (a lone surrogate)")
    flow: Any = pipeline_flow(Pipeline.from_text(text))
    for given in ({"x": value}, {"x": [{"title": value}]}):
        with pytest.raises(InputError, match="The parameter x contains an incomplete character"):
            flow(**given)


async def test_items_with_equal_names_have_addresses_and_ids_of_their_own(tmp_path: Path) -> None:
    names = ("1/photo.png", "2/photo.png", "3/photo-2.png")
    for name in names:
        (tmp_path / name).parent.mkdir()
    files = [photo(tmp_path / name, n) for n, name in enumerate(names)]
    text = """
params: {files: {type: files, of: image}}
steps:
  each:
    foreach: $(params.files)
    steps: {clip: {model: kling-v2.6-pro-image-to-video, from: $(item), with: {prompt: slow}, save_as: $(id).mp4}}
"""
    plan = await Pipeline.from_text(text).plan(files=files)
    assert [problem.head for problem in plan.problems] == []
    assert [one.address for one in plan.instances] == [f"each[{name}].clip" for name in ("photo", "photo-3", "photo-2")]
    assert [one.save_as for one in plan.instances] == ["photo.mp4", "photo-3.mp4", "photo-2.mp4"]


SLASHES = """
params: {rows: {type: table, columns: {name: string}}}
steps:
  each:
    foreach: $(params.rows)
    as: outer
    id: $(item.name)
    steps:
      inner:
        foreach: [c, b/c]
        id: $(item)
        steps: {picture: {model: z-image/turbo, with: {prompt: "$(outer.name), $(item)"}}}
"""


async def test_a_slash_in_an_id_is_no_border_between_ids() -> None:
    plan = await Pipeline.from_text(SLASHES).plan(rows=[{"name": "a"}, {"name": "a/b"}, {"name": "a%2Fb"}])
    assert [problem.head for problem in plan.problems] == []
    items = {"a": ["a/c", "a/b%2Fc"], "a/b": ["a%2Fb/c", "a%2Fb/b%2Fc"], "a%2Fb": ["a%252Fb/c", "a%252Fb/b%2Fc"]}
    assert [one.item for one in plan.instances] == [item for inner in items.values() for item in inner]
    for item, expected in items.items():
        selection = Selection(items=frozenset([item]))
        plan.refuse_unknown(selection)
        assert [one.item for one in plan.instances if selection.has(one)] == expected


CHOICES = """
params: {size: {enum: ["5", "10"], default: "10"}}
steps: {made: {workflow: 2030000000000000001, with: {5.width: $(params.size)}, assume: {kind: image, price: 0.3}}}
"""


@pytest.mark.parametrize("given", ["5", " 5 ", 5, 5.0])
async def test_each_form_of_an_option_is_the_option_that_the_file_declares(given: object) -> None:
    plan = await Pipeline.from_text(CHOICES).plan(size=given)
    assert plan.problems == []
    assert plan.instances[0].request["5.width"] == "5"


TABLE = """
params: {rows: {type: table, columns: {title: string, size: {type: string, default: small}}}}
steps:
  each:
    foreach: $(params.rows)
    steps: {made: {model: z-image/turbo, with: {prompt: "$(item.title), $(item.size)"}}}
"""


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("rows.csv", "title\ncup\n", ["cup, small"]),
        ("rows.jsonl", '{"title": "cup"}\n{"title": "mug", "size": "large"}\n', ["cup, small", "mug, large"]),
    ],
)
async def test_a_column_with_a_default_may_be_absent(
    name: str, content: str, prompts: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    plan = await Pipeline.from_text(TABLE).plan(rows=str(tmp_path / name))
    assert [problem.head for problem in plan.problems] == []
    assert [one.request["prompt"] for one in plan.instances] == prompts


async def test_a_column_that_only_the_first_row_lacks_is_empty_and_not_missing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"size": "s"}\n{"title": "mug"}\n')
    plan = await Pipeline.from_text(TABLE).plan(rows=str(tmp_path / "rows.jsonl"))
    (problem,) = plan.problems
    assert "rows.jsonl row 1: title is empty; the column is required" in problem.head
    (tmp_path / "rows.csv").write_text("titel\ncup\n")
    (problem,) = (await Pipeline.from_text(TABLE).plan(rows=str(tmp_path / "rows.csv"))).problems
    assert "rows.csv has no column title; did you mean titel" in problem.head


async def test_an_existing_folder_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "d[1]").mkdir()
    photo(tmp_path / "d[1]" / "a.png")
    text = "params: {photos: {type: files, of: image}}\nsteps: {s: {edit: contact_sheet, with: {of: $(params.photos)}}}"
    for place in ("d[1]", "d[[]1]/*"):
        plan = await Pipeline.from_text(text).plan(photos=str(tmp_path / place))
        assert (plan.problems, len(plan.instances[0].request["of"])) == ([], 1)


@pytest.mark.parametrize("start", ["text:", "review:", "handle:", "made-by:", "review: the cup: "])
async def test_a_prompt_is_never_a_value_that_is_not_known_yet(start: str) -> None:
    def plan(prompt: str) -> Any:
        return Pipeline.from_text(
            "params: {p: string}\nsteps: {a: {model: z-image/turbo, with: {prompt: $(params.p)}}}"
        ).plan(p=prompt)

    before, after = await plan(f"{start} a cup"), await plan(f"{start} a mug")
    compare(after, json.loads(before.to_json()), {})
    assert [one.state for one in after.instances] == ["~"]


async def test_what_a_step_has_yet_to_make_is_not_compared() -> None:
    """Its placeholder changes with the request that makes it."""
    shipped = {
        "film": ({"prompt": "a"}, {"prompt": "b"}),
        "shots": ({"look": "red"}, {"look": "blue"}),
    }
    for name, (first, second) in shipped.items():
        pipeline = Pipeline.shipped(name) if name == "film" else Pipeline.from_text(REVIEWED)
        before, after = await pipeline.plan(first), await pipeline.plan(second)
        compare(after, json.loads(before.to_json()), {})
        changed = {one.path for one in after.instances if one.why}
        assert changed == ({"script", "music"} if name == "film" else {"picture", "chosen"})


# Lists that are written in the file.

PARTS = """
params:
  intro: {type: video}
  outro: {type: video}
  photos: {type: files, of: image}
steps:
  each:
    foreach: $(params.photos)
    steps:
      clip:
        model: kling-v2.6-pro-image-to-video
        from: $(item)
        with: {prompt: slow, duration: 5, sound: false}
  film: {edit: concat, with: {videos: [$(params.intro), $(each.clip), $(params.outro)]}, require: any}
  sheet: {edit: contact_sheet, with: {of: [$(params.intro), $(each.clip)], captions: [Intro, $(each.id)]}}
"""


def parts(folder: Path) -> dict[str, Any]:
    photos = [photo(folder / f"{name}.png", shade) for shade, name in enumerate("ab")]
    return {"intro": video(folder / "in.mp4", 2), "outro": video(folder / "out.mp4", 3), "photos": photos}


def names_in(plan: Plan, step: str, param: str) -> list[str]:
    values = plan.steps[step][0].values[param]
    return [one if isinstance(one, str) else one.label if one.media is None else one.media.name for one in values]


async def test_lists_in_a_list_are_flattened(tmp_path: Path) -> None:
    records, given = Records(), parts(tmp_path)
    pipeline = Pipeline.from_text(PARTS)
    plan = await pipeline.plan(known=records, **given)
    assert [problem.head for problem in plan.problems] == []
    clip = "kling-v2.6-pro-image-to-video"
    assert names_in(plan, "film", "videos") == ["in.mp4", clip, clip, "out.mp4"]
    assert names_in(plan, "sheet", "captions") == ["Intro", "a", "b"]
    assert plan.steps["film"][0].seconds == pytest.approx(2 + 5.042 * 2 + 3, abs=0.01)
    records.make(plan)
    plan = await pipeline.plan(known=records, **given)
    assert states(plan, "film") == states(plan, "sheet") == "+"


async def test_a_failed_item_of_a_list_in_a_list_is_left_out(tmp_path: Path) -> None:
    pipeline = Pipeline.from_text(PARTS[: PARTS.index("  sheet:")])
    plan = await pipeline.plan(failed=["each[a].clip"], **parts(tmp_path))
    assert names_in(plan, "film", "videos") == ["in.mp4", "kling-v2.6-pro-image-to-video", "out.mp4"]


SINGLE = """
params: {rows: {type: table, columns: {t: string}}}
steps:
  intro: {model: z-image/turbo, with: {prompt: intro}}
  outro: {model: z-image/turbo, with: {prompt: outro}}
  each:
    foreach: $(params.rows)
    id: $(item.t)
    steps:
      pic: {model: z-image/turbo, with: {prompt: $(item.t)}}
  sheet: {edit: contact_sheet, require: any, with: {of: OF, captions: CAPTIONS}}
"""


@pytest.mark.parametrize(
    ("of", "captions", "failed", "left"),
    [
        ("[$(intro), $(each.pic)]", "[Intro, $(each.id)]", "intro", ["a", "b"]),
        ("[$(intro), $(each.pic)]", "[Intro, $(each.id)]", "each[a].pic", ["Intro", "b"]),
        ("[$(intro), $(each.pic), $(outro)]", "[Intro, $(each.id), Outro]", "outro", ["Intro", "a", "b"]),
        ("[$(intro), $(outro)]", "[Intro, Outro]", "intro", ["Outro"]),
        ("$(each.pic)", "[A, B]", "each[a].pic", ["B"]),
    ],
)
async def test_what_stands_beside_a_failed_value_of_a_list_is_left_out_with_it(
    of: str, captions: str, failed: str, left: list[str]
) -> None:
    text = SINGLE.replace("OF", of).replace("CAPTIONS", captions)
    plan = await Pipeline.from_text(text).plan(rows=[{"t": "a"}, {"t": "b"}], failed=[failed])
    assert plan.problems == []
    assert names_in(plan, "sheet", "captions") == left
    assert len(plan.steps["sheet"][0].values["of"]) == len(left)


async def test_an_item_without_a_clip_has_no_caption_and_single_values_stay(tmp_path: Path) -> None:
    absent = PARTS.replace("clip:\n", "clip:\n        when: {equals: [$(id), b]}\n")
    plan = await Pipeline.from_text(absent).plan(**parts(tmp_path))
    assert names_in(plan, "sheet", "captions") == ["Intro", "b"]


@pytest.mark.parametrize("value", ["a", "b"])
async def test_a_condition_looks_into_lists_in_its_list(value: str) -> None:
    text = (
        "params: {look: string, rows: {type: table, columns: {name: string}}}\nsteps:\n"
        "  s: {when: {in: [$(params.look), [x, $(params.rows.name)]]}, model: z-image/turbo, with: {prompt: x}}\n"
    )
    plan = await Pipeline.from_text(text).plan(look=value, rows=[{"name": "a"}])
    assert states(plan, "s") == ("+" if value == "a" else "x")


@pytest.mark.parametrize(
    ("edit", "times", "said"),
    [
        ("mix, with: {speech: [$(params.a), $(params.a)], at: %s}", "[0]", "speech has 2, but at has 1"),
        ("mix, with: {speech: $(params.a), at: %s}", "[0, 1]", "speech has 1, but at has 2"),
        ("subtitles, with: {text: [One, Two], at: %s}", "[0, 1, 2]", "text has 2, but at has 3"),
        ("subtitles, with: {text: [One, Two], at: %s}", "[0, 1]", ""),
    ],
)
async def test_times_that_are_not_one_for_each_item_are_refused_before_payment(
    edit: str, times: str, said: str, tmp_path: Path
) -> None:
    text = f"params: {{a: audio}}\nsteps: {{s: {{edit: {edit % times}}}}}"
    plan = await Pipeline.from_text(text).plan(a=sound(tmp_path / "a.wav", 1))
    assert [one.message.partition(": ")[2] for one in plan.problems] == ([said] if said else [])


async def test_a_misspelt_parameter_of_a_model_that_a_parameter_names_is_refused(tmp_path: Path) -> None:
    text = (
        "params: {model: string, photo: image}\nsteps:\n"
        "  s: {model: $(params.model), from: $(params.photo), with: {prompt: x, duration: 5, sound: false, scale: 2}}\n"
    )
    given = {"model": "kling-v2.6-pro-image-to-video", "photo": photo(tmp_path / "a.png")}
    plan = await Pipeline.from_text(text).plan(given)
    assert plan.problems == []
    assert "s: kling-v2.6-pro-image-to-video has no scale; the parameter is not sent to this model." in plan.notes
    with pytest.raises(PipelineError, match=r"no model that \$\(params.model\) can be has a parameter sounds; did you"):
        Pipeline.from_text(text.replace("sound", "sounds"))
    listed = text.replace("from: $(params.photo), with: {", "with: {image_urls: [$(params.photo)], ")
    plan = await Pipeline.from_text(listed).plan(given)
    said = "kling-v2.6-pro-image-to-video has no parameter image_urls; the nearest is image_url"
    assert said in [one.message for one in plan.problems]


EITHER = """
params: {a: {type: image, optional: true}, b: {type: image, optional: true}}
steps:
  clip:
    when: %s
    model: kling-v2.6-pro-image-to-video
    from: $(params.a or params.b)
    with: {prompt: slow, duration: 5, sound: false}
"""


@pytest.mark.parametrize(
    "condition",
    [
        "{exists: $(params.a or params.b)}",
        "{exists: $( params.a  or params.b )}",
        "{all: [{exists: $(params.a or params.b)}]}",
    ],
)
async def test_a_step_that_runs_if_either_exists_may_use_either(condition: str, tmp_path: Path) -> None:
    pipeline = Pipeline.from_text(EITHER % condition)
    assert states(await pipeline.plan(), "clip") == "x"
    assert states(await pipeline.plan(b=photo(tmp_path / "b.png")), "clip") == "+"


async def test_a_text_with_a_reference_is_a_list_s_item() -> None:
    text = (
        "params: {w: string}\nsteps:\n  voice:\n    model: minimax/speech-2.8-hd\n"
        '    with: {text: hello, pronunciation_dict: ["$(params.w)/(x)"]}\n'
    )
    plan = await Pipeline.from_text(text).plan(w="word")
    assert plan.steps["voice"][0].request["pronunciation_dict"] == ["word/(x)"]


async def test_the_number_of_an_item_of_a_matrix_is_a_value() -> None:
    text = (
        "steps:\n  each:\n    matrix: {look: [calm, wild]}\n    steps:\n"
        '      a: {model: z-image/turbo, with: {prompt: "$(number) $(matrix.look)"}}\n'
    )
    plan = await Pipeline.from_text(text).plan()
    assert [one.request["prompt"] for one in plan.steps["each.a"]] == ["1 calm", "2 wild"]


async def test_a_parameter_that_is_called_as_an_option_of_plan_is_given_in_a_mapping() -> None:
    pipeline = Pipeline.from_text(
        "params: {date: string}\nsteps: {a: {model: z-image/turbo, with: {prompt: $(params.date)}}}\n"
    )
    with pytest.raises(InputError, match="date is an option of `plan` and a parameter of pipeline"):
        await pipeline.plan(date="monday")
    plan = await pipeline.plan({"date": "monday"}, date="2026-11-24")
    assert plan.steps["a"][0].request["prompt"] == "monday"


async def test_the_question_of_a_review_names_the_item() -> None:
    text = (
        "steps:\n  each:\n    foreach: [{name: Ann}, {name: Bo}]\n    steps:\n"
        "      pic: {model: z-image/turbo, with: {prompt: $(item.name)}}\n"
        "      best:\n        review: $(pic)\n        ask: Is this $(item.name)?\n"
    )
    plan = await Pipeline.from_text(text).plan()
    assert [one.ask for one in plan.steps["each.best"]] == ["Is this Ann?", "Is this Bo?"]


def test_the_work_of_a_plan_grows_with_its_steps_and_not_with_their_square() -> None:
    def calls(number: int) -> int:
        steps = "".join(f'  s{n}: {{model: z-image/turbo, with: {{prompt: "a {n}"}}}}\n' for n in range(number))
        pipeline = Pipeline.from_text("steps:\n" + steps)
        return calls_of(pipeline.plan_now)

    calls(1)  # what is read once
    assert calls(400) < 2.4 * calls(200)
