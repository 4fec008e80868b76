"""A plan and a run mean the same works: what was made by hand is known to the plan of a file that asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rh_prefect import models
from rh_prefect.pipelines.file_model import Parse
from rh_prefect.pipelines.known_works import StoredWorks
from rh_prefect.pipelines.parsed_answers import read_answer, shape_of
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import get_settings
from rh_prefect.works.work_runner import WorkCall
from tests.support.samples import media as samples
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, steps
from tests.support.world.pipeline_runs import PipelineRun

WAVES = (CLIP % "%s").replace("slow", "%s")
FILE = "params: {photo: image}\n" + steps(
    picture=PICTURE % 'a lighthouse, aspect_ratio: "9:16"',
    clip=WAVES % ("$(params.photo)", "waves"),
    again=WAVES % ("$(picture)", '"waves"'),
    small="edit: resize, with: {file: $(picture), width: 20, height: 20}",
    words=ANSWER % "Write about the sea" + ", parse: {text: {max: 9000}}",
    end="edit: frame, with: {video: $(clip), at: last}",
)


async def test_the_plan_finds_what_was_made(run: PipelineRun, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(320, 320))
    parse = Parse.model_validate({"text": {"max": 9000}})

    def clip(image: Any) -> models.ModelInput:
        return models.KlingV26ProImageToVideo(image_url=image, prompt="waves", duration="5", sound=False)  # type: ignore[arg-type]  # the input takes a bool too

    picture = await run.one(WorkCall(models.ZImageTurbo(prompt="a lighthouse", aspect_ratio="9:16"), "picture"))
    first = await run.one(WorkCall(clip(str(photo)), "clip"))
    await run.one(WorkCall(clip(picture.result.outputs[0]), "again"))
    words = models.RhartTextG3FlashPreviewTextToText(prompt="Write about the sea")
    await run.one(WorkCall(words, "words", parse=lambda text: read_answer(text, parse), shape=shape_of(parse)))
    edits = open_edits(run.store, get_settings())
    await edits.make("resize", {"file": picture.result.outputs[0], "width": 20, "height": 20})
    await edits.make("frame", {"video": first.result.outputs[0], "at": "last"})

    known = StoredWorks(await run.works(), edits, run.store, rounds=run.rounds())
    plan = await Pipeline.from_text(FILE).plan(photo=str(photo), known=known, site=run.engine.pool.site)
    assert not plan.problems
    states = {step["path"]: step["state"] for step in plan.as_json()["steps"]}
    assert states == dict.fromkeys(("picture", "clip", "again", "small", "words", "end"), "=")
