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
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import Artifact, State, StateType
from prefect.states import Scheduled

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, InputError, PipelineIncomplete
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.queries import scope_of
from rh_prefect.flow_runs.rerun import rerun
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.probe import probe
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.run.result import NOTHING_NEW, OVER_BUDGET, WAITING, PipelineResult
from rh_prefect.settings import get_settings
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.link_server import LinkHost
from tests.support.world.pipeline_flows import PRODUCTS, in_flow_run, planned, run, run_in_flow, table

FILM = """
name: short-film
params:
  idea: {type: string, max: 100}
steps:
  picture: {model: z-image/turbo, with: {prompt: $(params.idea), aspect_ratio: "16:9"}}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: waves, duration: 5, sound: false}}
  end: {edit: frame, with: {video: $(clip), at: last}, save_as: film/end.png}
outputs: {clip: $(clip), end: $(end)}
"""


async def artifacts_of(state: State[Any]) -> dict[str | None, Artifact]:
    async with get_client() as client:
        run_id = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run_id))
    return {one.key: one for one in found}


@in_flow_run
async def test_a_second_run_pays_nothing_and_says_so(rh: Emulator, tmp_path: Path) -> None:
    state, first = await run_in_flow(FILM, idea="a lighthouse", budget=10)
    assert state.is_completed(), state.message
    assert [(one.step, one.state) for one in first.steps] == [("picture", "made"), ("clip", "made"), ("end", "made")]
    assert first.costs.amounts["CNY"] == rh.recorder.charged
    shown = await artifacts_of(state)
    assert set(shown) == {f"pipeline--short-film-{what}" for what in ("plan", "graph", "progress", "report")}
    assert shown["pipeline--short-film-progress"].data == 100
    assert first["clip"].uri in str(shown["pipeline--short-film-report"].data)
    assert (tmp_path / "out" / "film" / "end.png").is_file()
    state, second = await run_in_flow(FILM, idea="a lighthouse", budget=10)
    assert len(rh.recorder.paid) == 2
    assert (state.name, second.new, str(second.costs)) == (NOTHING_NEW, 0, "0")
    assert first["clip"].uri in str((await artifacts_of(state))["pipeline--short-film-report"].data)
    assert second["clip"].sha256 == first["clip"].sha256


@in_flow_run
async def test_a_cancelled_run_cancels_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(long_side=96, fps=6, clock="real") as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        run = asyncio.ensure_future(pipeline_flow(Pipeline.from_text(FILM))(idea="a lighthouse", return_state=True))
        assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: bool(recorder.paid))
        async with get_client() as client:
            of_film, is_running = FlowFilterName(any_=["short-film"]), FlowRunFilterStateType(any_=[StateType.RUNNING])
            (flow_run,) = await client.read_flow_runs(
                flow_filter=FlowFilter(name=of_film),
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=is_running)),
            )
        await LOOP.call(cancel_run(scope_of(flow_run, "short-film"), by="test"))
        state = await run
        assert not state.is_completed()
        assert len(rh.recorder.cancelled) == len(rh.recorder.paid) == 1


async def test_names_order_and_style_are_no_part_of_a_request(rh: Emulator, tmp_path: Path) -> None:
    await run(FILM, idea="a lighthouse", budget=10)
    other = """
params: {idea: string, more: {type: integer, default: 3}}
steps:
  still:
    model: z-image/turbo
    with:
      aspect_ratio: '16:9'
      prompt: $(params.idea)
  motion: {model: kling-v2.6-pro-image-to-video, with: {sound: false, duration: "5", prompt: waves, image: $(still)}}
outputs: {motion: $(motion)}
""".replace("image: $(still)", "image_url: $(still)")
    state, _ = await run(other, idea="a lighthouse", budget=10)
    assert (state.name, len(rh.recorder.paid)) == (NOTHING_NEW, 2)


async def test_a_damaged_output_is_neither_saved_nor_used_and_is_downloaded_again(rh: Emulator, tmp_path: Path) -> None:
    rh.faults.add(Fault("download", kind="short", endpoint="kling*"))
    state, broken = await run(FILM, idea="a lighthouse", budget=10)
    assert state.is_failed()
    assert "was damaged" in str(state.message)
    assert [(one.step, one.state) for one in broken.steps] == [
        ("picture", "made"), ("clip", "failed"), ("end", "not run")
    ]  # fmt: skip
    assert not list((tmp_path / "out").rglob("end.png"))
    rh.faults.clear()
    state, whole = await run(FILM, idea="a lighthouse", budget=10)
    assert state.is_completed(), state.message
    assert not whole.costs.amounts
    assert len(rh.recorder.paid) == 2


