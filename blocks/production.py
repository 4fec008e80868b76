"""Saves the blocks `runninghub` and `media` for real work: a paid account and a place on S3 that all workers share.

`RH_API_KEY=... RH_OUT=s3://bucket/prefix python blocks/production.py`; RH_BASE_URL chooses the site. RH_OUT_OPTIONS
(JSON, as in `{"key": "...", "secret": "..."}`) goes into the block; without it, workers open the bucket with AWS
credentials of their own.
"""

from __future__ import annotations

from prefect.types import SecretDict

from rh_prefect import MediaStorage, RunningHubCredentials
from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.settings import get_settings


def save() -> None:
    """Saves both blocks, over those that are there, if the storage takes files."""
    settings = get_settings()
    missing = []
    if settings.api_key is None:
        missing.append("RH_API_KEY is missing: set it to an enterprise shared key from the site's API console.")
    if not settings.out.startswith("s3://"):
        missing.append(f"RH_OUT is {settings.out!r}, which other machines cannot reach: set it to s3://bucket/prefix.")
    if missing or settings.api_key is None:
        raise SystemExit("\n".join(f"blocks/production.py: {line}" for line in missing))
    credentials = RunningHubCredentials(api_key=settings.api_key, base_url=settings.base_url)
    storage = MediaStorage(url=settings.out, options=SecretDict(settings.out_options))
    try:
        storage.get_store().check()
    except (ConfigError, StoreError) as error:
        raise SystemExit(f"blocks/production.py: nothing was saved. {error}") from None
    credentials.save("runninghub", overwrite=True)
    storage.save("media", overwrite=True)
    print(f"saved: runninghub -> {credentials.base_url}, media -> {storage.url}")
    print("next: rh-prefect doctor --credentials runninghub --storage media")


if __name__ == "__main__":
    save()
