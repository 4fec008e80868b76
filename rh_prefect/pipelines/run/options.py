"""`RunOptions`: the options of a pipeline run, in addition to the parameters in its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from rh_prefect.works.job_options import Reuse, Wait


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a pipeline run, which every pipeline's flow has in addition to the parameters of its file.

    The form of a deployment shows these descriptions.

    Attributes:
        budget: Maximum cost of the run, in the account's currency; empty for the file's budget.
        takes: The take of a step, or of one item's step, by its address, as in `{"each[A-17].picture": 2}`.
        choices: The choices at reviews; copy the value from the artifact of the run that waits for a review.
        new: Steps to make and pay for again, as in `["each.picture"]`; `["*"]` for all paid steps.
        reuse: `never` makes new results, and continues a run that stopped early; `always` uses the results of all
            runs with `always`. Empty for the file's value. A step that has `reuse` keeps its own value.
        only: Steps to make, as in `["each.clip"]`; empty for all.
        items: Ids of items to make, as in `["A-17"]`; empty for all.
        sample: Make only this many items of each outermost fan-out, from the first; 0 for all.
        require_new: Fail if there is nothing new to make.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; empty for the file's, or RH_API_KEY.
        storage: Name of a MediaStorage block; empty for the file's, or RH_STORAGE_URL.
        wait: With `suspend`, the process of a deployed run ends while its tasks run, and the webhook receiver resumes
            the run.
    """

    budget: Annotated[float, Field(ge=0)] | None = None
    takes: dict[str, Annotated[int, Field(ge=1)]] | None = None
    choices: dict[str, dict[str, Any]] | None = None
    new: list[str] | None = None
    reuse: Reuse | None = None
    only: list[str] | None = None
    items: list[str] | None = None
    sample: Annotated[int, Field(ge=0)] = 0
    require_new: bool = False
    credentials: str | None = None
    storage: str | None = None
    wait: Wait = "poll"
