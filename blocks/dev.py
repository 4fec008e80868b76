"""Saves the blocks `runninghub` and `media` for development: the emulator and a local folder cost nothing.

`rh-prefect emulator` prints RH_BASE_URL and RH_API_KEY; set both, then run `python blocks/dev.py`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from prefect.types import SecretDict

from rh_prefect import MediaStorage, MediaStore, RunningHubCredentials
from rh_prefect.settings import get_settings


def save() -> None:
    """Saves both blocks, and replaces existing ones; refuses a real site."""
    settings = get_settings()
    if settings.api_key is None or "base_url" not in settings.model_fields_set:
        raise SystemExit("blocks/dev.py: set RH_BASE_URL and RH_API_KEY to what `rh-prefect emulator` prints.")
    if (urlsplit(settings.base_url).hostname or "").endswith(("runninghub.cn", "runninghub.ai")):
        raise SystemExit(f"blocks/dev.py: {settings.base_url} costs money. Use blocks/production.py for it.")
    credentials = RunningHubCredentials(api_key=settings.api_key, base_url=settings.base_url, account="emulator")
    # The store's URL is the whole path: a worker runs flows in its own folders.
    storage = MediaStorage(url=MediaStore(settings.storage_url).url, options=SecretDict(settings.storage_options))
    credentials.save("runninghub", overwrite=True)
    storage.save("media", overwrite=True)
    print(f"saved: runninghub -> {credentials.base_url}, media -> {storage.url}")


if __name__ == "__main__":
    save()