async def test_one_changed_cell_pays_for_the_chain_of_its_row_alone(rh: Emulator, tmp_path: Path) -> None:
    titles = {"a": "cup", "b": "mug", "c": "bowl"}
    await run(PRODUCTS, products=table(tmp_path, **titles), budget=10)
    assert len(rh.recorder.paid) == 6
    _, second = await run(PRODUCTS, products=table(tmp_path, **titles | {"b": "jug"}), budget=10)
    assert len(rh.recorder.paid) == 8
    made = {one.step for one in second.steps if one.state == "made"}
    assert made == {"each[b].picture", "each[b].clip", "sheet"}
    state, _ = await run(PRODUCTS, products=table(tmp_path, **dict(reversed(titles.items()))), budget=10)
    assert len(rh.recorder.paid) == 8
    assert state.is_completed()


async def test_a_failed_item_stops_neither_the_others_nor_what_does_without_it(rh: Emulator, tmp_path: Path) -> None:
    state, first = await run(PRODUCTS, products=table(tmp_path, a="cup", b="forbidden mug", c="bowl"), budget=10)
    assert state.is_failed()
    states = {one.step: one.state for one in first.steps}
    assert states["each[b].picture"] == "failed"
    assert states["each[b].clip"] == "not run"
    assert states["sheet"] == "made"
    assert list(states.values()).count("failed") == 1
    assert (state.message or "").startswith("each[b].picture: ")
    state, second = await run(PRODUCTS, products=table(tmp_path, a="cup", b="mug", c="bowl"), budget=10)
    assert state.is_completed(), state.message
    assert second.costs.amounts["CNY"] + first.costs.amounts["CNY"] == rh.recorder.charged


async def test_a_budget_below_the_least_price_is_refused_before_a_payment(rh: Emulator) -> None:
    with pytest.raises(BudgetExceeded, match="costs at least"):
        await run(FILM, idea="a lighthouse", budget=0.1)
    assert rh.recorder.submissions == []


@in_flow_run
async def test_a_budget_is_compared_with_the_selected_steps(rh: Emulator) -> None:
    with pytest.raises(BudgetExceeded):
        await pipeline_flow(Pipeline.from_text(FILM))(idea="a lighthouse", budget=0.1)
    state: State[Any] = await pipeline_flow(Pipeline.from_text(FILM))(
        idea="a lighthouse", budget=0.1, only=["picture"], return_state=True
    )
    assert state.is_completed(), state.message
    assert [paid.endpoint for paid in rh.recorder.paid] == ["rhart-image/z-image/turbo"]
    progress = (await artifacts_of(state))["pipeline--short-film-progress"]
    assert str(progress.description) == f"1 of 1 jobs done, cost {rh.recorder.charged} CNY"


@pytest.mark.parametrize(
    ("part", "failed"),
    [
        ({"only": ["each.clip"]}, {"each[a].clip": "each[a].picture", "each[b].clip": "each[b].picture"}),
        ({"only": ["sheet"]}, {"sheet": "each[a].picture"}),
        ({"only": ["each.clip", "each[a].picture"]}, {"each[b].clip": "each[b].picture"}),
        ({"items": ["a"]}, {}),
    ],
)
async def test_a_selected_step_without_what_it_needs_fails(
    rh: Emulator, tmp_path: Path, part: dict[str, list[str]], failed: dict[str, str]
) -> None:
    state, result = await run(PRODUCTS, products=table(tmp_path, a="mug", b="cup"), **part)
    reasons = {one.step: one.reason for one in result.steps if one.state == "failed"}
    assert reasons.keys() == failed.keys(), state.message
    assert all(
        f"it needs {need}, which has no result and is not selected" in reasons[one] for one, need in failed.items()
    )
    assert state.is_completed() is not bool(failed)
    assert len(rh.recorder.paid) == {"sheet": 0, "each.clip": 0}.get(" ".join(part.get("only", ())), 2)


async def test_a_step_to_be_made_again_that_does_not_exist_is_refused_before_a_payment(rh: Emulator) -> None:
    with pytest.raises(InputError, match=r"pictur does not exist.*picture"):
        await run(FILM, idea="a lighthouse", new=["pictur"])
    assert rh.recorder.submissions == []


