"""Saves the blocks `runninghub` and `media` for real work: a paid account, and a place on S3 that all workers share.

`RH_API_KEY=... RH_STORAGE_URL=s3://bucket/prefix python blocks/production.py`; RH_BASE_URL chooses the site.
RH_STORAGE_OPTIONS (JSON, as in `{"key": "...", "secret": "..."}`) goes into the block; without this variable, workers
open the bucket with their own AWS credentials.

Several accounts can pay together. Run this script once for each account, with the account's key and a separate name, as
in `RH_API_KEY=... python blocks/production.py studio`: the account is saved as `studio` and joins the pool
`runninghub-pool`, whose name flows accept in place of the name of one account.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.types import SecretDict
from pydantic import ValidationError

from rh_prefect import MediaStorage, RunningHubCredentials, RunningHubPool
from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.settings import get_settings

POOL = "runninghub-pool"


def save(member: str | None = None) -> None:
    """Saves both blocks, and replaces existing ones, if files can be written to the storage.

    Args:
        member: A name for the account, which then joins the pool; by default, the account is `runninghub` and joins no
            pool.
    """
    settings = get_settings()
    missing = []
    if settings.api_key is None:
        missing.append("RH_API_KEY is missing: set it to an enterprise shared key from the site's API console.")
    if not settings.storage_url.startswith("s3://"):
        missing.append(
            f"RH_STORAGE_URL is {settings.storage_url!r}, which other machines cannot reach: set it to s3://bucket/prefix."
        )
    if missing or settings.api_key is None:
        raise SystemExit("\n".join(f"blocks/production.py: {line}" for line in missing))
    try:
        credentials = RunningHubCredentials(api_key=settings.api_key, base_url=settings.base_url)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SystemExit(f"blocks/production.py: nothing was saved. RH_BASE_URL: {why}.") from None
    try:
        storage = MediaStorage(url=settings.storage_url, options=SecretDict(settings.storage_options))
        storage.get_store().check()
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SystemExit(
            f"blocks/production.py: nothing was saved, because {why}. What to do: correct RH_STORAGE_URL or "
            "RH_STORAGE_OPTIONS, and run again."
        ) from None
    except (ConfigError, StoreError) as error:
        raise SystemExit(f"blocks/production.py: nothing was saved. {error}") from None
    name = member or "runninghub"
    credentials.save(name, overwrite=True)
    storage.save("media", overwrite=True)
    print(f"saved: {name} -> {credentials.base_url}, media -> {storage.url}")
    if member is not None:
        print(f"saved: {POOL} -> {', '.join(asyncio.run(join(member)))}")
    print(f"next: rh-prefect doctor --credentials {name if member is None else POOL} --storage media")


async def join(member: str) -> list[str]:
    """Adds an account to the pool, which is created for the first account; returns the names of the pool's accounts."""
    try:
        found: RunningHubPool = await RunningHubPool.aload(POOL)
        there = found.credentials
    except ValueError:
        there = []
    pool = RunningHubPool(credentials=list(dict.fromkeys([*there, member])))
    await pool.asave(POOL, overwrite=True)
    return pool.credentials


if __name__ == "__main__":
    save(*sys.argv[1:2])
