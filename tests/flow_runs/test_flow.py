from __future__ import annotations

import asyncio
import re
import traceback
from contextlib import suppress
from enum import Enum
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, TaskRun, TaskRunResult
from prefect.context import FlowRunContext
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter
from prefect.events.schemas.events import ReceivedEvent
from prefect.flows import FlowStateHook
from prefect.states import Completed
from pydantic import HttpUrl

import rh_prefect
from rh_prefect import generate, generate_many, models
from rh_prefect.display_texts import shortened
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, JobsFailed, JobTimeout
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish, run_name, run_name_with
from rh_prefect.flow_runs.resume_or_rerun import resume
from rh_prefect.flows.batch import batch
from rh_prefect.media.media import Media
from rh_prefect.prefect_internals import drain
from rh_prefect.works.journal.scope import REQUESTED_KEYS
from tests.support.world.prefect_runs import artifacts_of, set_states


def theirs(flow: Flow[..., Any], flow_run: Any, state: Any) -> None: ...


def test_it_is_used_like_prefects_own() -> None:
    @rh_prefect.flow
    def bare() -> int:
        """Says one."""
        return 1

    @rh_prefect.flow(name="named", retries=2)
    async def with_options(n: int = 3) -> int:
        return n

    assert (bare.name, bare.description, bare.isasync) == ("bare", "Says one.", False)
    assert (with_options.name, with_options.retries, with_options.isasync) == ("named", 2, True)
    assert with_options.parameters.properties["n"]["default"] == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  harbour\nat night", "a harbour at night"),
        ("a harbour at night, lanterns", "a harbour at night,…"),
        ("a harbour at nightfall", "a harbour at…"),
        ("s3://shop/a/very/long/products.csv", "s3://shop/a/very/lo…"),
        ("一座灯塔在黎明的海边海浪拍打着礁石海鸥盘旋", "一座灯塔在黎明的海边海浪拍打着礁石海鸥…"),
        ("film 一座灯塔在黎明的海边海浪拍打着礁石", "film 一座灯塔在黎明的海边海浪拍打…"),
    ],
)
def test_a_name_is_cut_after_a_word_or_in_a_long_one(text: str, shown: str) -> None:
    assert shortened(text, 20) == shown


NAMED_BY_FORM, CONTEXT = ("omicron6-sefalla-z", "nu12-aquilae"), cast(Any, FlowRunContext)


@pytest.mark.parametrize(
    ("name", "subject", "shown"),
    [
        (None, [{"title": "A mug", "prompt": "a red mug"}, {"title": "A jug"}, {}], "pictures: A mug, A jug"),
        (None, [models.ZImageTurbo(prompt="a red mug")], "pictures: a red mug"),
        (None, Media(uri="s3://a/mug.png", kind="image", mime="image/png", size=1, sha256="0"), "pictures: mug.png"),
        (None, "/data/shop/products.csv", "pictures: products.csv"),
        *((name, "a quay", "pictures: a quay") for name in NAMED_BY_FORM),
        ("beta-launch", "a quay", "beta-launch"),
    ],
)
def test_a_run_is_named_by_its_subject_unless_a_person_named_it(name: str | None, subject: object, shown: str) -> None:
    given = {"name": name} if name else {}
    with CONTEXT.model_construct(flow=flow(name="pictures")(lambda: None), flow_run=FlowRun(flow_id=uuid4(), **given)):
        assert run_name_with(subject).partition(", 2")[0] == shown


class Style(Enum):
    NOIR = "noir"


RED, HARBOUR = (f"https://shop.example/{file}?X-Amz-Signature=secret" for file in ("red.png", "harbour.mp4"))


@pytest.mark.parametrize(
    ("parameters", "subject"),
    [
        ({"model": "z-image/turbo", "rows": "s3://shop/products.csv"}, "products.csv"),
        ({"image": np.zeros((2, 2)), "title": ("A mug", RED)}, "A mug, red.png"),  # the first has no truth value
        ({"video": HttpUrl(HARBOUR)}, "harbour.mp4"),
        ({"topic": Style.NOIR}, "noir"),
    ],
)
def test_a_run_is_named_by_the_parameter_with_its_subject(parameters: dict[str, object], subject: str) -> None:
    with CONTEXT.model_construct(flow=batch, flow_run=FlowRun(flow_id=uuid4()), parameters=parameters):
        assert run_name().partition(", 2")[0] == f"batch: {subject}"


def test_hooks_are_attached_beside_the_users() -> None:
    given: list[FlowStateHook[..., Any]] = [theirs]

    @rh_prefect.flow(on_cancellation=given, on_completion=given)
    def run() -> None: ...

    assert run.on_cancellation_hooks == [theirs, cancel_remote_jobs]
    assert (run.on_completion_hooks, run.on_failure_hooks) == ([theirs, finish], [finish])
    assert given == [theirs], "the user's own list is not touched"