async def test_whole_items_never_leaves_a_begun_item_for_money(rh: Emulator, tmp_path: Path) -> None:
    text = PRODUCTS.replace("name: products", "name: products\nbudget: {amount: 4.2, whole_items: true}")
    state, first = await run(text, products=table(tmp_path, a="cup", b="mug", c="bowl"))
    assert (state.is_failed(), state.name) == (True, OVER_BUDGET), state.message
    states = {one.step: one.state for one in first.steps}
    made = [name for name in "abc" if states[f"each[{name}].clip"] == "made"]
    assert made
    assert len(made) < 3
    assert len(rh.recorder.paid) == 2 * len(made)
    assert rh.recorder.charged <= 4.2


async def test_a_budget_refuses_no_existing_result(rh: Emulator, tmp_path: Path) -> None:
    """Its row said `failed`, beside the file: only the copy under another name was missing, which is free."""
    pictures = """
name: posters
params: {rows: {type: table, columns: {name: string}}}
steps:
  each:
    foreach: $(params.rows)
    id: $(item.name)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "A poster of $(item.name)"}}
"""
    rows = str(tmp_path / "rows.csv")
    Path(rows).write_text("name\nRome\n")
    state, _ = await run(pictures, rows=rows)
    assert state.is_completed(), state.message
    clips = (
        pictures.replace("name: posters", "name: clips\nbudget: {amount: 1, whole_items: true}").replace(
            '$(item.name)"}}', '$(item.name)"}, save_as: $(item.name).jpg}'
        )
        + """
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: waves, duration: 5, sound: false}}
"""
    )
    state, done = await run(clips, rows=rows)
    assert state.name == OVER_BUDGET, state.message
    assert {one.step: one.state for one in done.steps} == {"each[Rome].picture": "reused", "each[Rome].clip": "failed"}
    assert (tmp_path / "out" / "Rome.jpg").is_file()


@in_flow_run
async def test_a_review_shows_its_candidates_and_the_next_run_follows_the_choice(rh: Emulator, tmp_path: Path) -> None:
    text = """
name: pick
steps:
  picture: {model: z-image/turbo, takes: 2, with: {prompt: a harbour}}
  chosen: {review: $(picture), save_as: pick/chosen.jpg}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: waves, duration: 5, sound: false}}
outputs: {clip: $(clip), chosen: $(chosen)}
"""
    pipeline = Pipeline.from_text(text)
    state, first = await run_in_flow(text, budget=10)
    assert (state.name, len(rh.recorder.paid)) == (WAITING, 2)
    assert {one.step: one.state for one in first.steps} == {
        "picture": "made",
        "chosen": "waits for review",
        "clip": "waits for review",
    }
    shown = {key: str(one.data) for key, one in (await artifacts_of(state)).items()}
    assert set(shown) == {f"pipeline--pick-{what}" for what in ("plan", "graph", "report", "progress")}
    assert "![contact sheet](data:image/jpeg;base64," in shown["pipeline--pick-report"]
    assert not (tmp_path / "out" / "edits").exists(), "the sheet is no edit of the user"
    copied = json.loads(shown["pipeline--pick-report"].partition("```json\n")[2].partition("```")[0])
    known = open_records(MediaStore(str(tmp_path / "out")), get_settings())
    plan = await pipeline.plan(known=known)
    (review,) = (one for one in plan.instances if one.model == "review")
    choices = {"chosen": {**copied["chosen"], "take": 2}}
    assert not (tmp_path / "out" / "pick").exists()
    state, done = await run_in_flow(text, budget=10, choices=choices)
    assert state.is_completed()
    assert done["chosen"].uri == str(tmp_path / "out" / "pick" / "chosen.jpg")
    assert probe(tmp_path / "out" / "pick" / "chosen.jpg").mime == "image/jpeg"
    takes = [work.known for work in review.needs[0].works if work.known is not None]
    assert rh.recorder.paid[2].inputs == {"imageUrl": (takes[1].outputs[0].sha256,)}
    assert len(rh.recorder.paid) == 3
    for wrong, reason in (
        ({"of": "0" * 8, "take": 2}, "the choice was made for other candidates; choose again"),
        ({**copied["chosen"], "take": 7}, "there is no candidate 7; it has 1 and 2"),
        ({**copied["chosen"], "take": "2"}, 'there is no candidate "2"; it has 1 and 2'),
        ({**copied["chosen"], "take": True}, "there is no candidate true; it has 1 and 2"),
        (
            {**copied["chosen"], "text": "red"},
            "the choice is a text, but the candidates are files; choose a candidate by its number",
        ),
    ):
        state, waiting = await run_in_flow(text, budget=10, choices={"chosen": wrong})
        assert state.name == WAITING
        assert [one.reason for one in waiting.steps if one.step == "chosen"] == [reason]


