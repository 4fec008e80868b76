"""The last runs of pipelines, which plans are compared with: each deployment has its own."""

from __future__ import annotations

import pytest

from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.last_run import LastRuns
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.production_rounds import COMMAND_LINE


@pytest.mark.parametrize("deployment", ["cli", "latest", "Latest", "nightly"])
async def test_a_deployment_of_any_name_has_its_own_last_run(deployment: str, tmp_path: object) -> None:
    runs = LastRuns(MediaStore(str(tmp_path)))
    for run, name in (("own", deployment), ("terminal", COMMAND_LINE), ("other", "hourly")):
        runs.write(Plan("film"), run=run, deployment=name)
    found = [await runs.read("film", name) for name in (deployment, COMMAND_LINE, "hourly", "never run")]
    assert [one.run for one in found if one is not None] == ["own", "terminal", "other", "other"]
