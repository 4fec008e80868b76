"""States, identities and what is needed, with records that are kept in memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pytest

from rh_prefect.errors import InputError, PlanChanged
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.media import Media
from rh_prefect.pipelines.parsed_document import PipelineError, Problems
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, KnownWorks, Plan, ReviewedPlan, WorkQuery
from rh_prefect.pipelines.plan.changes import compare
from rh_prefect.pipelines.plan.fan_out import mark_chosen
from rh_prefect.pipelines.plan.planned_steps import SIGNS, Selection, State
from tests.support.samples.pipeline_assets import photo, sound, video
from tests.support.samples.steps import ANSWER, ASK, CLIP, LIPS, PICTURE, RESIZE, SPEECH, group, of_rows, rows, steps
from tests.support.world.call_count import calls_of
from tests.support.world.planned_works import (
    ROWS,
    SHOTS,
    Records,
    ago,
    plan_of,
    problems_of,
    result,
    run,
    states,
    using,
)

MUG = steps(a=PICTURE % "x")


def by_path(plan: Plan) -> list[str]:
    return [states(plan, path) for path in plan.steps]


async def test_a_first_plan_is_new_at_the_top_and_what_is_not_wanted_is_absent_and_costs_nothing() -> None:
    assert by_path(await plan_of(SHOTS, rows=ROWS, size="1080p")) == ["+", "+++", ">>>", ">>>", ">>>"]
    plan = await plan_of(SHOTS, rows=ROWS)
    assert (states(plan, "each.large"), str(plan.price.expected)) == ("xxx", "6.09")


async def test_a_second_run_pays_for_nothing_and_after_one_changed_cell_for_that_row_s_chain() -> None:
    records, given = Records(), {"rows": ROWS, "size": "1080p"}
    assert await run(SHOTS, records, **given) == 10
    plan = await plan_of(SHOTS, known=records, **given)
    assert (set(plan.counts), plan.price.most) == ({"="}, Decimal(0))
    given["rows"] = [ROWS[0], {**ROWS[1], "mood": "wild"}, ROWS[2]]
    assert by_path(await plan_of(SHOTS, known=records, **given)) == ["=", "=+=", "=>=", "=>=", "=>="]
    assert await run(SHOTS, records, **given) == 3


@pytest.mark.parametrize(
    "change",
    [
        ("picture", "still"),
        ("name: shots", "name: other\ndescription: another"),
        ("{model: z-image/turbo,", "{attempts: 3, model: rhart-image/z-image/turbo,"),
        ("with: {prompt: slow, duration: 5, sound: false}", 'with: {sound: false, duration: "5", prompt: "slow"}'),
        ("save_as: $(id).mp4", "save_as: other/$(id).mp4"),
    ],
    ids=["rename", "describe", "another name of the model", "reorder and quote", "save elsewhere"],
)
async def test_what_does_not_change_a_request_costs_nothing(change: tuple[str, str]) -> None:
    records = Records()
    await run(SHOTS, records, rows=ROWS)
    assert await run(SHOTS.replace(*change), records, rows=[*reversed(ROWS)]) == 0


def signs_of(plan: Plan) -> str:
    head, *lines = plan.table().splitlines()[1:]
    (line,) = (row.strip() for row in lines if row.strip().startswith("signs: "))
    columns = head.split()[head.split().index("=") : -2]
    assert [words.split()[0] for words in line.removeprefix("signs: ").split(", ")] == columns
    return line


async def test_a_changed_request_says_what_was_and_a_removed_row_is_named() -> None:
    records = Records()
    first = await plan_of(SHOTS, known=records, rows=ROWS)
    assert signs_of(first) == "signs: = existing, + new, > waiting for a result, x absent"
    await run(SHOTS, records, rows=ROWS)
    earlier = (await plan_of(SHOTS, known=records, rows=ROWS)).as_json()
    plan = await plan_of(SHOTS, known=records, rows=[ROWS[0], {**ROWS[1], "mood": "wild"}])
    compare(plan, earlier, Pipeline.from_text(SHOTS).file.params)
    assert [(one.address, one.why) for one in plan.instances if one.state == "~"] == [
        ("each[bowl].picture", [{"param": "prompt", "was": "bowl, calm", "is": "bowl, wild", "from": "row 2"}])
    ]
    assert plan.removed == ["each[jug].picture", "each[jug].clip", "each[jug].video"]
    assert '~ each[bowl].picture  prompt: "bowl, calm" -> "bowl, wild"' in plan.table()
    assert signs_of(plan) == "signs: = existing, + new, ~ changed, > waiting for a result, x absent"
    assert set(SIGNS) == set(get_args(State))


async def test_a_plan_has_no_difference_in_price_from_itself() -> None:
    shared = of_rows("title: string", clip=CLIP % "$(first)" + ", same: true", other=PICTURE % "a" + ", same: true")
    text = shared.replace("steps:\n", f"steps:\n  first: {{{PICTURE % 'a'}}}\n", 1)
    for selection in (Selection(), Selection(steps=frozenset({"first"}))):
        plan = await plan_of(text, rows=rows("a", "b", "c"), selection=selection)
        plan.earlier, plan.compared_with = plan.as_json(), "itself"
        assert "difference: least +0.00, expected +0.00, most +0.00 CNY" in plan.table()
        said = plan.markdown().splitlines()
        assert "| difference | +0.00 | +0.00 | +0.00 |" in said
        (these,) = (line for line in said if line.startswith("| this plan |"))
        assert these.replace("this plan", "itself") in said
        cells = [line.split(" | ") for line in said if line.startswith("| `")]
        assert [one[3] for one in cells] == [one[4].rstrip(" |") for one in cells]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("0.01", "a run needs a higher budget"),
        ("{amount: 0.01, whole_items: true}", "some results will not be made"),
        ("0.05", ""),
    ],
)
async def test_a_budget_below_the_lowest_price_of_the_selection_is_noted(budget: str, expected: str) -> None:
    text = f"budget: {budget}\n" + steps(a=PICTURE % "a", b=PICTURE % "b")
    notes = (await plan_of(text, selection=Selection(steps=frozenset({"a"})))).notes
    assert list(notes) == ([f"The budget of 0.01 is below the minimum price; {expected}."] if expected else [])


async def test_large_numbers_are_shown_in_full() -> None:
    text = "params: {n: {type: integer, max: 2000001}}\n" + steps(a=PICTURE % "a $(params.n)")
    assert await problems_of(text, n=2000002) == ["n takes a whole number of at most 2000001, but 2000002 is more"]
    plan = await plan_of("budget: 1234567.89\n" + MUG)
    assert "of a budget of 1234567.89" in plan.table()
    assert "Budget: 1234567.89 CNY." in plan.markdown()


async def test_a_picture_has_a_box_for_each_step_and_says_that_a_price_is_open() -> None:
    records = Records()
    await run(SHOTS, records, rows=ROWS[:1])
    picture = (await plan_of(SHOTS, known=records, rows=ROWS, size="720p")).svg()
    lines = re.findall("<text [^>]*>([^<]*)</text>", picture)
    found = lines.index("each.clip") + 1
    assert lines[found : found + 3] == ["kling-v2.6-pro-image-to-video", "1 existing, 2 waiting for a result", "3.50"]
    text = "params: {model: {enum: [z-image/turbo]}}\n" + steps(
        a="model: $(params.model), with: {prompt: x}",
        w="workflow: 2030000000000000002, with: {10.image: $(a)}, assume: {kind: image}",
    )
    assert "&gt;= 0.00" in (await plan_of(text, model="z-image/turbo")).svg()


async def test_a_change_line_shows_values_as_json_and_none_where_only_the_form_differs() -> None:
    text = "params: {p: any, of: {type: table, columns: {n: any}}}\n"
    pipeline = Pipeline.from_text(text + steps(a=PICTURE % "x, unchecked: {seen: $(params.p)}"))

    async def lines(was: Any, now: Any, before: Any = (), *, to: Any = ()) -> list[str]:
        earlier = json.loads((await pipeline.plan(p=was, of=list(before))).to_json())
        plan = await pipeline.plan(p=now, of=list(to or before))
        compare(plan, earlier, pipeline.file.params)
        return [line for line in plan.table().splitlines() if " -> " in line]

    shown = r'["a\nb", "\u001b"] -> true'
    assert await lines(["a\nb", "\x1b"], True) == [f"changed: param p: {shown}", f"~ a  seen: {shown}"]
    assert await lines(1, True) == ["changed: param p: 1 -> true", "~ a  seen: 1 -> true"]
    assert await lines(5, 5.0, [{"n": 5}], to=[{"n": "5"}]) == []
    assert (await lines(True, "false"))[0] == "changed: param p: true -> false", "a command line has only strings"
    start = "a mug on a table, seen from above, in the light of "
    found = await lines(f"{start}dawn, calm", f"{start}noon, calm")
    assert found[0] == 'changed: param p: "… in the light of dawn, calm" -> "… in the light of noon, calm"'


async def test_a_change_of_the_declared_columns_is_not_called_a_change_of_the_table(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("title,size\na mug,5\n")
    earlier = await plan_of(of_rows("title: string", one=PICTURE % "$(item.title)"), rows=str(table))
    plan = await plan_of(of_rows("title: string, size: integer", one=PICTURE % "$(item.title)"), rows=str(table))
    compare(plan, earlier.as_json(), {})
    changed = [line.strip() for line in plan.table().splitlines() if "changed: " in line]
    assert changed == [
        "changed: the pipeline's file: its content changed",
        f'changed: declared columns of {table}: ["title"] -> ["title", "size"]',
    ]


async def test_a_retake_is_another_work_and_going_back_is_free() -> None:
    records = Records()
    await run(SHOTS, records, rows=ROWS)
    takes = {"each[mug].picture": 2}
    assert await run(SHOTS, records, rows=ROWS, takes=takes) == 2, "the picture, and the clip that follows"
    assert await run(SHOTS, records, rows=ROWS) == 0
    assert await run(SHOTS, records, rows=ROWS, takes=takes) == 0
    assert await run(SHOTS, records, rows=ROWS, takes={**takes, "each.picture": 2, "each[mug].picture": 1}) == 4


async def test_in_flight_unknown_and_missing_results_are_shown() -> None:
    records = Records()
    for one, state in zip((await plan_of(SHOTS, rows=ROWS)).steps["each.picture"], ("…", "?", "!")):
        records.known[one.works[0].key] = KnownWork(state)  # type: ignore[arg-type]  # it is one of the states
    plan = await plan_of(SHOTS, known=records, rows=ROWS)
    assert states(plan, "each.picture") == "…?!"
    assert plan.price_of(plan.steps["each.picture"]).most == 0


@pytest.mark.parametrize("lost", ["=", "!"])
@pytest.mark.parametrize(("ages", "expected"), [((7200, 7200), [3, 4]), ((7200, 60), [2, 3]), ((60, 7200), [1, 3])])
async def test_takes_that_are_too_old_are_replaced_by_as_many(
    ages: tuple[int, int], expected: list[int], lost: Literal["=", "!"]
) -> None:
    text, records = steps(a=PICTURE % "hi" + ", takes: 2, reuse: 1h") + "outputs: {a: $(a.takes)}", Records()
    for work, age in zip((await plan_of(text)).works, ages):
        records.known[work.key] = replace(result(work.key, "z-image/turbo", at=ago(age)), state=lost)
    plan = await plan_of(text, known=records)
    assert [work.take for work in plan.instances[0].works] == expected
    assert [work.take for work in plan.works if work.is_paid] == [take for take in expected if take > 2]


FACE = "params: {video: video, words: string}\n" + steps(
    face="model: kling-lip-sync/identify-face, from: $(params.video), reuse: 12h, "
    "parse: {object: {sessionId: handle, faceId: handle}}",
    voice=SPEECH % "$(params.words)",
    lips=LIPS % ("$(face.sessionId)", "$(face.faceId)") + ", assume: {seconds: 5}",
)


async def test_a_text_that_is_not_known_yet_fits_the_pattern_of_its_parameter() -> None:
    given = "custom_voice_id: $(name.id), text: hello, need_noise_reduction: true, need_volume_normalization: true"
    text = "params: {speech: audio}\n" + steps(
        name=ANSWER % "a name" + ", parse: {object: {id: {type: string, max: 12}}}",
        voice=f"model: minimax/voice-clone, with: {{audio: $(params.speech), {given}, model_: speech-02-hd}}",
    )
    speech = Media(uri="a.wav", kind="audio", mime="audio/wav", size=1, sha256="a" * 64, seconds=20)
    assert states(await plan_of(text, speech=speech)) == "+>"


async def test_an_expired_id_is_not_asked_for_where_nothing_needs_it() -> None:
    film = Media(uri="film.mp4", kind="video", mime="video/mp4", size=1, sha256="a" * 64, seconds=5)
    records, given = Records(), {"video": film, "words": "hello"}

    def identify(plan: Plan, age: float) -> None:
        records.answer(plan.steps["face"][0], {"sessionId": "s", "faceId": "f"}, texts=("{}",), at=ago(age))

    first = await plan_of(FACE, given)
    identify(first, 60)
    (voice,) = first.steps["voice"][0].works
    records.known[voice.key] = result(voice.key, "suno")
    (lips,) = (await plan_of(FACE, given, known=records)).steps["lips"][0].works
    records.known[lips.key] = result(lips.key, "clip")
    assert states(await plan_of(FACE, given, known=records)) == "==="
    identify(first, 13 * 3600)
    plan = await plan_of(FACE, given, known=records)
    assert (states(plan), plan.price.most) == ("===", Decimal(0))
    changed = await plan_of(FACE, {**given, "words": "hello again"}, known=records)
    assert states(changed) == "++>"
    assert changed.steps["face"][0].works[0].take == 2


REVIEWED = "params: {look: string}\n" + steps(
    picture=PICTURE % "$(params.look)" + ", takes: 3",
    chosen='review: "$( picture )", ask: Which one',
    clip="model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: slow}",
)
SPOKEN = steps(line=ANSWER % "x", checked="review: $(line)", voice=SPEECH % "$(checked)")


async def reviewed(text: str, step: str, params: dict[str, str], choice: dict[str, Any]) -> Plan:
    """A plan with a choice among the candidates that exist, unless the choice says among which."""
    records = Records()
    records.make(await plan_of(text, params))
    of = (await plan_of(text, params, known=records)).steps[step][0].request["of"]
    return await plan_of(text, params, known=records, choices={step: {"of": of} | choice})


async def test_a_review_holds_back_what_follows_until_a_choice_among_what_was_shown() -> None:
    look = {"look": "red"}
    stale = await reviewed(REVIEWED, "chosen", look, {"of": "00000000", "take": 2})
    assert states(stale) == "=rr"
    assert any("for other candidates" in note for note in stale.notes)
    chosen, second = [await reviewed(REVIEWED, "chosen", look, {"take": take}) for take in (2, 3)]
    assert states(chosen) == "==+"
    assert chosen.steps["clip"][0].works[0].key != second.steps["clip"][0].works[0].key


async def test_a_correction_replaces_a_text_and_neither_a_file_nor_an_object() -> None:
    assert states(await reviewed(REVIEWED, "chosen", {"look": "red"}, {"text": "/etc/passwd"})) == "=rr"
    plan = await reviewed(SPOKEN, "checked", {}, {"text": "better"})
    assert states(plan) == "==+"
    assert plan.steps["voice"][0].request["text"] == "better"
    text = steps(
        answer=ANSWER % "x" + ", parse: {object: {t: string}}",
        checked="review: $(answer)",
        picture=PICTURE % "a photo of $(checked.t)",
    )
    records = Records()
    records.answer((await plan_of(text)).steps["answer"][0], {"t": "a mug"})
    of = (await plan_of(text, known=records)).steps["checked"][0].request["of"]
    choices = {"checked": {"of": of, "text": '{"t": "a cup"}'}}
    assert states(await plan_of(text, known=records, choices=choices)) == "=rr"


async def test_an_answer_that_is_there_has_its_own_number_of_items() -> None:
    film, records = Pipeline.shipped("film"), Records()
    first = await plan_of(film, prompt="x")
    assert len(first.steps["shots.picture"]) == 6
    answer = '```json\n[{"picture": "p", "move": "m", "line": "l"}, {"picture": "q", "move": "n", "line": "k"}]\n```'
    records.answer(first.steps["script"][0], texts=(answer,))
    plan = await plan_of(film, known=records, prompt="x")
    assert [one.request["prompt"] for one in plan.steps["shots.picture"]] == ["p", "q"]


MOVE = (CLIP % "$(previous.end or params.hero)").replace("slow", "$(item.move)")
CHAIN = "params: {hero: image, scenes: {type: table, columns: {move: string}}}\n" + steps(
    shots=group("foreach: $(params.scenes)", clip=MOVE, end="edit: frame, with: {video: $(clip), at: last}"),
)


async def test_a_chain_takes_the_item_before_and_follows_it(tmp_path: Path) -> None:
    records = Records()
    given: dict[str, Any] = {"hero": photo(tmp_path / "h.png"), "scenes": [{"move": str(n)} for n in range(3)]}
    plan = await plan_of(CHAIN, given)
    assert states(plan, "shots.clip") == "+>>"
    assert [one.needs[0].address for one in plan.steps["shots.clip"][1:]] == ["shots[1].end", "shots[2].end"]
    assert await run(CHAIN, records, **given) == 3
    given["scenes"][1] = {"move": "other"}
    assert states(await plan_of(CHAIN, given, known=records), "shots.clip") == "=+>"


async def test_a_step_that_may_be_absent_does_not_count_for_the_least() -> None:
    text = "params: {words: {type: string, max: 400}}\n" + steps(
        line=ANSWER % "$(params.words)" + ", parse: {text: {max: 300}}",
        voice=SPEECH % "$(line)",
        picture="when: {lt: [$(voice.seconds), 12]}, " + PICTURE % "$(params.words)",
    )
    price = (await plan_of(text, words="x")).price
    assert [str(one) for one in (price.least, price.expected, price.most)] == ["0.02", "0.1530", "0.246"]


async def test_a_model_without_a_price_is_named_with_what_helps() -> None:
    a = "model: kling-v3-turbo-pro-image-to-video, from: $(params.photo), with: {prompt: x}"
    media = Media(uri="p.png", kind="image", mime="", size=1, sha256="a" * 64)
    plan = await plan_of("params: {photo: image}\n" + steps(a=a), photo=media)
    assert "expected >= 0.00, most >= 0.00" in plan.table()
    assert plan.notes == [
        "a: the catalogue has no price for kling-v3-turbo-pro-image-to-video; set the price with assume: {price: …}."
    ]


@pytest.mark.parametrize(
    ("reuse", "all_runs", "is_noted"),
    [("", True, False), ("reuse: 7d", True, True), ("reuse: never", True, True), ("reuse: never", False, False)],
)
async def test_a_budget_of_all_runs_notes_steps_that_each_round_pays_for(
    reuse: str, all_runs: bool, is_noted: bool, tmp_path: Path
) -> None:
    """Even if only a used file has such a step."""
    step = steps(mug=PICTURE % "a mug" + f", {reuse}")
    budget = f"budget: {{amount: 1, all_runs: {str(all_runs).lower()}}}\n"
    user = using(tmp_path, budget + steps(shop="use: ./used.yaml"), used=step)
    for pipeline in (Pipeline.from_text(budget + step), user):
        notes = [one for one in (await pipeline.plan()).notes if "each round pays for mug again" in one]
        assert bool(notes) == is_noted
        notes = [one for one in (await pipeline.with_reuse("never").plan()).notes if "each round pays for" in one]
        assert bool(notes) == all_runs, "also with the run's option"


def test_subtitles_without_the_film_s_length_are_noted() -> None:
    def notes(more: str) -> Sequence[str]:
        words = f"edit: subtitles, with: {{text: [One., Two.], at: $(cut.starts){more}}}"
        text = steps(cut="edit: concat, with: {videos: $(params.clips)}", words=words)
        return Pipeline.from_text("params: {clips: {type: files, of: video}}\n" + text).checked.notes

    assert notes(", seconds: 4") == []
    (note,) = notes("")
    assert "pipeline.yaml:4: the last subtitle can be shown after the end of cut; add seconds: $(cut.seconds)." in note


class OneUnderWay(KnownWorks):
    """Records in which another run has submitted the task of the last work."""

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        return [*([None] * (len(queries) - 1)), KnownWork(state="…", task_id="1")]


async def test_a_reviewed_plan_does_not_pay_again_for_the_task_of_another_run_that_fails() -> None:
    text = steps(a=PICTURE % "x" + ", takes: 2")
    plan = await plan_of(text, known=OneUnderWay())
    (one,) = plan.instances
    assert [work.state for work in one.works] == ["+", "…"]
    assert plan.price.most == one.works[0].price.most
    new, waiting = (ReviewedPlan(plan.as_json()).refusal(one, work) for work in one.works)
    assert not new
    assert "its task was in progress" in waiting
    assert not ReviewedPlan((await plan_of(text)).as_json()).refusal(one, one.works[1])


async def test_a_reviewed_plan_does_not_pay_for_a_model_that_the_catalogue_has_elsewhere_or_dearer() -> None:
    plan = await plan_of(steps(a=PICTURE % "x", b=CLIP % "$(a)"))
    first, second = plan.instances
    assert not second.works[0].is_settled

    def refusals(**changed: object) -> list[str]:
        earlier = ReviewedPlan({"steps": [{**step, **changed} for step in plan.as_json()["steps"]]})
        return [earlier.refusal(one, one.works[0]) for one in (first, second)]

    assert refusals(endpoint="acme/x", work="0" * 40) == [
        'endpoint: "acme/x" -> "rhart-image/z-image/turbo"',
        'endpoint: "acme/x" -> "kling-v2.6-pro/image-to-video"',
    ]
    dearer = refusals(price={"most": 0.01, "open": False})
    assert [said.partition(" -> ")[0] for said in dearer] == ["price: up to 0.01"] * 2


async def test_a_plan_says_that_the_catalogue_changed_and_a_reviewed_one_holds_where_nothing_else_did() -> None:
    plan, again = [await plan_of(MUG) for _ in range(2)]
    earlier = {**plan.as_json(), "catalogue": "2020-01-01"}
    compare(again, earlier, {})
    assert [(change["what"], change["was"]) for change in again.changes] == [("catalogue", "2020-01-01")]
    ReviewedPlan(earlier).refuse_changes(again, {})
    dearer = {**earlier, "steps": [{**earlier["steps"][0], "price": {"most": 0.01, "open": False}}]}
    with pytest.raises(PlanChanged, match=r"catalogue: \"2020-01-01\" -> (?s:.*)price: up to 0.01 -> up to 0.04"):
        ReviewedPlan(dearer).refuse_changes(again, {})


def test_a_plan_with_a_price_that_is_no_number_is_not_read(tmp_path: Path) -> None:
    text = Pipeline.from_text(MUG).plan_now().to_json()
    for number in ("NaN", "Infinity"):
        (tmp_path / "p.json").write_text(text.replace('"most": 0.04', f'"most": {number}'))
        with pytest.raises(InputError, match="is not a plan"):
            ReviewedPlan.read(tmp_path / "p.json")


COUNTED = of_rows(
    "title: string, count: integer",
    "as: row",
    picture=PICTURE % "$(item.title)" + ", takes: $(item.count)",
    some=group("foreach: [x, y, z], limit: $(row.count)", one=PICTURE % "$(item)"),
    shots=ANSWER % "$(item.title)" + ", parse: {list: {line: string}, at_most: $(item.count)}",
    drawn=group("foreach: $(shots)", one=PICTURE % "$(item.line)"),
)


@pytest.mark.parametrize("count", [2, 2.0, "2", "2.0", "2e0", " 2.0 "])
async def test_a_whole_number_counts_in_each_of_its_forms(count: object) -> None:
    plan = await plan_of(COUNTED, rows=[{"title": "mug", "count": count}])
    assert len(plan.steps["each.picture"][0].works) == 2
    assert [len(plan.steps[path]) for path in ("each.some.one", "each.drawn.one")] == [2, 2]
    assert plan.steps["each.shots"][0].at_most == 2


USED = """\
params:
  count: {type: integer, max: 2, default: 1}
  flag: {type: boolean, default: false}
  look: {enum: [studio, outdoors], default: studio}
  photo: {type: image, max_mb: 1, default: ./photo.png}
  rows:
    type: table
    columns: {title: string, sold: {type: integer, min: 0, optional: true}, logo: {type: image, optional: true}}
    default: ./rows.csv
