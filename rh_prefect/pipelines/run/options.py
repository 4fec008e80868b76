"""`RunOptions`: the options of a pipeline run, beside the parameters of its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from rh_prefect.works.options import Wait


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a pipeline run: parameters of every pipeline's flow, in addition to those of its file."""

    # What the run may cost, in the account's currency; empty for the file's budget
    budget: Annotated[float, Field(ge=0)] | None = None
    # The take of a step, or of one item's step, by its address, as in `{"each[A-17].picture": 2}`
    takes: dict[str, Annotated[int, Field(ge=1)]] | None = None
    # What was chosen at reviews; copy it from the artifact of the run that waits for a review
    choices: dict[str, dict[str, Any]] | None = None
    # Steps to make and pay for again, as in `["each.picture"]`; `["*"]` for all paid steps
    new: list[str] | None = None
    only: list[str] | None = None  # Steps to make, as in `["each.clip"]`; empty for all
    items: list[str] | None = None  # Ids of items to make, as in `["A-17"]`; empty for all
    sample: Annotated[int, Field(ge=0)] = 0  # Make only the first items of each fan-out; 0 for all
    require_new: bool = False  # Fail if there is nothing new to make
    # Name of a RunningHubCredentials or RunningHubPool block; empty for the file's, or RH_API_KEY
    credentials: str | None = None
    storage: str | None = None  # Name of a MediaStorage block; empty for the file's, or RH_STORAGE_URL
    # How a deployed run waits: `suspend` ends its process while all its tasks run; the webhook receiver resumes it
    wait: Wait = "poll"