OF_A_LINK = """
name: of-a-link
params:
  photo: {type: image}
steps:
  small: {edit: resize, with: {file: $(params.photo), width: 96, height: 96}}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(params.photo), with: {prompt: waves, duration: 5, sound: false}}
"""


@in_flow_run
async def test_a_signed_link_is_read_by_the_steps_and_appears_nowhere(rh: Emulator, links: LinkHost) -> None:
    photo = samples.picture("PNG", (400, 400), "0a7fb0")
    for signature in ("first-secret", "second-secret"):
        link = links.put(f"photo.png?X-Token={signature}", photo)
        state, result = await run_in_flow(OF_A_LINK, photo=link, budget=10)
        assert state.is_completed(), state.message
        assert signature not in repr(result) + str(await artifacts_of(state))
        assert state.state_details.flow_run_id is not None
        async with get_client() as client:
            assert "?" not in (await client.read_flow_run(state.state_details.flow_run_id)).name
    assert len(rh.recorder.paid) == 1
    assert (state.name, result.new) == (NOTHING_NEW, 0)


DATED = """
name: dated
steps:
  picture: {model: z-image/turbo, with: {prompt: a pier}, save_as: "$(run.date)/picture.png"}
  other: {model: z-image/turbo, with: {prompt: a second pier}, save_as: "$(run.date)/other.png"}
"""


@prefect.flow
async def of_a_parent() -> None:
    await pipeline_flow(Pipeline.from_text(DATED))(budget=5)


@in_flow_run
async def test_a_late_run_and_its_resumed_attempt_keep_the_scheduled_date_of_the_outer_flow(
    rh: Emulator, tmp_path: Path
) -> None:
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


DECIDED = """
name: decided
params: {line: string, mood: string}
steps:
  voice: {model: minimax/speech-2.8-hd, with: {text: $(params.line), voice_id: Wise_Woman}}
  each:
    foreach: [cup, mug]
    id: $(item)
    where: {any: [{equals: [$(item), cup]}, {gt: [$(voice.seconds), 4]}]}
    steps:
      picture: {model: z-image/turbo, with: {prompt: Photo of $(item)}}
  large:
    when: {gt: [$(voice.seconds), 4]}
    model: qwen-image-2.0/text-to-image
    with: {prompt: a large table}
  small: {model: z-image/turbo, with: {prompt: a small table}}
  clip:
    model: kling-v2.6-pro-image-to-video
    from: $(large or small)
    with: {prompt: $(params.mood), duration: 5, sound: false}
  sheet: {model: qwen-image-2.0/image-edit, with: {image_urls: $(each.picture), prompt: $(params.mood)}}
outputs: {large: $(large), small: $(small), clip: $(clip), pictures: $(each.picture), sheet: $(sheet)}
"""
LONG, SHORT = (
    "a line which takes more than four seconds to say, as a person speaks, at any speed",
    "a line of few words here",
)


async def test_results_that_exist_wait_for_the_conditions_of_new_steps(rh: Emulator) -> None:
    state, first = await run(DECIDED, line=LONG, mood="calm", budget=10)
    assert state.is_completed(), state.message
    assert first["large"] and len(first["pictures"]) == 2
    before = len(rh.recorder.paid)
    plan = await planned(DECIDED, line=SHORT, mood="calm")
    state, second = await run(DECIDED, line=SHORT, mood="calm", budget=10)
    assert state.is_completed(), state.message
    assert (second["large"], len(second["pictures"])) == (None, 1), "short lines have no large picture, and no mug"
    # The speech, and the clip and the sheet of what is left.
    paid = rh.recorder.paid[before:]
    assert sorted(one.endpoint.split("/")[-1] for one in paid) == ["image-edit", "image-to-video", "speech-2.8-hd"]
    [sheet] = [one for one in paid if one.endpoint.endswith("image-edit")]
    assert len(sheet.payload["imageUrls"]) == 1  # type: ignore[arg-type]  # a list
    assert plan.price.least <= second.costs.amounts["CNY"] <= plan.price.most
    assert (await run(DECIDED, line=LONG, mood="calm", budget=10))[0].name == NOTHING_NEW
    assert len(rh.recorder.paid) == before + 3


