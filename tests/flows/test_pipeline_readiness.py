"""Which steps of a pipeline run begin, and with what: beside failed steps, ids that end, and lost files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
from prefect.settings import PREFECT_TASKS_DEFAULT_RETRIES, temporary_settings

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.pipelines.parsed_document import PipelineError
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, RESIZE, further, group, of_rows, rows, steps
from tests.support.servers.emulator_env import StartEmulator
from tests.support.world.pipeline_flows import complete, planned, run, run_in_flow, states

ANGLE = PICTURE % "$(item.title) from the $(matrix.angle)"
ANGLES = of_rows(
    "title: string",
    "id: $(item.title)",
    angles=group("matrix: {angle: [left, right]}", picture=ANGLE),
    sheet="edit: contact_sheet, with: {of: $(angles.picture)}, require: any",
) + further(
    all="model: bytedance/jimeng-4.6/image-to-image, require: any, "
    "with: {prompt: all of them, image_urls: $(each.sheet)}"
)


async def test_a_list_without_failed_items_waits_for_what_is_made_without_them(rh: Emulator) -> None:
    await run(ANGLES, rows=rows("mug"), only=["each.angles.picture", "each.sheet"], budget=9)
    rh.faults.add(Fault("submit", prompt="cup from the left", kind="code", code="301"))
    state, result = await run(ANGLES, rows=rows("cup", "mug"), budget=9)
    assert state.is_failed
    found = states(result)
    assert found["each.angles[cup/left].picture"] == "failed"
    assert found["each[cup].sheet"] == found["all"] == "made"
    paid = [one for one in rh.recorder.paid if "all of them" in str(one.payload)]
    assert [str(one.payload["imageUrls"]).count("http") for one in paid] == [2]


@pytest.mark.parametrize(
    ("save", "lost"),
    [
        pytest.param("", "", marks=pytest.mark.long),
        pytest.param(", save_as: s.png", "", marks=pytest.mark.long),
        (", save_as: s.png", "s.png"),
    ],
)
async def test_a_lost_file_of_an_edit_is_there_before_the_steps_that_need_it(
    rh: Emulator, tmp_path: Path, save: str, lost: str
) -> None:
    text = steps(mug=PICTURE % "a mug", small=RESIZE % "$(mug)" + save)
    _, result = await run(text, budget=9)
    content = await asyncio.to_thread(Path(result.steps[1].files[0]).read_bytes)
    (stored,) = (tmp_path / "out" / "pipelines").glob(f"{hashlib.sha256(content).hexdigest()}*")
    for path in (stored, *((tmp_path / "out" / lost,) if lost else ())):
        path.unlink()
    clips = {name: (CLIP % "$(small)").replace("slow", name) for name in ("turn", "fall")}
    await complete(text + further(**clips), budget=9)
    assert len(rh.recorder.paid) == 3
    assert stored.is_file()


@pytest.mark.parametrize("outputs", ["", "outputs: {small: $(small)}\n"])
async def test_a_lost_file_of_an_edit_that_is_an_output_is_made_again(
    rh: Emulator, tmp_path: Path, outputs: str
) -> None:
    text = steps(mug=PICTURE % "a mug", small=RESIZE % "$(mug)") + outputs
    small = Path((await complete(text, budget=9)).outputs["small"].uri.removeprefix("file://"))
    content = small.read_bytes()
    for stored in (tmp_path / "out" / "pipelines").glob("*.*"):
        stored.unlink()
    again = await complete(text, budget=9)
    assert (small.read_bytes(), states(again)) == (content, {"mug": "reused", "small": "made"})
    assert states(await complete(text, budget=9)) == {"mug": "reused", "small": "reused"}
    assert len(rh.recorder.paid) == 1


async def test_the_chosen_result_of_an_edit_is_saved_after_it_was_made_with_other_bytes(
    rh: Emulator, tmp_path: Path
) -> None:
    text = steps(mug=PICTURE % "a mug", small=RESIZE % "$(mug)", best="review: $(small), save_as: best.*")
    await run(text, budget=9)
    (record,) = (tmp_path / "out" / "edits").glob("*/result.json")
    content = json.loads(record.read_text())
    stored = tmp_path / "out" / content["file"]["uri"]
    other = {"sha256": "0" * 64, "uri": f"pipelines/{'0' * 64}{stored.suffix}"}
    record.write_text(json.dumps(content | {"file": content["file"] | other}))
    stored.unlink()
    (review,) = (await planned(text)).steps["best"]
    await complete(text, choices={"best": {"of": review.request["of"], "take": 1}})
    assert (tmp_path / "out" / f"best{stored.suffix}").is_file()


@pytest.mark.prefect
async def test_retries_that_prefect_gives_each_task_are_none_of_a_step(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a bad word", kind="code", code="301"))
    with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 2}):
        state, result = await run_in_flow(steps(bad=PICTURE % "a bad word", good=PICTURE % "a mug"), budget=1)
    assert state.is_failed()
    assert states(result) == {"bad": "failed", "good": "made"}
    assert len(rh.recorder.submissions) == 2


def answers(save: str, prompt: str = "$(item.text)") -> str:
    script = ANSWER % '"10 items about a mug as JSON, each item has text"'
    return steps(
        script=f"{script}, parse: {{list: {{text: string}}, at_most: 10}}",
        each=group("foreach: $(script)", picture=f"{PICTURE % prompt}{save}"),
    )


@pytest.mark.parametrize("save", [pytest.param("", marks=pytest.mark.long), ", save_as: $(item.text).png"])
@pytest.mark.prefect
async def test_a_pipeline_that_ran_is_not_refused_because_of_an_answer(rh: Emulator, save: str) -> None:
    """Two texts of the answer are equal: one picture is made for both, and only one step can have the name."""
    text = answers(save)
    (_, first), (_, second) = [await run_in_flow(text, budget=1) for _ in range(2)]
    assert len(rh.recorder.paid) == 10
    failed = [[one.step for one in result.steps if one.state == "failed"] for result in (first, second)]
    assert failed == [["each[10].picture"] if save else []] * 2
    assert [one.state for one in second.steps].count("reused") == 11 - bool(save)
    with pytest.raises(PipelineError, match="have the same request"):
        await pipeline_flow(Pipeline.from_text(f"name: shots\n{answers(save, 'a mug')}"))(budget=1)


CHAINS = of_rows(
    "title: string",
    "id: $(item.title)",
    picture=PICTURE % "picture of $(item.title)",
    large="model: nano-banana-pro/edit-official-stable, from: $(picture), with: {prompt: larger $(item.title)}",
)


def _has(recorder: Recorder, *, paid: int = 0, uploads: int = 0) -> bool:
    return len(recorder.paid) >= paid and len(recorder.uploads) >= uploads


async def test_where_slots_are_scarce_items_are_paid_to_their_end_one_after_the_other(start_rh: StartEmulator) -> None:
    rh = start_rh(clock="real", factor=0, limit=1)
    whole = asyncio.create_task(run(CHAINS, rows=rows(*"abcdef"), budget=99))
    begun, unfinished = 0, 0
    for number in range(1, 13):
        assert await asyncio.to_thread(rh.recorder.wait, partial(_has, paid=number))
        # The next steps of all items whose pictures are done have sent their inputs, and wait for the slot.
        assert await asyncio.to_thread(rh.recorder.wait, partial(_has, uploads=begun))
        begun = sum("picture" in str(one.payload["prompt"]) for one in rh.recorder.paid)
        unfinished = max(unfinished, 2 * begun - number)
        rh.clock.advance(1000)
    state, _ = await whole
    assert not state.is_failed, state.message
    # The slot of a picture is used by the next item while the picture is downloaded; two items more for slow machines.
    assert unfinished <= 4
