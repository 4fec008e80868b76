"""The journal's contract once more, where teams keep it: a Prefect server on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.flow_runs.journal import FlowRunJournal
from tests.support.servers.postgres import PROGRAMS, WHY_NOT, postgres
from tests.support.servers.prefect_server import PrefectServer, free_port
from tests.works.journal.journal_contract import JournalContract, OpenJournal

pytestmark = [pytest.mark.long, pytest.mark.skipif(not PROGRAMS, reason=WHY_NOT)]


@flow
def _nothing() -> None: ...


@pytest.fixture(scope="module")
def prefect_on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    home = tmp_path_factory.mktemp("prefect-on-postgres")
    with postgres(free_port()) as database, PrefectServer(home, database=database) as server:
        yield server


class TestFlowRunJournalOnPostgres(JournalContract):
    @pytest.fixture
    def open_journal(self, prefect_on_postgres: PrefectServer) -> Iterator[OpenJournal]:
        runs: dict[str, FlowRunJournal] = {}

        def open_(scope: str) -> FlowRunJournal:
            if scope not in runs:
                with get_client(sync_client=True) as client:
                    runs[scope] = FlowRunJournal(client.create_flow_run(_nothing).id)
            return runs[scope]

        with temporary_settings({PREFECT_API_URL: prefect_on_postgres.api}):
            yield open_