@pytest.mark.prefect
async def test_a_run_says_what_was_made_and_its_cost(rh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    @rh_prefect.flow
    async def pair() -> None:
        await generate(models.ZImageTurbo(prompt="a lighthouse"))
        await generate(models.ZImageTurbo(prompt="a harbour"))

    caplog.set_level("INFO", "prefect.flow_runs")
    state: State[Any] = await pair(return_state=True)
    assert f"2 of 2 jobs done, cost {rh.recorder.charged} CNY" in caplog.messages
    run = state.state_details.flow_run_id
    assert run is not None
    assert str(run) not in REQUESTED_KEYS, "what a run asked for is dropped when it ends"
    report, ended = (await artifacts_of(run))["pair-report"], (await set_states(run)).state
    assert ended is not None
    assert report.description == ended.message == f"2 of 2 jobs done, cost {rh.recorder.charged} CNY."
    for number, name in enumerate(("a lighthouse", "a harbour"), 1):
        assert f"[{number}. z-image/turbo ({name})](<file://" in str(report.data)


@pytest.mark.prefect
async def test_a_call_that_a_flow_returns_without_awaiting_it_pays_in_the_flow_run_or_not_at_all(rh: Emulator) -> None:
    """Prefect awaits it after the flow's function, where the job would not be recorded in the flow run."""
    lamp = models.ZImageTurbo(prompt="a lamp")

    async def one() -> object:
        return generate(lamp)

    async def many() -> object:
        return generate_many([lamp])

    def sync() -> object:
        return generate(lamp)

    for forgetful in (one, many):
        with pytest.raises(InputError, match=r"called in a flow.*What to do: write `return await"):
            await flow(forgetful)()
    for decorate in (flow, rh_prefect.flow):
        with pytest.raises(InputError, match="called in a flow"):
            await asyncio.to_thread(decorate(sync))
    assert not rh.recorder.submissions
    for number, own in enumerate((rh_prefect.flow(one), rh_prefect.flow(many)), 1):
        state: State[Any] = await own(return_state=True)
        assert (state.message, len(rh.recorder.paid)) == ("1 of 1 jobs done, cost 0.04 CNY.", number)


@pytest.mark.prefect
async def test_a_flow_that_stops_waiting_for_a_task_says_that_it_will_be_charged(slow_rh: Emulator) -> None:
    """It said: 1 failed, cost 0."""

    @rh_prefect.flow
    async def hasty() -> None:
        with suppress(JobTimeout):
            await generate(models.ZImageTurbo(prompt="a lighthouse"), deadline=0.2)

    state = await hasty(return_state=True)
    assert state.message == "0 of 1 jobs done, 1 task continues and will be charged, cost 0 so far."


@pytest.mark.prefect
async def test_a_resumed_run_names_what_only_an_earlier_attempt_asked_for(
    rh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "prefect.flow_runs")
    prompts = iter(["a quay at dawn", "a quay at dusk"])

    @rh_prefect.flow
    async def quays() -> str:
        await generate(models.ZImageTurbo(prompt="a lighthouse"))
        result = await generate(models.ZImageTurbo(prompt=next(prompts)))
        if len(rh.recorder.paid) == 2:
            raise RuntimeError("the first attempt ends")
        return result.key

    failed = await quays(return_state=True)
    caplog.clear()
    kept = await resume(quays, str(failed.state_details.flow_run_id))
    assert len(rh.recorder.paid) == 3, "the prompt of the second attempt is another one"
    (named,) = [text for text in caplog.messages if "the last start did not request it" in text]
    assert "was paid for by an earlier start of this run" in named
    assert "Its result: " in named
    assert kept not in named
    ended = next(text for text in caplog.messages if text.startswith("2 of 2 jobs done"))
    assert caplog.messages.index(ended) < caplog.messages.index(named), "that task may still run for long"


@pytest.mark.prefect
async def test_a_run_that_failed_says_each_cause_once_and_shows_what_it_has_made(rh: Emulator) -> None:
    @rh_prefect.flow
    async def kites(prompts: list[str]) -> None:
        asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
        async with asyncio.TaskGroup() as group:
            group.create_task(generate_many(asked))

    given = ["one forbidden", "two forbidden", "a fine one"]
    state: State[Any] = await kites(given, return_state=True)
    with pytest.raises(JobsFailed):
        await state.result()
    assert "".join(traceback.format_exception(await state.aresult(raise_on_failure=False))).count("\n") < 80
    report = (await artifacts_of(state.state_details.flow_run_id))["kites-report"]
    assert str(state.message).startswith("2 of 3 jobs failed.")
    for text in (str(state.message), str(report.description)):
        assert "2 of 3 jobs failed. submit to rhart-image/z-image/turbo: " in text
        assert text.count("the content check refused the prompt or a file") == 1
        assert not re.search("[0-9a-f]{40}: ", text)
        assert "ExceptionGroup" not in text
    assert str(report.description).endswith(f"1 of 3 jobs done, 2 failed, cost {rh.recorder.charged} CNY.")


@pytest.mark.prefect
async def test_a_retried_flow_returns_its_last_attempt_s_result(rh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "prefect.flow_runs")
    attempts: list[str] = []

    @rh_prefect.flow(retries=1)
    async def kite(form: str) -> Any:
        made = await generate(models.ZImageTurbo(prompt=f"a kite, {form}"))
        attempts.append(form)
        if len(attempts) % 2:
            raise ValueError("once")
        return Completed(message="done", data=made) if form == "state" else made

    for form in ("result", "state"):
        assert (await kite(form)).task_id == rh.recorder.paid[-1].task_id
    assert attempts == ["result", "result", "state", "state"]
    told = [line for line in caplog.messages if line.startswith("z-image/turbo: ")]
    assert [line.endswith(" CNY") for line in told] == [True, False] * 2
    assert "an earlier call of this run has made it" in told[-1]
    assert len(rh.recorder.paid) == 2


@pytest.mark.prefect
def test_a_failed_sync_flow_raises_its_error_and_a_child_passes_it_on() -> None:
    @rh_prefect.flow
    def child() -> None:
        raise ValueError("no wind")

    @rh_prefect.flow
    def parent() -> None:
        child()

    for kite in (child, parent):
        with pytest.raises(ValueError, match="no wind"):
            kite()
        assert kite(return_state=True).message == "ValueError: no wind"
    with pytest.raises(ValueError, match="no wind"):
        child.fn()


@rh_prefect.flow
async def shot(prompt: str) -> str:
    picture = await generate(models.ZImageTurbo(prompt=prompt, aspect_ratio="16:9"), label="picture")
    motion = models.KlingV26ProImageToVideo(image_url=picture, prompt="waves", duration="5", sound="false")
    clip = await generate(motion, label="motion")
    large = await generate(models.RhVideoUpscaler(video_url=clip, target_resolution="1080p"), label="upscale")
    return large.first_output.sha256


@pytest.mark.prefect
async def test_the_steps_of_an_own_flow_are_connected_and_its_files_are_assets(rh: Emulator) -> None:
    state: State[Any] = await shot("a pier at night", return_state=True)
    film, run = await state.aresult(), state.state_details.flow_run_id
    assert run is not None
    await drain()
    async with get_client() as client:
        flow_run = await client.read_flow_run(run)
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        tasks: list[TaskRun] = []
        while len(tasks) < 3:
            tasks = await client.read_task_runs(flow_run_filter=of_run)
            await asyncio.sleep(0.05)
        related = EventRelatedFilter(id=[f"prefect.flow-run.{run}"])
        wanted = EventFilter(event=EventNameFilter(name=["prefect.asset.materialization.succeeded"]), related=related)
        events: list[ReceivedEvent] = []
        while len(events) < 3:
            events = (await client.read_events(wanted, limit=50)).events
            await asyncio.sleep(0.05)
    assert flow_run.name.startswith("shot: a pier at night, ")
    names = {one.id: one.name.partition(":")[0] for one in tasks}
    arrows = {
        (names[made.id], f"{one.name.partition(':')[0]}: {param}")
        for one in tasks
        for param, inputs in one.task_inputs.items()
        for made in inputs
        if isinstance(made, TaskRunResult)
    }
    assert arrows == {("picture", "motion: request"), ("motion", "upscale: request")}
    tags = {one.name.partition(":")[0]: one.tags for one in tasks}
    assert tags["motion"] == ["model:kling-v2.6-pro-image-to-video"]
    assets = {event.payload["model"]: event for event in events}
    assert assets["rh-video-upscaler"].payload["sha256"] == film
    clip = assets["kling-v2.6-pro-image-to-video"]
    assert clip.resource.id.startswith("file:///")
    assert (clip.payload["cost"], clip.payload["kind"]) == ("1.75", "video")
    made_by = {event.resource.id: model for model, event in assets.items()}
    made_from = {
        model: {made_by[one.id] for one in event.related if one.role == "asset"} for model, event in assets.items()
    }
    assert made_from == {
        "z-image/turbo": set(),
        "kling-v2.6-pro-image-to-video": {"z-image/turbo"},
        "rh-video-upscaler": {"kling-v2.6-pro-image-to-video"},
    }