steps:
  picture: {model: z-image/turbo, with: {prompt: "$(params.look) $(params.flag)"}, takes: $(params.count)}
  each: {foreach: $(params.rows), steps: {one: {model: z-image/turbo, with: {prompt: "$(item.title)"}}}}
  small: {edit: resize, with: {file: $(params.photo), width: 20, height: 20}}
outputs: {picture: $(picture)}
"""


def using_all(folder: Path, kind: str = "", given: str = "", **before: str) -> Pipeline:
    """A file with a parameter `k` that uses another file."""
    (folder / "rows.csv").write_text("title\nmug\njug\n")
    photo(folder / "photo.png")
    params = f"params: {{k: {kind}}}\n" if kind else ""
    return using(folder, params + steps(**before, u=f"use: ./used.yaml, with: {{{given}}}"), used=USED)


async def test_the_defaults_of_a_used_file_are_read_relative_to_that_file(tmp_path: Path) -> None:
    plan = await plan_of(using_all(tmp_path))
    assert [one.request["prompt"] for one in plan.steps["u.each.one"]] == ["mug", "jug"]
    assert {Path(one["uri"]).name for one in plan.inputs} == {"rows.csv", "photo.png"}


async def test_a_list_in_the_defaults_of_a_used_file_has_paths_relative_to_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the same name in the working folder was used without a word."""
    for number, folder in enumerate(("used", "work")):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "a.png", number)
    monkeypatch.chdir(tmp_path / "work")
    columns, row = "{one: image, all: {type: files, of: image}}", "{one: a.png, all: a.png; a.png}"
    params = f"pictures: {{type: files, default: [a.png]}}, rows: {{type: table, columns: {columns}, default: [{row}]}}"
    sheet = "edit: contact_sheet, with: {of: [$(params.pictures), $(item.one), $(item.all)]}"
    used = f"params: {{{params}}}\n" + steps(each=group("foreach: $(params.rows)", sheet=sheet))
    plan = await plan_of(using(Path("../used"), steps(u="use: ./used.yaml"), used=used))
    assert {Path(one["uri"]).resolve() for one in plan.inputs} == {tmp_path / "used" / "a.png"}
    assert len(plan.steps["u.each.sheet"][0].values["of"]) == 4


