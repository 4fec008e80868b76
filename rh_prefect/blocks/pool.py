"""`RunningHubPool`: several accounts of RunningHub that pay together, each with its own limit."""

from __future__ import annotations

from typing import Annotated

from prefect.blocks.core import Block
from pydantic import AfterValidator, Field


def _distinct(names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError("a pool needs the names of the credentials blocks of its accounts, at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each account is named once; {', '.join(twice)} is named twice")
    return names


class RunningHubPool(Block):
    """Accounts of RunningHub that pay together: a job goes to the one that first has room.

    The block holds the *names* of `RunningHubCredentials` blocks, and no key. Flows and tasks take its name where they
    take that of one account: `credentials="night"`.

    Example:
        Load a saved pool and see which accounts it has; then run on all of them by its name:
        ```python
        from rh_prefect import flow, generate_many, models
        from rh_prefect.blocks import RunningHubPool

        pool = RunningHubPool.load("BLOCK_NAME")
        print(pool.credentials)

        @flow
        async def night(prompts: list[str]) -> None:
            await generate_many([models.ZImageTurbo(prompt=one) for one in prompts], credentials="BLOCK_NAME")
        ```
    """

    _block_type_name = "RunningHub Account Pool"
    _block_type_slug = "runninghub-account-pool"
    _logo_url = "https://www.runninghub.cn/favicon.png"  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = "https://www.runninghub.cn/runninghub-api-doc-cn/"  # type: ignore[assignment]  # as above
    _description = "Several accounts of RunningHub, of one site, that pay for the jobs of a run together."

    credentials: Annotated[list[str], AfterValidator(_distinct)] = Field(
        title="Accounts",
        description="Names of the RunningHub Credentials blocks of its accounts, all of one site; no name twice.",
    )
