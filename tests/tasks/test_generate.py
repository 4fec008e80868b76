"""`generate`: what it returns, what it takes, and how often it pays."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import MediaStorage, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.emulator.faults import Kind
from rh_prefect.errors import (
    BudgetExceeded,
    JobTimeout,
    OutputsExpired,
    SubmissionUnknown,
)
from rh_prefect.flow_runs.run_queries_and_scopes import journal_of
from rh_prefect.tasks import generate_many, model_tasks
from rh_prefect.tasks.generate import run_name
from rh_prefect.workflow_inputs import GraphInput, WorkflowInput
from rh_prefect.works.journal.job_records_and_state import split_job
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.manual_repair import adopt
from tests.support.waiting import until
from tests.support.world.as_task import make

LIGHTHOUSE = models.ZImageTurbo(prompt="a lighthouse")


async def test_a_result_can_be_given_wherever_a_call_takes_media(full_length_rh: Emulator) -> None:
    photo = await make(LIGHTHOUSE)
    clip = await make(models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5", sound="false"))
    large = await make(models.RhVideoUpscaler(video_url=clip.first_output, target_resolution="1080p"))
    assert (photo.first_output.kind, clip.first_output.kind, large.first_output.kind) == ("image", "video", "video")
    assert clip.first_output.seconds == pytest.approx(5.0, abs=0.2)
    assert large.first_output.width is not None and clip.first_output.width is not None
    assert large.first_output.width > clip.first_output.width
    assert [result.cost for result in (photo, clip, large)] == [Decimal("0.04"), Decimal("1.75"), Decimal("1.05")]
    assert sum(one.charged for one in full_length_rh.recorder.paid) == Decimal("2.84")


async def test_each_take_of_a_request_is_paid_for_once(rh: Emulator) -> None:
    made = [await make(LIGHTHOUSE, take=take) for take in range(1, 5)]
    assert len(rh.recorder.paid) == 4
    assert len({one.key for one in made}) == len({one.first_output.uri for one in made}) == 4
    assert len({one.first_output.sha256 for one in made}) == 4, "each kept its own picture"
    assert await make(LIGHTHOUSE, take=3) == made[2]
    served = await asyncio.gather(*(make(LIGHTHOUSE, reuse="always", scope="another") for _ in range(4)))
    assert len(rh.recorder.paid) == 4
    assert {result.cost for result in served} == {Decimal(0)}
    assert all(result.reused and Path(result.first_output.uri).is_file() for result in served)


async def test_a_resumed_run_is_served_with_what_served_it_before(rh: Emulator) -> None:
    """A newer equal result of another run would make the next step another request."""
    paid = await make(LIGHTHOUSE, reuse="always")
    await make(LIGHTHOUSE, scope="another")
    assert (await make(LIGHTHOUSE, reuse="always")).task_id == paid.task_id, "the run's own"
    served = await make(LIGHTHOUSE, reuse="always", scope="third")
    await make(LIGHTHOUSE, scope="another", take=2)
    assert (await make(LIGHTHOUSE, reuse="always", scope="third")).task_id == served.task_id
    assert len(rh.recorder.paid) == 3


@pytest.mark.prefect
async def test_reuse_pays_once_where_the_files_of_the_stored_result_are_not(rh: Emulator, tmp_path: Path) -> None:
    await MediaStorage(url=str(tmp_path / "films")).asave("films", overwrite=True)
    paid = await make(LIGHTHOUSE)
    assert (await make(LIGHTHOUSE, reuse="always")).task_id == paid.task_id
    copied = await make(LIGHTHOUSE, reuse="always", scope="another", storage="films")
    assert copied.task_id == paid.task_id
    assert Path(copied.first_output.uri).is_relative_to(tmp_path / "films")
    for one in (paid, copied):
        Path(one.first_output.uri).unlink()
    again = await make(LIGHTHOUSE, reuse="always")
    assert not again.reused and (await make(LIGHTHOUSE, reuse="always")).task_id == again.task_id
    assert [one.task_id for one in rh.recorder.paid] == [paid.task_id, again.task_id]


async def test_the_files_of_a_shared_result_that_are_gone_are_another_take(rh: Emulator) -> None:
    Path((await make(LIGHTHOUSE)).first_output.uri).unlink()
    rh.faults.add(Fault("download", kind="expired"))
    with pytest.raises(OutputsExpired, match="another `take` pays for a new result") as caught:
        await make(LIGHTHOUSE)
    assert "mark-lost" not in caught.value.message


async def test_a_label_names_the_file_and_makes_no_other_work(rh: Emulator) -> None:
    one, two = await make(LIGHTHOUSE, label="dawn"), await make(LIGHTHOUSE, label="dusk")
    assert one.key == two.key and one.first_output == two.first_output
    assert Path(one.first_output.uri).name.startswith("dawn-")
    assert len(rh.recorder.paid) == 1


async def test_what_was_published_is_not_fetched_again(rh: Emulator) -> None:
    first = await make(LIGHTHOUSE)
    fetched = len(rh.recorder.downloads)
    again = await make(LIGHTHOUSE)
    assert len(rh.recorder.downloads) == fetched
    Path(first.record).unlink()
    assert (await make(LIGHTHOUSE)).first_output == again.first_output
    assert len(rh.recorder.downloads) == fetched, "the journal knows the file"
    Path(first.first_output.uri).unlink()
    assert (await make(LIGHTHOUSE)).first_output == again.first_output
    assert len(rh.recorder.downloads) == fetched + 1
    assert len(rh.recorder.submissions) == 1


@pytest.mark.parametrize("kind", ["cut", "502"])
async def test_a_lost_reply_is_unknown_and_never_sent_again(rh: Emulator, kind: Kind) -> None:
    rh.faults.add(Fault("submit", number=1, kind=kind))
    for _ in range(2):
        with pytest.raises(SubmissionUnknown, match="jobs adopt works-") as unknown:
            await make(LIGHTHOUSE)
    assert (await make(models.ZImageTurbo(prompt="another"))).first_output
    lost = rh.recorder.paid[0].task_id
    scope, key = split_job(unknown.value.job)
    await LOOP.call(adopt(journal_of(scope), key, lost))
    assert (await make(LIGHTHOUSE)).task_id == lost
    assert len(rh.recorder.paid) == 2


def test_a_task_run_is_named_after_label_model_and_prompt() -> None:
    name: Any = model_tasks.z_image_turbo.task_run_name
    words = "a lighthouse  above\na stormy sea at dawn, gulls in the wind"
    for named in (run_name({"request": models.ZImageTurbo(prompt=words)}), name({"prompt": words})):
        assert named == "z-image/turbo (a lighthouse above a stormy sea at…)"
    assert name({"prompt": "dusk", "label": "one"}) == "one: z-image/turbo (dusk)"
    without_spaces = models.ZImageTurbo(prompt="黎明时分的海边灯塔,海浪拍打着礁石," * 4)
    assert run_name({"request": without_spaces}) == f"z-image/turbo ({without_spaces.prompt[:39]}…)"
    name = model_tasks.rh_video_upscaler.task_run_name
    assert name({"video_url": "a.mp4"}) == "rh-video-upscaler"


@pytest.mark.prefect
async def test_a_list_is_checked_against_the_budget_as_a_whole(rh: Emulator) -> None:
    asked = [models.ZImageTurbo(prompt=text) for text in ("one", "two", "three")]
    await make(asked[0], scope="night")
    with pytest.raises(BudgetExceeded) as refused:
        await generate_many(asked, scope="night", budget=0.1)
    assert "the 2 jobs to be made cost 0.08 CNY together" in refused.value.message, "of the first the result is there"
    assert "0.04 is spent" in refused.value.message
    assert "What to do: set a budget of at least 0.12" in refused.value.message
    assert not any("price" in request.path for request in rh.recorder.requests), "the catalogue has the price"
    unpriced = models.custom("video/of/tomorrow", prompt="x")
    with pytest.raises(BudgetExceeded, match="1 whose price neither the catalogue nor RunningHub's price preview has"):
        await generate_many([asked[1], unpriced], scope="night", budget=10)
    assert len(rh.recorder.submissions) == 1
    assert len(await generate_many(asked, scope="night", budget=0.12)) == 3
    assert len(rh.recorder.paid) == 3


async def test_a_request_that_nothing_can_price_is_not_started_with_a_budget(rh: Emulator) -> None:
    restyle, nodes = rh.workflows.id_of("restyle"), {"6.text": "a pier"}
    for one in (WorkflowInput(id=restyle, nodes=nodes, access_password="word"), GraphInput(graph=TEXT_TO_IMAGE)):
        with pytest.raises(BudgetExceeded, match="has its price"):
            await make(one, budget=5, scope="night")
    assert not rh.recorder.submissions


async def test_many_with_a_cancelled_job_return_no_shorter_list(rh: Emulator) -> None:
    many = asyncio.ensure_future(generate_many([models.ZImageTurbo(prompt=f"{n}") for n in range(2)], scope="many"))
    await until(lambda: len(asyncio.all_tasks()) > 3)
    (asyncio.all_tasks() - {many, asyncio.current_task()}).pop().cancel()
    with pytest.raises(asyncio.CancelledError):
        await many


@pytest.mark.prefect
async def test_a_list_with_a_task_in_progress_is_not_refused_as_a_whole(rh: Emulator) -> None:
    asked = [models.ZImageTurbo(prompt=text) for text in ("one", "two", "three")]
    with pytest.raises(JobTimeout):
        await make(asked[0], scope="night", deadline=0.001)
    with pytest.raises(ExceptionGroup) as failed:
        await generate_many(asked, scope="night", budget=0.09)
    assert [type(one) for one in failed.value.exceptions] == [BudgetExceeded]
    assert len(rh.recorder.paid) == 2


@pytest.mark.prefect
async def test_many_that_is_cancelled_between_two_waves_leaves_no_job_running(rh: Emulator) -> None:
    """The first wave went on, and paid for jobs that no caller waited for."""
    many = asyncio.ensure_future(generate_many([models.ZImageTurbo(prompt=f"{n}") for n in range(20)], scope="many"))
    await asyncio.sleep(0)
    many.cancel()
    await asyncio.wait([many])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert rh.recorder.submissions == []
