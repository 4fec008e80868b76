"""Runs of pipelines on an emulator and a Prefect server: what is there is never paid for again."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import State
from prefect.states import Scheduled

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, PipelineIncomplete
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.probe import probe
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.prefect_api import ask
from tests.support.samples import media as samples
from tests.support.samples.steps import CLIP, PICTURE, RESIZE, SPEECH, group, of_rows, rows, steps
from tests.support.servers.emulator_env import StartEmulator
from tests.support.servers.link_server import LinkHost
from tests.support.world.pipeline_flows import (
    PRODUCTS,
    complete,
    planned,
    reasons,
    run,
    run_in_flow,
    states,
    table,
    until_paid,
)
from tests.support.world.prefect_runs import artifacts_of, cancel, set_states

FILM = "name: short-film\nparams: {idea: {type: string, max: 100}}\n" + steps(
    picture=PICTURE % '$(params.idea), aspect_ratio: "16:9"',
    clip=CLIP % "$(picture)",
    end="edit: frame, with: {video: $(clip), at: last}, save_as: film/end.png",
)
FILM += "outputs: {clip: $(clip), end: $(end)}\n"


@pytest.mark.prefect
async def test_a_second_run_pays_nothing_and_says_so(rh: Emulator, tmp_path: Path) -> None:
    state, first = await run_in_flow(FILM, idea="a lighthouse", budget=10)
    assert state.is_completed(), state.message
    assert states(first) == {"picture": "made", "clip": "made", "end": "made"}
    assert first.costs.amounts["CNY"] == rh.recorder.charged
    shown = await artifacts_of(state)
    assert set(shown) == {f"pipeline--short-film-{what}" for what in ("plan", "graph", "progress", "report")}
    assert shown["pipeline--short-film-progress"].data == 100
    assert first["clip"].uri in str(shown["pipeline--short-film-report"].data)
    assert (tmp_path / "out" / "film" / "end.png").is_file()
    state, second = await run_in_flow(FILM, idea="a lighthouse", budget=10)
    assert len(rh.recorder.paid) == 2
    assert (state.name, second.new, str(second.costs)) == ("Nothing new", 0, "0")
    assert first["clip"].uri in str((await artifacts_of(state))["pipeline--short-film-report"].data)
    assert second["clip"].sha256 == first["clip"].sha256


async def test_a_run_whose_items_are_all_left_out_says_that_there_was_nothing_to_make(rh: Emulator) -> None:
    text = of_rows("title: string", "where: {equals: [$(item.title), b]}", picture=PICTURE % "$(item.title)")
    state, done = await run(text, rows=rows("a"))
    assert (state.name, len(done.steps), len(rh.recorder.submissions)) == ("Nothing new", 0, 0)
    assert (state.message or "").startswith(
        "Nothing was made and nothing was paid: there was nothing to make. For other"
    )


@pytest.mark.prefect
async def test_a_cancelled_run_cancels_its_tasks(start_rh: StartEmulator) -> None:
    rh = start_rh(clock="real")
    pipeline = Pipeline.from_text(FILM.replace("short-film", "cancelled-film"))
    running = asyncio.ensure_future(pipeline_flow(pipeline)(idea="a lighthouse", return_state=True))
    await until_paid(rh, 1)
    (flow_run,) = await ask(
        lambda api: api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[pipeline.name])))
    )
    await cancel(flow_run.id)
    assert not (await running).is_completed()
    assert len(rh.recorder.cancelled) == len(rh.recorder.paid) == 1


async def test_a_failed_item_stops_neither_the_others_nor_what_does_without_it(rh: Emulator, tmp_path: Path) -> None:
    state, first = await run(PRODUCTS, products=table(tmp_path, a="cup", b="forbidden mug", c="bowl"), budget=10)
    assert state.is_failed
    others = {f"each[{item}].{step}": "made" for item in "ac" for step in ("picture", "clip")}
    assert states(first) == others | {"each[b].picture": "failed", "each[b].clip": "not run", "sheet": "made"}
    assert (state.message or "").startswith("each[b].picture: ")
    second = await complete(PRODUCTS, products=table(tmp_path, a="cup", b="mug", c="bowl"), budget=10)
    assert second.costs.amounts["CNY"] + first.costs.amounts["CNY"] == rh.recorder.charged


@pytest.mark.prefect
async def test_a_budget_is_compared_with_the_selected_steps_before_a_payment(rh: Emulator) -> None:
    with pytest.raises(BudgetExceeded, match="costs at least"):
        await run(FILM, idea="a lighthouse", budget=0.1)
    assert rh.recorder.submissions == []
    state, _ = await run_in_flow(FILM, idea="a lighthouse", budget=0.1, only=["picture"])
    assert state.is_completed(), state.message
    assert [paid.endpoint for paid in rh.recorder.paid] == ["rhart-image/z-image/turbo"]
    progress = (await artifacts_of(state))["pipeline--short-film-progress"]
    assert str(progress.description) == f"Steps: 1 made, 2 not run; paid {rh.recorder.charged} CNY."


@pytest.mark.prefect
async def test_the_progress_of_a_later_attempt_counts_what_the_earlier_ones_paid(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", endpoint="kling-v2.6-pro/*", number=1, kind="code", code="1501"))
    film = pipeline_flow(Pipeline.from_text(FILM)).with_options(retries=1, retry_delay_seconds=0)
    state = await film(idea="a lighthouse", return_state=True)
    assert state.is_completed(), state.message
    assert [len(rh.recorder.paid), len(rh.recorder.submissions)] == [2, 3]
    progress = (await artifacts_of(state))["pipeline--short-film-progress"]
    assert f"paid {rh.recorder.charged} CNY" in str(progress.description)


@pytest.mark.parametrize(
    ("part", "failed", "paid"),
    [
        ({"only": ["each.clip"]}, {"each[a].clip": "each[a].picture", "each[b].clip": "each[b].picture"}, 0),
        ({"only": ["sheet"]}, {"sheet": "each[a].picture"}, 0),
        ({"only": ["each.clip", "each[a].picture"]}, {"each[b].clip": "each[b].picture"}, 2),
        ({"items": ["a"]}, {}, 2),
    ],
)
async def test_a_selected_step_without_what_it_needs_fails(
    rh: Emulator, tmp_path: Path, part: dict[str, list[str]], failed: dict[str, str], paid: int
) -> None:
    state, result = await run(PRODUCTS, products=table(tmp_path, a="mug", b="cup"), **part)
    assert reasons(result).keys() == failed.keys(), state.message
    for step, need in failed.items():
        assert f"the step needs {need}, which has no result and is not selected" in reasons(result)[step]
    assert state.is_failed is bool(failed)
    assert len(rh.recorder.paid) == paid


async def test_a_budget_refuses_no_existing_result(rh: Emulator, tmp_path: Path) -> None:
    """Its row said `failed`, beside the file: only the copy under another name was missing, which is free."""
    picture, clip = PICTURE % "A poster of $(item.title)", CLIP % "$(picture)"
    posters = of_rows("title: string", "id: $(item.title)", picture=picture)
    await complete(posters, rows=rows("Rome"))
    saved = of_rows("title: string", "id: $(item.title)", picture=picture + ", save_as: $(item.title).jpg", clip=clip)
    state, done = await run("budget: {amount: 1, whole_items: true}\n" + saved, rows=rows("Rome"))
    assert state.name == "Over budget", state.message
    assert states(done) == {"each[Rome].picture": "reused", "each[Rome].clip": "failed"}
    assert (tmp_path / "out" / "Rome.jpg").is_file()


PICK = "name: pick\n" + steps(
    picture=PICTURE % "a harbour" + ", takes: 2",
    chosen="review: $(picture), save_as: pick/chosen.jpg",
    clip=CLIP % "$(chosen)",
)


async def test_each_output_has_the_name_of_its_own_step(rh: Emulator) -> None:
    """Also if several steps save the same result."""
    picture = PICTURE % "a harbour" + ", same: true, save_as: $(id).png"
    best = "review: $(picture), save_as: best-$(id).*"
    text = of_rows("title: string", "id: $(item.title)", picture=picture, best=best)
    text += "outputs: {pictures: $(each.picture), best: $(each.best)}\n"
    await run(text, rows=rows("a", "b"), budget=1)
    plan = await planned(text, rows=rows("a", "b"))
    choice = {"of": plan.steps["each.best"][0].request["of"], "take": 1}
    done = await complete(text, rows=rows("a", "b"), choices={f"each[{item}].best": choice for item in "ab"})
    found = {name: [Path(one.uri).name for one in files] for name, files in done.outputs.items()}
    assert found == {"pictures": ["a.png", "b.png"], "best": ["best-a.png", "best-b.png"]}


@pytest.mark.prefect
async def test_a_review_shows_its_candidates_and_the_next_run_follows_the_choice(rh: Emulator, tmp_path: Path) -> None:
    text = PICK + "outputs: {clip: $(clip), chosen: $(chosen)}\n"
    state, first = await run_in_flow(text, budget=10)
    assert (state.name, len(rh.recorder.paid)) == ("Waiting for review", 2)
    assert states(first) == {"picture": "made", "chosen": "waits for review", "clip": "waits for review"}
    shown = {key: str(one.data) for key, one in (await artifacts_of(state)).items()}
    assert set(shown) == {f"pipeline--pick-{what}" for what in ("plan", "graph", "report", "progress")}
    assert "![contact sheet](data:image/jpeg;base64," in shown["pipeline--pick-report"]
    assert not (tmp_path / "out" / "edits").exists(), "the sheet is no edit of the user"
    assert not (tmp_path / "out" / "pick").exists()
    copied = json.loads(shown["pipeline--pick-report"].partition("```json\n")[2].partition("```")[0])
    (review,) = (one for one in (await planned(text)).instances if one.model == "review")
    state, done = await run_in_flow(text, budget=10, choices={"chosen": {**copied["chosen"], "take": 2}})
    assert state.is_completed()
    assert done["chosen"].uri == str(tmp_path / "out" / "pick" / "chosen.jpg")
    assert probe(tmp_path / "out" / "pick" / "chosen.jpg").mime == "image/jpeg"
    takes = [work.known for work in review.needs[0].works if work.known is not None]
    assert rh.recorder.paid[2].inputs == {"imageUrl": (takes[1].outputs[0].sha256,)}
    for wrong, reason in (
        ({"of": "0" * 8, "take": 2}, "the choice was made for other candidates; choose again"),
        ({"take": 7}, "there is no candidate 7; valid numbers: 1 and 2"),
        ({"take": "2"}, 'there is no candidate "2"; valid numbers: 1 and 2'),
        ({"take": True}, "there is no candidate true; valid numbers: 1 and 2"),
        ({"text": "red"}, "the choice is text, but the candidates are not; choose a candidate by its number"),
    ):
        end, waiting = await run(text, budget=10, choices={"chosen": {**copied["chosen"], **wrong}})
        assert (end.name, reasons(waiting, "waits for review")["chosen"]) == ("Waiting for review", reason)
    assert len(rh.recorder.paid) == 3


OF_A_LINK = "params: {photo: image}\n" + steps(small=RESIZE % "$(params.photo)", clip=CLIP % "$(params.photo)")


@pytest.mark.prefect
async def test_a_signed_link_is_read_by_the_steps_and_appears_nowhere(rh: Emulator, links: LinkHost) -> None:
    photo = samples.picture("PNG", (400, 400), "0a7fb0")
    for signature in ("first-secret", "second-secret"):
        link = links.put(f"photo.png?X-Token={signature}", photo)
        state, result = await run_in_flow(OF_A_LINK, photo=link, budget=10)
        assert state.is_completed(), state.message
        assert signature not in repr(result) + str(await artifacts_of(state))
        assert state.state_details.flow_run_id is not None
        assert "?" not in (await set_states(state.state_details.flow_run_id)).name
    assert len(rh.recorder.paid) == 1
    assert (state.name, result.new) == ("Nothing new", 0)


DATED = "name: dated\n" + steps(
    picture=PICTURE % "a pier" + ', save_as: "$(run.date)/picture.png"',
    other=PICTURE % "a second pier" + ', save_as: "$(run.date)/other.png"',
)


@prefect.flow
async def of_a_parent() -> None:
    await pipeline_flow(Pipeline.from_text(DATED))(budget=5)


@pytest.mark.prefect
async def test_late_and_resumed_runs_keep_the_scheduled_date_of_the_outer_flow(rh: Emulator, tmp_path: Path) -> None:
    rh.faults.add(Fault("submit", prompt="a second pier", kind="code", code="301", times=1))
    late = datetime(2026, 3, 31, 23, 30, tzinfo=timezone(timedelta(hours=-3)))  # in UTC on the first of April
    async with get_client() as client:
        scheduled: State[Any] = Scheduled(scheduled_time=late)
        run_id = (await client.create_flow_run(of_a_parent, state=scheduled)).id
    with pytest.raises(PipelineIncomplete):
        await rerun(of_a_parent, run_id)
    out = tmp_path / "out"
    assert [file.relative_to(out).as_posix() for file in out.glob("2*/*.png")] == ["2026-04-01/picture.png"]
    await rerun(of_a_parent, run_id)
    assert (out / "2026-04-01" / "other.png").is_file()
    assert len(rh.recorder.paid) == 2


VOICE = SPEECH % "$(params.line), voice_id: Wise_Woman"
IS_LONG = "{gt: [$(voice.seconds), 4]}"
CUPS = f"foreach: [cup, mug], id: $(item), where: {{any: [{{equals: [$(item), cup]}}, {IS_LONG}]}}"
DECIDED = "params: {line: string, mood: string}\n" + steps(
    voice=VOICE,
    each=group(CUPS, picture=PICTURE % "Photo of $(item)"),
    large=f"when: {IS_LONG}, model: qwen-image-2.0/text-to-image, with: {{prompt: a large table}}",
    small=PICTURE % "a small table",
    clip=(CLIP % "$(large or small)").replace("slow", "$(params.mood)"),
    sheet="model: qwen-image-2.0/image-edit, with: {image_urls: $(each.picture), prompt: $(params.mood)}",
)
DECIDED += "outputs: {large: $(large), small: $(small), clip: $(clip), pictures: $(each.picture), sheet: $(sheet)}\n"
LONG, SHORT = (
    "a line which takes more than four seconds to say, as a person speaks, at any speed",
    "a line of few words here",
)


@pytest.mark.parametrize("mood", [pytest.param("calm", marks=pytest.mark.long), "wild"])
async def test_existing_results_and_new_requests_wait_for_conditions_of_others(
    full_length_rh: Emulator, mood: str
) -> None:
    """In the same mood, the clip and the sheet exist for the long line; in another one they are new."""
    rh = full_length_rh
    first = await complete(DECIDED, line=LONG, mood="calm", budget=10)
    assert first["large"] and len(first["pictures"]) == 2
    before = len(rh.recorder.paid)
    plan = await planned(DECIDED, line=SHORT, mood=mood)
    second = await complete(DECIDED, line=SHORT, mood=mood, budget=10)
    assert (second["large"], len(second["pictures"])) == (None, 1), "short lines have no large picture, and no mug"
    # The speech, and the clip and the sheet of what is left.
    paid = rh.recorder.paid[before:]
    assert sorted(one.endpoint.split("/")[-1] for one in paid) == ["image-edit", "image-to-video", "speech-2.8-hd"]
    [sheet] = [one for one in paid if one.endpoint.endswith("image-edit")]
    assert len(sheet.payload["imageUrls"]) == 1  # type: ignore[arg-type]  # a list
    assert plan.price.least <= second.costs.amounts["CNY"] <= plan.price.most
    assert (await run(DECIDED, line=LONG, mood="calm", budget=10))[0].name == "Nothing new"
    assert len(rh.recorder.paid) == before + 3


async def test_an_output_is_made_though_only_the_condition_of_an_existing_result_needs_it(rh: Emulator) -> None:
    text = "params: {line: string}\n" + steps(voice=VOICE, picture=PICTURE % "a cup" + ", when: {exists: $(voice)}")
    text += "outputs: {voice: $(voice), picture: $(picture)}\n"
    await run(text, line="one")
    plan = await planned(text, line="two")
    _, second = await run(text, line="two")
    assert second["voice"] is not None
    assert plan.price.most == second.costs.amounts["CNY"] > 0