async def test_a_cut_picture_is_found_before_anything_is_paid(tmp_path: Path) -> None:
    pipeline, picture = using_all(tmp_path), tmp_path / "photo.png"
    picture.write_bytes(picture.read_bytes()[:-20])
    (problem,) = set(await problems_of(pipeline))
    assert "photo.png is a damaged png file: its end is missing. What to do: create or download it" in problem


@pytest.mark.parametrize(
    ("name", "kind", "value", "said"),
    [
        ("count", "integer", 50, "count takes a whole number of at most 2, but 50 is more"),
        ("flag", "string", "maybe", "flag takes true or false, but the value is 'maybe'"),
        ("look", "string", "none", "look takes studio or outdoors, but the value is 'none'"),
        (
            "rows",
            "{type: table, columns: {title: string, sold: integer}}",
            [{"title": "m", "sold": -1}],
            "row 1 of rows",
        ),
    ],
)
async def test_a_used_file_takes_no_value_that_it_does_not_take_alone(
    name: str, kind: str, value: object, said: str, tmp_path: Path
) -> None:
    (problem,) = (await using_all(tmp_path, kind, f"{name}: $(params.k)").plan(k=value)).problems
    assert said in problem.message
    assert problem.line == 3


@pytest.mark.parametrize("kind", ["image", "files"])
async def test_a_path_as_the_default_of_a_column_is_not_used_by_a_used_file(kind: str, tmp_path: Path) -> None:
    logo = f"logo: {{type: {kind}, optional: true, default: ./logo.png}}"
    one = f"when: {{exists: $(item.logo)}}, {RESIZE % '$(item.logo)'}" if kind == "image" else PICTURE % "$(item.title)"
    used = of_rows(f"title: string, {logo}", one=one)
    plan = await plan_of(using(tmp_path, steps(u="use: ./used.yaml, with: {rows: [{title: mug}]}"), used=used))
    assert states(plan) == ("x" if kind == "image" else "+")


