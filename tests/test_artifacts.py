from __future__ import annotations

import asyncio
import re
import uuid
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.artifacts import PIPELINE_PREFIX, Page, Progress, markdown
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.prefect_api import disconnect
from tests.support.servers.scripted_server import reply
from tests.support.waiting import until
from tests.support.world.run_inputs import prefect_api


async def shown(page: Page) -> list[Artifact]:
    async with get_client() as client:
        of_run = ArtifactFilterFlowRunId(any_=[page.flow_run_id])
        found = ArtifactFilter(flow_run_id=of_run, key=ArtifactFilterKey(exists_=True))
        return await client.read_artifacts(artifact_filter=found)


async def report(bar: Progress, percent: float, description: str = "") -> None:
    """Reports progress, and waits until the bar shows it."""
    bar.report(percent, description)
    if bar._reporting is not None:
        await bar._reporting


@pytest.fixture
def page(prefect_server: object) -> Page:
    found = flow(name="Some Film!")(Page.current)()
    assert found is not None
    return found


def test_a_key_is_made_of_what_prefect_allows() -> None:
    page = Page("Film für ALLE!", UUID("01a21047-9aab-7214-a7ff-49cccd02ecc2"))
    assert re.fullmatch("film-f-r-alle-[0-9a-f]{8}-steps", page.key("steps"))
    assert Page("Film for all", page.flow_run_id).key("steps") == "film-for-all-steps"


def test_names_without_latin_letters_have_keys_of_their_own() -> None:
    run = uuid.uuid4()
    keys = {Page(name, run).key("results") for name in ("灯塔", "视频", "视频 2", "图片 2", "flow", "2")}
    assert len(keys) == 6
    assert Page("灯塔", run).key("results") == Page("灯塔", uuid.uuid4()).key("results")
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in keys)


def test_no_flow_has_the_keys_of_a_pipeline() -> None:
    run = UUID("01a21047-9aab-7214-a7ff-49cccd02ecc2")
    assert Page("film", run, is_pipeline=True).key("results") == "pipeline--film-results"
    for name in ("film", "pipeline film", "pipeline--film", "Pipeline: film"):
        assert not Page(name, run).key("results").startswith(PIPELINE_PREFIX)
    film = pipeline_flow(Pipeline.from_text("name: film\nsteps: {s: {edit: join_text, with: {texts: [x]}}}\n"))
    assert Page.of(film.with_options(retries=1), run) == Page("film", run, is_pipeline=True)


@pytest.mark.prefect
def test_a_later_attempt_replaces_what_an_earlier_one_has_shown() -> None:
    pages: list[Page] = []

    @flow(name="tried again", retries=1)
    async def run() -> None:
        page = Page.current()
        assert page is not None
        pages.append(page)
        await markdown(f"attempt {len(pages)}", what="report", description="")
        await report(Progress(), len(pages))
        if len(pages) == 1:
            await markdown("only once", what="plan", description="")
            raise ValueError("the first attempt")

    asyncio.run(run())
    found = {one.key: one.data for one in asyncio.run(shown(pages[0]))}
    assert len(asyncio.run(shown(pages[0]))) == len(found) == 3
    assert "attempt 2" in str(found["tried-again-report"])
    assert found["tried-again-progress"] == 2


@pytest.mark.prefect
async def test_progress_is_one_bar_that_moves_seldom_and_ends_full(page: Page) -> None:
    now = [100.0]
    bar = Progress(page=page, every=3, clock=lambda: now[0])
    await report(bar, 10, "1 of 10")
    first = await shown(page)
    await report(bar, 50, "5 of 10")
    assert await shown(page) == first, "too soon"
    now[0] += 3
    await report(bar, 60, "6 of 10")
    assert [(a.data, a.description) for a in await shown(page)] == [(60.0, "6 of 10")]
    await bar.finish(100, "10 of 10")
    assert [(a.data, a.description) for a in await shown(page)] == [(100.0, "10 of 10")]


