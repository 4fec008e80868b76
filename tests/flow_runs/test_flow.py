from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flows import FlowStateHook
from prefect.states import Completed

import rh_prefect
from rh_prefect import generate, generate_many, models
from rh_prefect.display_names import shortened
from rh_prefect.emulator import Emulator
from rh_prefect.errors import JobsFailed
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish, run_name, run_name_with
from rh_prefect.flows.batch import batch
from rh_prefect.media.media import Media

called: list[str] = []


def theirs(flow: Flow[..., Any], flow_run: Any, state: Any) -> None:
    called.append(state.name)


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
    """A prompt of 41 Chinese characters, and a long path, were shown as nothing but an ellipsis."""
    assert shortened(text, 20) == shown


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ([{"title": "A mug", "prompt": "a red mug"}, {"title": "A jug"}, {}], "A mug, A jug"),
        ([models.ZImageTurbo(prompt="a red mug")], "a red mug"),
        (Media(uri="s3://shop/a/mug.png", kind="image", mime="image/png", size=1, sha256="0"), "mug.png"),
        ("/data/shop/products.csv", "products.csv"),
    ],
)
def test_a_run_of_rows_is_named_by_what_is_first_in_each(subject: object, shown: str) -> None:
    """Rows of a table were shown as Python's dicts, as in `pictures: {'title': 'A mug'}, {'title': 'A jug'}`."""

    @flow
    def pictures() -> None: ...

    context: Any = FlowRunContext
    with context.model_construct(flow=pictures, flow_run=FlowRun(flow_id=uuid4())):
        assert run_name_with(subject).partition(", 2")[0] == f"pictures: {shown}"


def test_a_batch_is_named_by_its_rows() -> None:
    """Each batch of one model had the same name."""
    context: Any = FlowRunContext
    asked = {"model": "z-image/turbo", "rows": "s3://shop/products.csv"}
    with context.model_construct(flow=batch, flow_run=FlowRun(flow_id=uuid4()), parameters=asked):
        assert run_name().startswith("batch: products.csv")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("omicron6-sefalla-z", "pictures: a quay"), ("nu12-aquilae", "pictures: a quay"), ("beta-launch", "beta-launch")],
)
def test_a_name_that_the_form_of_the_dashboard_filled_in_is_replaced(given: str, shown: str) -> None:
    @flow
    def pictures() -> None: ...

    context: Any = FlowRunContext
    with context.model_construct(flow=pictures, flow_run=FlowRun(flow_id=uuid4(), name=given)):
        assert run_name_with("a quay").partition(", 2")[0] == shown


def test_hooks_are_attached_beside_the_users() -> None:
    given: list[FlowStateHook[..., Any]] = [theirs]

    @rh_prefect.flow(on_cancellation=given)
    def run() -> None: ...

    assert run.on_cancellation_hooks == [theirs, cancel_remote_jobs]
    assert (run.on_completion_hooks, run.on_failure_hooks) == ([finish], [finish])
    assert given == [theirs], "the user's own list is not touched"


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_hooks_of_the_user_are_called() -> None:
    @rh_prefect.flow(on_completion=[theirs])
    def run() -> None: ...

    called.clear()
    run()
    assert called == ["Completed"]


@pytest.mark.prefect
async def test_a_run_says_what_was_made_and_its_cost(
    rh: Emulator, prefect_server: object, caplog: pytest.LogCaptureFixture
) -> None:
    @rh_prefect.flow
    async def pair() -> None:
        await generate(models.ZImageTurbo(prompt="a lighthouse"))
        await generate(models.ZImageTurbo(prompt="a harbour"))

    caplog.set_level("INFO", "prefect.flow_runs")
    state: State[Any] = await pair(return_state=True)
    assert f"2 of 2 jobs done, cost {rh.recorder.charged} CNY" in caplog.messages
    async with get_client() as client:
        found = [
            await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            for key in ("pair-report",)
        ]
        of_state = await client.read_flow_run(state.state_details.flow_run_id or uuid4())
    ((report,),) = found
    assert of_state.state is not None
    assert report.description == of_state.state.message == f"2 of 2 jobs done, cost {rh.recorder.charged} CNY."
    for number, name in enumerate(("a lighthouse", "a harbour"), 1):
        assert f"[{number}. z-image/turbo ({name})](<file://" in str(report.data)


@pytest.mark.prefect
async def test_a_run_that_failed_says_each_cause_once_and_shows_what_it_has_made(
    rh: Emulator, prefect_server: object
) -> None:
    """The message was that of an ExceptionGroup, or the same cause once for each job with its long name."""

    @rh_prefect.flow
    async def kites(prompts: list[str]) -> None:
        asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
        async with asyncio.TaskGroup() as group:
            group.create_task(generate_many(asked))

    given = ["one forbidden", "two forbidden", "a fine one"]
    state: State[Any] = await kites(given, return_state=True)
    with pytest.raises(JobsFailed):
        await state.result()
    key = ArtifactFilterKey(any_=["kites-report"])
    async with get_client() as client:
        (report,) = await client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert str(state.message).startswith("2 of 3 jobs failed.")
    for text in (str(state.message), str(report.description)):
        assert "2 of 3 jobs failed. submit to rhart-image/z-image/turbo: " in text
        assert text.count("the content check refused the prompt or a file") == 1
        assert not re.search("[0-9a-f]{40}: ", text)
        assert "ExceptionGroup" not in text
    assert str(report.description).endswith(f"1 of 3 jobs done, 2 failed, cost {rh.recorder.charged} CNY.")


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_a_retried_flow_returns_the_result_of_its_last_attempt(
    rh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The log named the cost of each result again in every attempt that found it."""
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
@pytest.mark.usefixtures("prefect_server")
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