async def test_the_steps_of_a_used_file_have_the_row_of_their_item(tmp_path: Path) -> None:
    used = "params: {t: string}\n" + steps(
        p=PICTURE % "$(params.t)", r="review: $(p)", x="when: false, " + PICTURE % "x"
    )
    outer = of_rows("title: string", u="use: ./used.yaml, with: {t: $(item.title)}")
    plan = await plan_of(using(tmp_path, outer, used=used), rows=rows("a", "b"))
    assert [one.row for one in plan.instances] == ["row 1", "row 2"] * 3


async def test_keys_of_a_run_in_a_used_file_are_noted_and_those_of_the_user_apply(tmp_path: Path) -> None:
    each = of_rows("title: string", "id: $(item.title)", p=PICTURE % "$(item.title) $(number)")
    used = "budget: 5\nscope: used\ninvalid_items: skip\n" + each
    outer = "params: {rows: any}\n" + steps(u="use: ./used.yaml, with: {rows: $(params.rows)}")
    plan = await using(tmp_path, outer, used=used).plan(rows=rows("a", "a"))
    noted = "budget and scope and invalid_items: those of ./used.yaml have no effect; only those of this file apply."
    assert list(plan.notes) == [f"{tmp_path / 'outer.yaml'}:3: {noted}"]
    assert "2 items of u.each have the id a" in plan.problems[0].message
    assert not await problems_of(using(tmp_path, f"invalid_items: skip\n{outer}"), rows=rows("a", "a"))