async def test_new_requests_wait_for_the_conditions_of_results_that_exist(rh: Emulator) -> None:
    await run(DECIDED, line=LONG, mood="calm", budget=10)
    before = len(rh.recorder.paid)
    plan = await planned(DECIDED, line=SHORT, mood="wild")
    _, second = await run(DECIDED, line=SHORT, mood="wild", budget=10)
    assert (second["large"], len(second["pictures"])) == (None, 1)
    assert len(rh.recorder.paid) == before + 3, "one clip and one sheet, made after the speech"
    assert plan.price.least <= second.costs.amounts["CNY"] <= plan.price.most


async def test_an_output_is_made_though_only_the_condition_of_an_existing_result_needs_it(rh: Emulator) -> None:
    text = """
name: titled
params: {line: string}
steps:
  voice: {model: minimax/speech-2.8-hd, with: {text: $(params.line), voice_id: Wise_Woman}}
  picture: {model: z-image/turbo, with: {prompt: a cup}, when: {exists: $(voice)}}
outputs: {voice: $(voice), picture: $(picture)}
"""
    await run(text, line="one")
    plan = await planned(text, line="two")
    _, second = await run(text, line="two")
    assert second["voice"] is not None
    assert plan.price.most == second.costs.amounts["CNY"] > 0


@in_flow_run
async def test_values_of_used_files_and_candidates_wait_for_the_conditions_of_what_exists(
    rh: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "titled.yaml").write_text("""
params: {title: string, photo: image}
steps:
  clip:
    model: kling-v2.6-pro-image-to-video
    from: $(params.photo)
    with: {prompt: $(params.title), duration: 5, sound: false}
outputs: {clip: $(clip)}
""")
    (tmp_path / "uses.yaml").write_text("""
name: uses
params: {line: string}
steps:
  voice: {model: minimax/speech-2.8-hd, with: {text: $(params.line), voice_id: Wise_Woman}}
  title:
    when: {gt: [$(voice.seconds), 4]}
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: a title}
    parse: {text: {}}
  large: {when: {gt: [$(voice.seconds), 4]}, model: z-image/turbo, with: {prompt: a large table}}
  small: {model: z-image/turbo, with: {prompt: a small table}}
  made: {use: ./titled.yaml, with: {title: $(title or params.line), photo: $(large or small)}}
  chosen: {review: $(large or small)}
  moved: {model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: $(params.line), duration: 5}}
outputs: {clip: $(made.clip), moved: $(moved)}
""")

    async def run_uses(line: str, **more: Any) -> tuple[State[Any], PipelineResult]:
        state = await pipeline_flow(Pipeline.from_file(tmp_path / "uses.yaml"))(
            line=line, budget=20, return_state=True, **more
        )
        data = await state.aresult(raise_on_failure=False)
        return state, data.result if isinstance(data, PipelineIncomplete) else data

    await run_uses(LONG)
    settings = get_settings()
    known = open_records(MediaStore(settings.storage_url), settings)
    plan = await Pipeline.from_file(tmp_path / "uses.yaml").plan(line=LONG, known=known)
    (review,) = [one for one in plan.instances if one.model == "review"]
    choices = {"chosen": {"of": review.request["of"], "take": 1}}
    state, _ = await run_uses(LONG, choices=choices)
    assert state.is_completed(), state.message
    before = len(rh.recorder.paid)
    plan = await Pipeline.from_file(tmp_path / "uses.yaml").plan(line=SHORT, known=known, choices=choices)
    state, second = await run_uses(SHORT, choices=choices)
    assert state.name == WAITING, state.message
    # The speech, and the clip of the used file with the line; the choice was made among other candidates.
    paid = rh.recorder.paid[before:]
    assert [one.endpoint.split("/")[-1] for one in paid] == ["speech-2.8-hd", "image-to-video"]
    assert paid[-1].payload["prompt"] == SHORT
    assert plan.price.least <= second.costs.amounts["CNY"] <= plan.price.most
