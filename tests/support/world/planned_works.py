"""Pipelines that are planned again and again, with works that earlier plans have made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rh_prefect.media.media import Media
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, KnownWorks, Plan, WorkQuery
from rh_prefect.pipelines.plan.planned_steps import PlannedStep

SHOTS = """\
name: shots
params:
  rows: {type: table, columns: {title: string, mood: string}}
  size: {enum: [720p, 1080p], optional: true}
steps:
  music: {model: suno-single-v5.5, with: {description: calm, make_instrumental: true}}
  each:
    foreach: $(params.rows)
    id: $(item.title)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "$(item.title), $(item.mood)"}}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: slow, duration: 5, sound: false}}
      large:
        when: {exists: $(params.size)}
        model: rh-video-upscaler
        from: $(clip)
        with: {target_resolution: $(params.size)}
      video: {edit: mux, with: {video: $(large or clip), audio: $(music)}, save_as: $(id).mp4}
outputs: {videos: $(each.video)}
"""

ROWS = [{"title": name, "mood": "calm"} for name in ("mug", "bowl", "jug")]


class Records(KnownWorks):
    """Knows what earlier plans said that a run makes."""

    def __init__(self) -> None:
        self.known: dict[str, KnownWork] = {}
        self.asked: list[str] = []

    async def find(self, queries: Sequence[WorkQuery]) -> list[KnownWork | None]:
        self.asked += [query.work for query in queries]
        return [self.known.get(query.work) for query in queries]

    def answer(self, step: PlannedStep, value: Any = None, **more: Any) -> None:
        """Records the result of a step: the value of its answer, or what `more` says."""
        self.known[step.works[0].key] = KnownWork("=", value=value, **more)

    def make(self, plan: Plan) -> int:
        """Records all works whose inputs are there, as a run would; tells how many were paid for."""
        paid = 0
        for one in plan.instances:
            for work in one.works:
                if work.is_settled and work.state in ("+", "~") and work.is_needed:
                    self.known[work.key] = result(work.key, one.model)
                    paid += one.is_paid
        return paid


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def result(key: str, model: str, **more: Any) -> KnownWork:
    if "text" in model:
        return KnownWork("=", texts=(more.pop("text", "a text"),), **more)
    kind = "audio" if "suno" in model else "image" if "image/turbo" in model or model == "frame" else "video"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    media = Media(uri=f"s3://shop/{key}", kind=kind, mime="", size=1, sha256=sha256, seconds=5.042)
    return KnownWork("=", outputs=(media,), **more)


def states(plan: Plan, *paths: str) -> str:
    """The states of the steps of a plan, or of some paths, as one text."""
    return "".join(one.state for one in plan.instances if not paths or one.path in paths)


def using(folder: Path, text: str, **files: str) -> Pipeline:
    """A file that uses others, such as `./used.yaml`."""
    for name, content in {**files, "outer": text}.items():
        (folder / f"{name}.yaml").write_text(content)
    return Pipeline.from_file(folder / "outer.yaml")


async def plan_of(file: str | Pipeline, params: Mapping[str, Any] | None = None, /, **options: Any) -> Plan:
    """Plans a file in which nothing is wrong."""
    pipeline = Pipeline.from_text(file) if isinstance(file, str) else file
    plan = await pipeline.plan(params, **options)
    assert [problem.head for problem in plan.problems] == []
    return plan


async def problems_of(file: str | Pipeline, params: Mapping[str, Any] | None = None, /, **options: Any) -> list[str]:
    pipeline = Pipeline.from_text(file) if isinstance(file, str) else file
    return [problem.message for problem in (await pipeline.plan(params, **options)).problems]


async def run(file: str | Pipeline, records: Records, /, **given: Any) -> int:
    """Plans and makes until nothing is left; tells how many works were paid for."""
    paid = 0
    for _ in range(10):
        plan = await plan_of(file, known=records, **given)
        made = len(records.known)
        paid += records.make(plan)
        if len(records.known) == made:
            return paid
    raise AssertionError("it never ends")