async def test_takes_that_only_a_used_file_uses_are_not_called_unused(tmp_path: Path) -> None:
    all_takes = steps(picture=PICTURE % "a" + ", takes: 3") + "outputs: {all: $(picture.takes)}\n"
    outer = steps(u="use: ./used.yaml", cup=PICTURE % "b" + ", takes: 2")
    plan = await plan_of(using(tmp_path, outer, used=all_takes))
    assert list(plan.notes) == ["cup: 2 takes are made, but only the first is used."]


async def test_a_used_file_reads_a_text_as_its_parameter_s_type(tmp_path: Path) -> None:
    plan = await plan_of(using_all(tmp_path, "string", "flag: $(params.k)"), k="True")
    assert plan.steps["u.picture"][0].request["prompt"] == "studio true"


async def test_an_answer_that_a_used_file_does_not_take_fails_its_steps_before_they_are_paid(tmp_path: Path) -> None:
    pipeline, records = using_all(tmp_path, given="look: $(look)", look=ANSWER % "x"), Records()
    records.make(await plan_of(pipeline))
    plan = await plan_of(pipeline, known=records)
    assert plan.steps["u.picture"][0].problems == ("look takes studio or outdoors, but the value is 'a text'",)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("{type: table, columns: {name: string}}", "$(params.k)", "rows needs the column title, but $(params.k)"),
        ("", "[{name: a}]", "rows needs the column title, but this list has no such column; known names: name"),
        ("", "[a, b]", "rows takes rows with columns, but this list has no columns"),
        ("", "[{title: a, logo: b.png}]", "its column logo takes an image, but this column of this list is a string"),
    ],
)
def test_a_table_without_columns_of_a_used_file_is_refused(kind: str, value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=re.escape(said)):
        using_all(tmp_path, kind, f"rows: {value}")


def resized(width: str) -> Pipeline:
    a = f"edit: resize, with: {{file: $(params.f), width: {width}, height: 20}}"
    return Pipeline.from_text("params: {f: image, w: {type: number, default: 20}}\n" + steps(a=a))


@pytest.mark.parametrize("written", ['"20"', '"2e1"', "20.0", "20"])
async def test_an_edit_takes_a_number_in_each_of_its_forms(written: str, tmp_path: Path) -> None:
    plan = await plan_of(resized(written), f=photo(tmp_path / "mug.png"))
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
        resized(written)
    given = {"f": photo(tmp_path / "mug.png"), "w": written.strip('"')}
    assert await problems_of(resized("$(params.w)"), given) == [said]


