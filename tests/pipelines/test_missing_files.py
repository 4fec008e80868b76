"""Files of a result that are missing, cut or replaced: they are downloaded again, and nothing is paid."""

from __future__ import annotations

import json
from pathlib import Path

from rh_prefect.emulator import Emulator
from rh_prefect.media.media import Media
from rh_prefect.pipelines.plan import Plan
from tests.support.samples import media as samples
from tests.support.samples.steps import CLIP, PICTURE, steps
from tests.support.world.pipeline_runs import PipelineRun, picture

PIPELINE = steps(picture=PICTURE % "a mug", clip=CLIP % "$(picture)")
PICTURE_ONLY = steps(picture=PICTURE % "a mug")


def states(plan: Plan) -> dict[str, str]:
    return {one.address: one.state for one in plan.instances}


def file_of(plan: Plan, step: str) -> Media:
    (work,) = next(one for one in plan.instances if one.address == step).works
    assert work.known is not None
    return work.known.outputs[0]


async def test_a_work_is_never_given_with_other_bytes_of_the_same_size(rh: Emulator, run: PipelineRun) -> None:
    first = await run.one(picture())
    file = Path(first.result.outputs[0].uri)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = await run.one(picture())
    assert (again, file.read_bytes()) == (first, content)
    assert len(rh.recorder.paid) == 1


async def test_other_bytes_for_a_missing_file_change_no_request(rh: Emulator, run: PipelineRun, tmp_path: Path) -> None:
    """The host of RunningHub has encoded the picture again since it was recorded."""
    await run.run(PICTURE_ONLY)
    former = samples.png(tmp_path / "former.png", text="as it was recorded")
    recorded = record_other_file(run, former)
    assert states(await run.plan(PIPELINE)) == {"picture": "!", "clip": ">"}
    given = file_of(await run.run(PIPELINE), "picture")
    assert given.sha256 != recorded.sha256
    assert len(rh.recorder.paid) == 2
    assert states(await run.plan(PIPELINE)) == {"picture": "=", "clip": "="}
    assert file_of(await run.plan(PIPELINE), "picture") == given
    Path(given.uri).unlink()
    former.replace(recorded.uri)
    assert states(await run.run(PIPELINE)) == {"picture": "=", "clip": "="}
    assert len(rh.recorder.paid) == 2


def record_other_file(run: PipelineRun, path: Path) -> Media:
    """Rewrites the record of the only result as if RunningHub had given another file, which is gone."""
    media = run.store.describe(path, "described")
    media = media.at(f"pipelines/{media.sha256}.png")
    (record,) = Path(run.store_url).glob("works/*/result.json")
    was = json.loads(record.read_text())
    Path(run.store.uri(was["outputs"][0]["uri"])).unlink()
    (stored,) = Path(run.store_url).glob("results/*/*.json")
    stored.unlink()
    record.write_text(json.dumps(was | {"outputs": [media.model_dump(mode="json")], "states": []}))
    return media.at(run.store.uri(media.uri))
