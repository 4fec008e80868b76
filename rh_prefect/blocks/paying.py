"""Who pays for a call: one account, or a pool of them, found by the name of its block."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr

from rh_prefect.blocks.credentials import RunningHubCredentials
from rh_prefect.blocks.lookup import find_block, load_credentials
from rh_prefect.blocks.pool import RunningHubPool
from rh_prefect.errors import ConfigError
from rh_prefect.jobs.account_registry import Key, payer
from rh_prefect.jobs.engine import JobEngine
from rh_prefect.jobs.journal.records import Intent
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.settings import get_settings

BELIEVED = 60.0
"""Seconds for which a process remembers whether a name is a pool's, and of which accounts: each job asks for it."""


async def load_engine(name: str | None = None) -> JobEngine:
    """Finds out who pays: gives this process's one `JobEngine` for a name.

    Args:
        name: Name of a saved block, of one account or of a pool; None for `RH_API_KEY` and `RH_BASE_URL`.

    Raises:
        ConfigError: No such block, two of that name, a pool or a key that cannot be used, or no key in the environment.
    """
    return await LOOP.call(_payer(name))


async def key_of(intent: Intent) -> Key:
    """Finds the key of the account that a job was paid on, whatever pool its block is in by now.

    Args:
        intent: The job's record.

    Raises:
        ConfigError: Its block is gone, or no key is set.
    """
    try:
        return key_from(await load_credentials(intent.credentials), intent.credentials)
    except ConfigError as error:
        where = "RH_API_KEY" if intent.credentials is None else f"the credentials block {intent.credentials!r}"
        raise ConfigError(
            f"The task was paid for on account {intent.account!r} of {intent.site}, with {where}, and only that "
            f"account can tell of it. {error.message}"
        ) from error


def key_from(block: RunningHubCredentials, name: str | None) -> Key:
    """Takes the key out of a block.

    Args:
        block: The block.
        name: Under which it is saved; None for what the environment sets.
    """
    return Key(block.api_key, block.base_url, block.account, name)


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    found: asyncio.Task[tuple[Key, ...] | None]


_looks: dict[tuple[str, str], _Look] = {}
# A forked child has its parent's tasks, which belong to a loop that it does not have.
os.register_at_fork(after_in_child=_looks.clear)


async def _payer(name: str | None) -> JobEngine:
    pool = None if name is None else await _remembered_pool(name)
    keys = pool or [key_from(await load_credentials(name), name)]
    return payer(keys, settings=get_settings(), find=key_of, pool=name if pool else None)


async def _remembered_pool(name: str) -> tuple[Key, ...] | None:
    """The keys of a pool, or None where none has this name; on the loop thread, so that many jobs ask once together."""
    where, now = (PREFECT_API_URL.value() or "", name), time.monotonic()
    look = _looks.get(where)
    if look is None or now - look.at > BELIEVED:
        look = _looks[where] = _Look(now, asyncio.ensure_future(_find_pool(name)))
    try:
        return await asyncio.shield(look.found)
    except Exception:
        # What went wrong may be mended the next moment.
        if _looks.get(where) is look:
            del _looks[where]
        raise


async def _find_pool(name: str) -> tuple[Key, ...] | None:
    pool = await find_block(RunningHubPool, name)
    if pool is None:
        return None
    if await find_block(RunningHubCredentials, name) is not None:
        raise ConfigError(
            f"{name!r} is the name of a pool of accounts and of one account, so nobody can tell which of the two is to "
            "pay. Nothing was sent. What to do: save one of the two blocks under another name and delete this one."
        )
    keys = await asyncio.gather(*(_member(name, member) for member in pool.credentials))
    _refuse_two_sites(name, keys)
    _refuse_one_key_twice(name, keys)
    return tuple(keys)


async def _member(pool: str, name: str) -> Key:
    try:
        return key_from(await load_credentials(name), name)
    except ConfigError as error:
        raise ConfigError(
            f"The pool {pool!r} names the account {name!r}, which cannot be used; nothing was sent. {error.message}"
        ) from error


def _refuse_two_sites(pool: str, keys: Iterable[Key]) -> None:
    sites = {key.block: _site(key) for key in keys}
    if len(set(sites.values())) > 1:
        raise ConfigError(
            f"The accounts of the pool {pool!r} are of several sites "
            f"({', '.join(f'{block}: {site}' for block, site in sites.items())}), and a job belongs to one: run again, "
            "it would be another job. Nothing was sent. What to do: make a pool for each site."
        )


def _refuse_one_key_twice(pool: str, keys: Iterable[Key]) -> None:
    blocks: dict[SecretStr, str | None] = {}
    for key in keys:
        other = blocks.setdefault(key.api_key, key.block)
        if other != key.block:
            raise ConfigError(
                f"The accounts {other!r} and {key.block!r} of the pool {pool!r} have the same key, whose limit there "
                "is only once. Nothing was sent. What to do: take one of them out of the pool, or correct its key."
            )


def _site(key: Key) -> str:
    return urlsplit(key.base_url).netloc