@pytest.mark.parametrize("kind", ["integer", "number", "{type: number, min: 0, max: 3}"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1e999", "9" * 5000, 10**400, float("nan"), float("inf")])
async def test_a_number_that_is_not_finite_or_too_long_is_a_problem(kind: str, value: object) -> None:
    (problem,) = await problems_of(f"params: {{n: {kind}}}\n" + steps(p=PICTURE % "k $(params.n)"), n=value)
    assert re.match(r"n (takes a (whole )?number, but the value is .9{37}|contains (nan|-?inf|a number of))", problem)


@pytest.mark.parametrize("kind", ["string", "list"])
async def test_what_is_no_number_is_no_text(kind: str) -> None:
    text = f"params: {{x: {kind}}}\n" + steps(p="edit: join_text, with: {texts: $(params.x)}")
    for value in (math.nan, -math.inf):
        (problem,) = await problems_of(text, x=[value] if kind == "list" else value)
        assert problem.startswith("x "), problem


async def test_a_picture_has_no_length_and_a_misspelt_field_is_noted(tmp_path: Path) -> None:
    """The length of the picture was waited for in each run; the misspelt length was left out without a word."""
    given = {"f": photo(tmp_path / "mug.png"), "x": {"seconds": 5}}
    text = "params: {f: file, x: any, size: {enum: [720p, 1080p], optional: true}}\n"
    clip = "model: kling-v2.6-pro-image-to-video, from: $(params.f), with: {prompt: x, duration: $(params.x.secnods)}"
    plan = await plan_of(text + steps(a=clip), given)
    assert list(plan.notes) == ["a: $(params.x.secnods) has no value, so duration is not set."]
    still = "edit: still, with: {image: $(params.f), seconds: $(params.f.seconds)}"
    (problem,) = await problems_of(text + steps(a=still), given)
    assert problem == "$(params.f.seconds) has no value, because mug.png is an image"
    either = text + steps(
        a=still.replace("seconds)", "seconds or 4)"), b="when: {exists: $(params.f.seconds)}, " + still
    )
    assert states(await plan_of(either, given)) == "+x"


async def test_a_fact_of_a_file_that_is_not_known_is_left_out_with_a_note() -> None:
    photo = Media(uri="https://e.com/p.heic", kind="image", mime="image/heic", size=10, sha256="0" * 64)
    clip = photo.model_copy(update={"uri": "https://e.com/v.mp4", "kind": "video", "mime": "video/mp4"})
    text = "params: {p: image, f: file, v: file, w: {type: integer, optional: true}}\n"
    written = ["$(params.p.width)", "$(params.f.seconds or params.w)", "$(params.v.width or params.w)"]
    fields = ", ".join(f"{n}.w: {one}" for n, one in enumerate(written))
    graph = f'workflow: "123", with: {{{fields}}}, assume: {{price: 1, kind: image}}'
    plan = await plan_of(text + steps(a=graph), p=photo, f=photo, v=clip)
    noted = [note for note in plan.notes if "has no value" in note]
    assert noted == [f"a: {one} has no value, so {n}.w is not set." for n, one in enumerate(written)]


async def test_a_name_with_the_label_of_the_item_before_is_the_label() -> None:
    q = RESIZE % "$(p)" + ', save_as: "$(previous.q.label or id).png"'
    plan = await plan_of(of_rows("title: string", p=PICTURE % "$(item.title)", q=q), rows=rows("x", "y"))
    assert [one.save_as for one in plan.steps["each.q"]] == ["1.png", "resize.png"]


async def test_a_name_that_is_one_number_is_that_number() -> None:
    a, b = PICTURE % "a $(item.sku)" + ", save_as: $(item.sku)", PICTURE % "b $(item.sku)" + ", save_as: $(number)"
    plan = await plan_of(of_rows("sku: integer", a=a, b=b), rows=[{"sku": 1001}])
    assert [one.save_as for one in plan.instances] == ["1001", "1"]


async def test_a_file_that_a_used_file_compares_as_a_number_is_named_a_file(tmp_path: Path) -> None:
    used = "params: {v: any}\n" + steps(a="when: {gt: [$(params.v), 0]}, " + PICTURE % "x")
    text = "params: {f: image}\n" + steps(u="use: ./used.yaml, with: {v: $(params.f)}")
    (problem,) = await problems_of(using(tmp_path, text, used=used), f=photo(tmp_path / "mug.png"))
    assert problem == "gt compares numbers, but $(params.v) is a file"


async def test_an_answer_that_is_no_number_fails_the_step_with_the_condition() -> None:
    text, records = steps(s=ANSWER % "x", p="when: {gt: [$(s), 3]}, " + PICTURE % "x"), Records()
    records.make(await plan_of(text))
    (step,) = (await plan_of(text, known=records)).steps["p"]
    assert (step.state, step.problems) == ("x", ("gt compares numbers, but $(s) is 'a text'",))


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
async def test_a_flow_leaves_its_checks_to_the_plan(param: str, value: Any, is_taken: bool, tmp_path: Path) -> None:
    pipeline = Pipeline.from_text(f"params: {{x: {param}}}\n{MUG}")
    value = [photo(tmp_path / "mug.png")] if value == ["PHOTO"] else value
    given = pipeline_flow(pipeline).validate_parameters({"x": value})
    assert given["x"] is value
    assert (not await problems_of(pipeline, x=given["x"])) is is_taken


TITLE = "params: {x: string}\n" + steps(p=PICTURE % "$(params.x)")


NESTED: Any = reduce(lambda inner, _: cast("Any", [{"a": inner}]), range(5000), 0)


@pytest.mark.parametrize(
    "value", [date(2026, 1, 2), {1}, {"a": b"x"}, {1: 2}, math.inf, [[math.nan]], "\ud800", Path(), NESTED]
)
async def test_a_parameter_of_any_type_takes_only_what_records_can_contain(value: Any) -> None:
    text = "params: {x: {type: any}}\nsteps: {p: {model: z-image/turbo, with: {prompt: $(params.x.title)}}}\n"
    (problem,) = (await Pipeline.from_text(text).plan(x=value)).problems
    assert re.match("x (contains|takes strings, .*, but it has (the key 1|a value of type [a-z.]+))", problem.message)
    assert not (await Pipeline.from_text(text).plan(x={"title": "red", "more": ["red", 1, None]})).problems


@pytest.mark.parametrize("value", ["a\ud800b", "\udcff"])
async def test_half_of_a_surrogate_pair_is_refused_by_plan_and_before_a_flow_run_is_created(value: str) -> None:
    (problem,) = await problems_of(TITLE, x=value)
    assert problem.startswith("x contains an incomplete character (a lone surrogate)")
    flow: Any = pipeline_flow(Pipeline.from_text(TITLE))
    for given in ({"x": value}, {"x": [{"title": value}]}):
        with pytest.raises(InputError, match="The parameter x contains an incomplete character"):
            flow(**given)


async def test_items_with_equal_names_have_addresses_and_ids_of_their_own(tmp_path: Path) -> None:
    names = ("1/photo.png", "2/photo.png", "3/photo-2.png")
    for name in names:
        (tmp_path / name).parent.mkdir()
    files = [photo(tmp_path / name, n) for n, name in enumerate(names)]
    each = group("foreach: $(params.files)", clip=f"{CLIP % '$(item)'}, save_as: $(id).mp4")
    plan = await plan_of("params: {files: {type: files, of: image}}\n" + steps(each=each), files=files)
    found = [(one.address, one.save_as) for one in plan.instances]
    assert found == [(f"each[{name}].clip", f"{name}.mp4") for name in ("photo", "photo-3", "photo-2")]


async def test_a_slash_in_an_id_is_no_border_between_ids() -> None:
    picture = PICTURE % '"$(outer.title), $(item)"'
    inner = group("foreach: [c, b/c], id: $(item)", picture=picture)
    text = of_rows("title: string", "as: outer\n    id: $(item.title)", inner=inner)
    plan = await plan_of(text, rows=rows("a", "a/b", "a%2Fb"))
    items = {"a": ["a/c", "a/b%2Fc"], "a/b": ["a%2Fb/c", "a%2Fb/b%2Fc"], "a%2Fb": ["a%252Fb/c", "a%252Fb/b%2Fc"]}
    assert [one.item for one in plan.instances] == [item for each in items.values() for item in each]
    for item, expected in items.items():
        selection = Selection(items=frozenset([item]))
        plan.refuse_unknown(selection)
        assert [one.item for one in plan.instances if selection.has(one)] == expected


@pytest.mark.parametrize("given", ["5", " 5 ", 5, 5.0])
async def test_each_form_of_an_option_is_the_option_that_the_file_declares(given: object) -> None:
    made = "workflow: 2030000000000000001, with: {5.width: $(params.size)}, assume: {kind: image, price: 0.3}"
    plan = await plan_of('params: {size: {enum: ["5", "10"], default: "10"}}\n' + steps(made=made), size=given)
    assert plan.instances[0].request["5.width"] == "5"


SIZED = of_rows("title: string, size: {type: string, default: small}", made=PICTURE % '"$(item.title), $(item.size)"')


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "title\ncup\n", "cup, small"),
        ("rows.jsonl", '{"title": "cup"}\n{"title": "mug", "size": "large"}\n', "cup, small; mug, large"),
        ("rows.jsonl", '{"size": "s"}\n{"title": "mug"}\n', "rows.jsonl row 1: title is empty; the column is required"),
        ("rows.csv", "titel\ncup\n", "rows.csv has no column title; did you mean titel"),
    ],
)
async def test_only_a_column_with_a_default_may_be_absent(name: str, content: str, said: str, tmp_path: Path) -> None:
    """A column that only the first row lacks is empty there, and not missing."""
    (tmp_path / name).write_text(content)
    plan = await Pipeline.from_text(SIZED).plan(rows=str(tmp_path / name))
    problems = [problem.message for problem in plan.problems]
    assert said in "; ".join(problems or [one.request["prompt"] for one in plan.instances])


