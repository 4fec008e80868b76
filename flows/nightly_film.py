"""Makes one film each night; the subject changes daily, in rotation."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.runtime import flow_run
from pydantic import Field

from rh_prefect import flow
from rh_prefect.flow_runs.flow import run_name_with
from rh_prefect.flows import film

SUBJECTS = [
    "A lighthouse above a stormy sea at dawn",
    "A night market in the rain, steam and paper lanterns",
    "A paper boat that drifts down a forest stream",
    "An old tram climbs a hill above a harbour",
    "A beekeeper among blossoming apple trees",
    "Northern lights over a snowed-in railway station",
    "A potter at the wheel in a sunlit workshop",
]


def _name() -> str:
    return run_name_with(_of_the_day(flow_run.parameters["subjects"]))


def _of_the_day(subjects: list[str]) -> str:
    # The day for which the run was scheduled: if the run is repeated tomorrow, it must find the jobs of today.
    day: int = flow_run.scheduled_start_time.toordinal()
    return subjects[day % len(subjects)]


@flow(name="nightly-film", flow_run_name=_name)
async def nightly_film(
    subjects: Annotated[list[str], Field(min_length=1)] = SUBJECTS,
    shots: Annotated[int, Field(ge=1, le=12)] = 3,
    aspect: Literal["16:9", "9:16", "1:1"] = "16:9",
    resolution: Literal["720p", "1080p", "2k", "4k"] = "1080p",
    credentials: str | None = None,
    storage: str | None = None,
) -> str:
    """Makes the film of the day with the pipeline `film`, and returns the location of the film.

    Args:
        subjects: The subjects of the films; each day uses the next subject, and starts again after the last one.
        shots: The number of shots of the film.
        aspect: The ratio of width to height.
        resolution: The size after upscaling.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    done = await film(
        prompt=_of_the_day(subjects),
        shots=shots,
        aspect=aspect,
        resolution=resolution,
        credentials=credentials,
        storage=storage,
    )
    return str(done["film"].uri)
