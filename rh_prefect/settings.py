"""Reads the settings of this package from the `RH_…` environment variables."""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from rh_prefect.errors import ConfigError


def _state_dir() -> Path:
    base = Path(os.environ.get("XDG_STATE_HOME") or "")  # by its specification, a relative path has no effect
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "rh-prefect"


class Settings(BaseSettings):
    """The settings of a call that names no block.

    Each field is read from the environment variable `RH_` + its name in upper case, as in `RH_API_KEY`.

    Attributes:
        api_key: RunningHub's API key (32 characters).
        base_url: The site: `https://www.runninghub.cn`, `https://www.runninghub.ai`, or an emulator.
        storage_url: The storage for files: a folder or any fsspec URL, as in `s3://bucket/prefix`.
        storage_options: fsspec's storage options for `storage_url`, as JSON; also for `records`, if it is of the same
            kind or `storage_url` is a folder.
        records: Where pipelines, named scopes and `reuse="always"` keep records, if not in the storage: a folder or
            fsspec URL that all machines share.
        state_dir: A folder on this machine for downloads in progress, and for task ids that are not recorded yet.
        poll_seconds: The base interval between polls of a running task; other intervals of polls scale with it.
        grace_seconds: Seconds for which an unexpected answer about a paid task is checked again before the answer
            counts: a task that RunningHub does not know, a rejected key, a success without files, a link that does not
            work.
        submit_timeout: Maximum seconds for a submission; afterwards, the answer counts as lost.
        webhook_url: The address at which RunningHub reaches `rh-prefect webhook serve`; if unset, tasks are only
            polled.
        webhook_token: The secret part of the webhook's address.
        input_roots: Folders and URL prefixes, separated by commas, below which deployments may read inputs.
        restrict_inputs: Whether the input rules of deployments apply to all calls.
        allow_private_links: Whether links to private addresses, such as those of your own network, are allowed.
        max_budget: Maximum cost of one pipeline run on this machine, even if the run has a larger budget.
        suspend_seconds: Maximum seconds for which a run stays suspended; then the run waits for its tasks in its
            process.
    """

    model_config = SettingsConfigDict(env_prefix="RH_", extra="ignore", frozen=True, hide_input_in_errors=True)

    api_key: SecretStr | None = None
    base_url: str = "https://www.runninghub.cn"
    storage_url: str = "rh-output"
    storage_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    records: str | None = None
    state_dir: Path = Field(default_factory=_state_dir)
    poll_seconds: float = Field(default=2.0, gt=0)
    grace_seconds: float = Field(default=300.0, ge=0)
    submit_timeout: float = Field(default=60.0, gt=0)
    webhook_url: str | None = None
    webhook_token: SecretStr | None = None
    input_roots: Annotated[tuple[str, ...], NoDecode] = ()
    restrict_inputs: bool = False
    allow_private_links: bool = False
    suspend_seconds: float = Field(default=4 * 3600.0, gt=0)
    max_budget: Decimal | None = Field(default=None, ge=0)

    @field_validator("state_dir", mode="before")
    @classmethod
    def _absolute(cls, value: object) -> Path:
        """Refuses a relative path: in the working folder of a run, which a worker deletes, task ids would be lost."""
        folder = Path(os.path.expanduser(str(value))) if value else _state_dir()  # noqa: PTH111 - it raises no error
        if not folder.is_absolute():
            raise ValueError("is a relative path, and this folder must survive the run; use an absolute path")
        return folder

    @field_validator("webhook_url", "webhook_token", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return value or None

    @field_validator("input_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


_READ: Final = ("RH_", "XDG_STATE_HOME", "HOME")
"""Prefixes of the names of the environment variables on which the settings depend."""

_latest: tuple[tuple[tuple[str, str], ...], Settings] | None = None


def get_settings() -> Settings:
    """Returns the settings from the environment, which a worker or a test may change between calls.

    Reading takes 2 ms, so the settings are cached until the environment changes.

    Raises:
        ConfigError: A variable has an invalid value.
    """
    global _latest
    environment = tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith(_READ)))
    latest = _latest
    if latest is None or latest[0] != environment:
        try:
            latest = _latest = (environment, Settings())
        except (ValidationError, SettingsError) as error:
            raise ConfigError(_unusable(error)) from None
    return latest[1]


def _unusable(error: ValidationError | SettingsError) -> str:
    """Returns a message with the variable and the problem, but never the value, which may be a secret."""
    if isinstance(error, SettingsError):
        return f"A setting cannot be read: {error}. What to do: correct the setting; RH_STORAGE_OPTIONS takes JSON."
    wrong = "; ".join(
        f"RH_{'.'.join(map(str, one['loc'])).upper()}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )
    return f"A setting cannot be used: {wrong}. What to do: correct the setting."


def is_http_address(url: str) -> bool:
    """Returns whether a string is an http or https URL of a host, possibly with a port and a path, and nothing else."""
    import httpx  # most commands check no address, and their help loads no client

    try:
        parts, host = urlsplit(url), httpx.URL(url).raw_host.decode()
        _ = parts.port, host.encode("idna")
    except (ValueError, httpx.InvalidURL):  # such as a wrong port or IP address, or an empty part of a host
        return False
    is_host = bool(re.fullmatch(r"[\w.-]+", host)) or ":" in host  # of an IPv6 address, which httpx has checked
    has_more = parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", url)
    return parts.scheme in ("http", "https") and is_host and not has_more


def usable_site(url: str) -> str:
    """Returns RunningHub's base URL without a slash at its end; raises `ValueError` if it cannot be used."""
    url = url.strip().rstrip("/")
    if not is_http_address(url):  # not quoted, because it may contain a password
        raise ValueError(
            "the site must be a URL that starts with https:// (or http:// for an emulator) and a host, without spaces, "
            "a user or a query"
        )
    return url


def checked_site(url: str) -> str:
    """Returns RunningHub's base URL like `usable_site`; raises `ConfigError` if it cannot be used."""
    try:
        return usable_site(url)
    except ValueError as error:
        raise ConfigError(
            f"The base URL cannot be used: {error}. What to do: set RH_BASE_URL to an address such as "
            "https://www.runninghub.cn."
        ) from None


_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})  # where the emulator is


def proxy_for(scheme: str, host: str) -> str | None:
    """Returns the proxy for a host, from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or host in _LOOPBACK or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