async def test_an_existing_folder_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "d[1]").mkdir()
    photo(tmp_path / "d[1]" / "a.png")
    text = "params: {photos: {type: files, of: image}}\n" + steps(s="edit: contact_sheet, with: {of: $(params.photos)}")
    for place in ("d[1]", "d[[]1]/*"):
        assert len((await plan_of(text, photos=str(tmp_path / place))).instances[0].request["of"]) == 1


@pytest.mark.parametrize("start", ["text:", "review:", "handle:", "made-by:", "review: the cup: "])
async def test_a_prompt_is_never_a_value_that_is_not_known_yet(start: str) -> None:
    before, after = [await plan_of(TITLE, x=f"{start} a {what}") for what in ("cup", "mug")]
    compare(after, json.loads(before.to_json()), {})
    assert [one.state for one in after.instances] == ["~"]


NAMED_BY_ANSWER = "params: {look: string}\n" + steps(
    name=ANSWER % "$(params.look)",
    each=group("foreach: [a], id: $(name)", picture=PICTURE % "$(id)"),
)
UNDECIDED = "params: {look: string}\n" + steps(
    ask=ASK,
    a=f"when: $(ask.ok), {PICTURE % 'a'}",
    b=PICTURE % "$(a.label or params.look)",
)


@pytest.mark.parametrize(
    ("pipeline", "param", "expected"),
    [
        (Pipeline.shipped("film"), "prompt", {"script", "music"}),
        (Pipeline.from_text(REVIEWED), "look", {"picture", "chosen"}),
        (Pipeline.from_text(NAMED_BY_ANSWER), "look", {"name"}),
        (Pipeline.from_text(UNDECIDED), "look", set()),
    ],
)
async def test_what_a_step_has_yet_to_make_is_not_compared(pipeline: Pipeline, param: str, expected: set[str]) -> None:
    """Its placeholder changes with the request that makes it."""
    before, after = [await pipeline.plan({param: value}) for value in ("red", "blue")]
    compare(after, json.loads(before.to_json()), {})
    assert {one.path for one in after.instances if one.why} == expected


# Lists that are written in the file.

PARTS = "params: {intro: video, outro: video, photos: {type: files, of: image}}\n" + steps(
    each=group("foreach: $(params.photos)", clip=CLIP % "$(item)"),
    film="edit: concat, with: {videos: [$(params.intro), $(each.clip), $(params.outro)]}, require: any",
)
SHEET = "  sheet: {edit: contact_sheet, with: {of: [$(params.intro), $(each.clip)], captions: [Intro, $(each.id)]}}\n"


def parts(folder: Path) -> dict[str, Any]:
    photos = [photo(folder / f"{name}.png", shade) for shade, name in enumerate("ab")]
    return {"intro": video(folder / "in.mp4", 2), "outro": video(folder / "out.mp4", 3), "photos": photos}


def names_in(plan: Plan, step: str, param: str) -> list[str]:
    values = plan.steps[step][0].values[param]
    return [one if isinstance(one, str) else one.label if one.media is None else one.media.name for one in values]


async def test_lists_in_a_list_are_flattened(tmp_path: Path) -> None:
    records, given, clip = Records(), parts(tmp_path), "kling-v2.6-pro-image-to-video"
    plan = await plan_of(PARTS + SHEET, given)
    assert names_in(plan, "film", "videos") == ["in.mp4", clip, clip, "out.mp4"]
    assert names_in(plan, "sheet", "captions") == ["Intro", "a", "b"]
    assert plan.steps["film"][0].seconds == pytest.approx(2 + 5.042 * 2 + 3, abs=0.01)
    records.make(plan)
    assert states(await plan_of(PARTS + SHEET, given, known=records), "film", "sheet") == "++"


async def test_what_an_item_does_not_make_is_left_out_of_a_list_in_a_list(tmp_path: Path) -> None:
    given = parts(tmp_path)
    plan = await plan_of(PARTS, given, failed=["each[a].clip"])
    assert names_in(plan, "film", "videos") == ["in.mp4", "kling-v2.6-pro-image-to-video", "out.mp4"]
    absent = (PARTS + SHEET).replace("{clip: {", "{clip: {when: {equals: [$(id), b]}, ")
    assert names_in(await plan_of(absent, given), "sheet", "captions") == ["Intro", "b"]


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
async def test_a_failed_value_goes_with_its_caption(of: str, captions: str, failed: str, left: list[str]) -> None:
    text = "params: {rows: {type: table, columns: {title: string}}}\n" + steps(
        each=group("foreach: $(params.rows), id: $(item.title)", pic=PICTURE % "$(item.title)"),
        intro=PICTURE % "intro",
        outro=PICTURE % "outro",
        sheet=f"edit: contact_sheet, require: any, with: {{of: {of}, captions: {captions}}}",
    )
    plan = await plan_of(text, rows=rows("a", "b"), failed=[failed])
    assert names_in(plan, "sheet", "captions") == left
    assert len(plan.steps["sheet"][0].values["of"]) == len(left)


@pytest.mark.parametrize("value", ["a", "b"])
async def test_a_condition_looks_into_lists_in_its_list(value: str) -> None:
    text = "params: {look: string, rows: {type: table, columns: {title: string}}}\n"
    text += steps(s="when: {in: [$(params.look), [x, $(params.rows.title)]]}, " + PICTURE % "x")
    assert states(await plan_of(text, look=value, rows=rows("a"))) == ("+" if value == "a" else "x")