@pytest.mark.prefect
async def test_the_interval_begins_when_an_update_has_ended(page: Page) -> None:
    now = [100.0]
    bar = Progress(page=page, every=3, clock=lambda: now[0])
    bar.report(10, "")
    now[0] += 3  # as long as the API takes
    assert bar._reporting is not None
    await bar._reporting
    await report(bar, 50)
    assert [a.data for a in await shown(page)] == [10.0]


@pytest.mark.prefect
async def test_the_newest_report_of_an_interval_is_shown_after_it(page: Page) -> None:
    bar = Progress(page=page, every=0.2)
    await report(bar, 10)
    bar.report(20, "")
    bar.report(90, "9 of 10")
    await until(lambda: bar._late is None)
    if bar._reporting is not None:
        await bar._reporting
    assert [(a.data, a.description) for a in await shown(page)] == [(90.0, "9 of 10")]
    bar.report(95, "")
    await bar.finish(100, "")
    await asyncio.sleep(0.3)
    assert [a.data for a in await shown(page)] == [100.0]


@pytest.mark.prefect
async def test_a_report_during_or_after_the_end_is_ignored(page: Page) -> None:
    bar = Progress(page=page, every=0)
    await report(bar, 10)
    ending = asyncio.ensure_future(bar.finish(100, "done"))
    await asyncio.sleep(0)
    await report(bar, 50)
    await ending
    await report(bar, 60)
    assert [a.data for a in await shown(page)] == [100.0]


@pytest.mark.prefect
async def test_a_report_that_was_cancelled_does_not_prevent_the_end(page: Page) -> None:
    bar = Progress(page=page, every=0)
    await report(bar, 10)
    bar.report(50, "")
    assert bar._reporting is not None
    bar._reporting.cancel()
    await bar.finish(100, "done")
    assert [a.data for a in await shown(page)] == [100.0]


@pytest.mark.prefect
async def test_an_update_that_fails_for_another_reason_is_logged_once(
    page: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(PrefectClient, "create_artifact", fail)
    bar = Progress(page=page, every=0)
    for percent in (10, 20):
        with pytest.raises(RuntimeError):
            await report(bar, percent)
    assert caplog.text.count("RuntimeError: a defect") == 1
    assert "The progress bar could not be updated" in caplog.text


async def test_a_dashboard_that_answers_with_a_page_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    page = Page("film", uuid.uuid4())
    async with prefect_api(always=reply("<html>log in</html>")):
        assert await markdown("a", what="report", description="", page=page) is None
    assert "dashboard could not be updated" in caplog.text


@pytest.mark.prefect
async def test_progress_stays_between_0_and_100(page: Page) -> None:
    bar = Progress(page=page, every=0)
    for percent, seen in ((-5, 0.0), (250, 100.0)):
        await report(bar, percent)
        assert [a.data for a in await shown(page)] == [seen]


@pytest.mark.prefect
async def test_reports_at_the_same_time_make_one_bar(page: Page) -> None:
    bar = Progress(page=page, every=0)
    await asyncio.gather(*(report(bar, n) for n in range(8)))
    assert len(await shown(page)) == 1


async def test_outside_flows_nothing_is_shown() -> None:
    assert await markdown("a", what="report", description="") is None
    bar = Progress()
    await report(bar, 10)
    await bar.finish(100, "")


@pytest.mark.prefect
async def test_a_dashboard_to_which_no_connection_can_be_opened_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: PrefectClient) -> PrefectClient:
        raise OSError("no more files can be opened")

    await disconnect()
    monkeypatch.setattr(PrefectClient, "__aenter__", fail)
    assert await markdown("a", what="report", description="", page=Page("film", uuid.uuid4())) is None
    assert "dashboard could not be updated (no more files" in caplog.text


async def test_a_dashboard_that_is_away_is_no_error(closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    page = Page("film", uuid.uuid4())
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}):
        assert await markdown("a", what="report", description="", page=page) is None
    assert "dashboard could not be updated" in caplog.text