@pytest.mark.parametrize("kind", ["list", "any"])
async def test_a_condition_looks_into_a_list_parameter_in_its_list(kind: str) -> None:
    """What was to be left out was paid for."""
    text = f"params: {{skip: {kind}, rows: {{type: table, columns: {{title: string}}}}}}\n" + steps(
        each=group(
            "foreach: $(params.rows), where: {not: {in: [$(item.title), [$(params.skip), jug]]}}",
            a=PICTURE % "$(item.title)",
        ),
        s="when: {equals: [$(params.skip), [mug, cup]]}, " + PICTURE % "x",
    )
    plan = await plan_of(text, skip=["mug", "cup"], rows=rows("mug", "jug", "bowl"))
    assert [one.request["prompt"] for one in plan.steps["each.a"]] == ["bowl"]
    assert states(plan, "s") == "+"


@pytest.mark.parametrize("of", ["params.more", "row.more"])
async def test_a_list_of_texts_in_a_list_is_flattened(of: str) -> None:
    text = "params: {more: list, rows: {type: table, columns: {title: string, more: list}}}\n" + steps(
        rows=group(
            "foreach: $(params.rows), as: row, sort: more",
            each=group(f"foreach: [a, $({of})]", a=PICTURE % "'one $(item)'"),
            all=group(f"matrix: {{look: [a, $({of})]}}", a=PICTURE % "'two $(matrix.look)'"),
            words=f"edit: join_text, with: {{texts: [a, $({of})]}}",
        )
    )
    plan = await plan_of(text, more="b, c", rows=[{"title": "mug", "more": '["b", "c"]'}])
    assert [one.request["prompt"] for one in plan.instances if one.is_paid] == [
        f"{kind} {look}" for kind in ("one", "two") for look in "abc"
    ]
    assert plan.steps["rows.words"][0].request == {"texts": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("edit", "times", "said"),
    [
        ("mix, with: {speech: [$(params.a), $(params.a)], at: %s}", "[0]", "speech has 2, but at has 1"),
        ("mix, with: {speech: $(params.a), at: %s}", "[0, 1]", "speech has 1, but at has 2"),
        ("subtitles, with: {text: [One, Two], at: %s}", "[0, 1, 2]", "text has 2, but at has 3"),
        ("subtitles, with: {text: [One, Two], at: %s}", "[0, 1]", ""),
    ],
)
async def test_times_must_be_one_for_each_item(edit: str, times: str, said: str, tmp_path: Path) -> None:
    text = "params: {a: audio}\n" + steps(s=f"edit: {edit % times}")
    problems = await problems_of(text, a=sound(tmp_path / "a.wav", 1))
    assert [one.partition(": ")[2] for one in problems] == ([said] if said else [])


async def test_a_misspelt_parameter_of_a_model_that_a_parameter_names_is_refused(tmp_path: Path) -> None:
    s = "model: $(params.model), from: $(params.photo), with: {prompt: x, duration: 5, sound: false, scale: 2}"
    text = "params: {model: string, photo: image}\n" + steps(s=s)
    given = {"model": "kling-v2.6-pro-image-to-video", "photo": photo(tmp_path / "a.png")}
    plan = await plan_of(text, given)
    assert "s: kling-v2.6-pro-image-to-video has no scale; the parameter is not sent to this model." in plan.notes
    with pytest.raises(
        PipelineError, match=r"none of the possible models of \$\(params.model\) has a parameter sounds; did you"
    ):
        Pipeline.from_text(text.replace("sound", "sounds"))
    listed = text.replace("from: $(params.photo), with: {", "with: {image_urls: [$(params.photo)], ")
    said = "kling-v2.6-pro-image-to-video has no parameter image_urls; the nearest is image_url"
    assert said in await problems_of(listed, given)


@pytest.mark.parametrize(
    "condition",
    [
        "{exists: $(params.a or params.b)}",
        "{exists: $( params.a  or params.b )}",
        "{all: [{exists: $(params.a or params.b)}]}",
    ],
)
async def test_a_step_that_runs_if_either_exists_may_use_either(condition: str, tmp_path: Path) -> None:
    text = "params: {a: {type: image, optional: true}, b: {type: image, optional: true}}\n"
    text += steps(clip=f"when: {condition}, " + CLIP % "$(params.a or params.b)")
    assert states(await plan_of(text)) == "x"
    assert states(await plan_of(text, b=photo(tmp_path / "b.png"))) == "+"


async def test_a_text_with_a_reference_is_a_list_s_item() -> None:
    voice = 'model: minimax/speech-2.8-hd, with: {text: hello, pronunciation_dict: ["$(params.w)/(x)"]}'
    plan = await plan_of("params: {w: string}\n" + steps(voice=voice), w="word")
    assert plan.steps["voice"][0].request["pronunciation_dict"] == ["word/(x)"]


async def test_the_number_of_an_item_of_a_matrix_is_a_value() -> None:
    a = PICTURE % '"$(number) $(matrix.look)"'
    plan = await plan_of(steps(each=group("matrix: {look: [calm, wild]}", a=a)))
    assert [one.request["prompt"] for one in plan.steps["each.a"]] == ["1 calm", "2 wild"]


async def test_a_parameter_that_is_called_as_an_option_of_plan_is_given_in_a_mapping() -> None:
    pipeline = Pipeline.from_text(TITLE.replace("x", "date"))
    with pytest.raises(InputError, match="date is an option of `plan` and a parameter of pipeline"):
        await pipeline.plan(date="monday")
    plan = await pipeline.plan({"date": "monday"}, date="2026-11-24")
    assert plan.instances[0].request["prompt"] == "monday"


@pytest.mark.parametrize(
    ("ask", "asked"),
    [("Is this $(item.title) right", ["Is this Ann right", "Is this Bo right"]), ("$(number)", ["1", "2"])],
)
async def test_the_question_of_a_review_names_the_item(ask: str, asked: list[str]) -> None:
    best = f"review: $(pic), ask: {ask}"
    plan = await plan_of(of_rows("title: string", pic=PICTURE % "$(item.title)", best=best), rows=rows("Ann", "Bo"))
    assert [one.ask for one in plan.steps["each.best"]] == asked


def test_the_work_of_a_plan_grows_with_its_steps_and_not_with_their_square() -> None:
    def calls(number: int) -> int:
        pipeline = Pipeline.from_text(steps(**{f"s{n}": PICTURE % f"a {n}" for n in range(number)}))
        return calls_of(pipeline.plan_now)

    calls(1)  # what is read once
    assert calls(400) < 2.4 * calls(200)


def test_the_items_that_a_limit_may_select_are_marked_in_linear_time() -> None:
    ideas = ANSWER % "$(item.t)" + ", parse: {list: {score: number, t: string}, at_most: 2}"
    good = group("foreach: $(ideas), where: {gt: [$(item.score), 5]}, limit: 1", pic=PICTURE % "$(item.t)")
    pipeline = Pipeline.from_text(of_rows("t: string", ideas=ideas, good=good))

    def calls(number: int) -> int:
        plan = pipeline.plan_now(rows=[{"t": f"t{n}"} for n in range(number)])
        assert plan.planner is not None
        chosen = plan.planner.report(Problems()).chosen
        assert len(chosen) == number
        return calls_of(lambda: mark_chosen(chosen, plan.instances))

    assert calls(80) < 2.4 * calls(40)
