"""Loads the account or pool and the storage for a call: from the named blocks, or else from the environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx
from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from pydantic import SecretStr, ValidationError

from rh_prefect.blocks.credentials import RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.storage import MediaStorage
from rh_prefect.bounded_caches_and_locks import SingleFlight
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.prefect_api import api_address, ask, ask_repeatedly, failure_of, patience
from rh_prefect.redaction import secret_in
from rh_prefect.settings import get_settings
from rh_prefect.works.accounts.account import Account, account_of
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, pool_services

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from rh_prefect.media.store import MediaStore

_B = TypeVar("_B", bound=Block)


async def load_credentials(name: str | None = None) -> RunningHubCredentials:
    """Loads the account from a block, or from `RH_API_KEY` and `RH_BASE_URL`; raises `ConfigError` if there is none."""
    if name is not None:
        found = await find_block(RunningHubCredentials, name)
        if found is None:
            raise await _no_account(name)
        return found
    settings = get_settings()
    if not settings.api_key:
        raise ConfigError(
            "No RunningHub API key is set. What to do: set RH_API_KEY, in the environment of the process that runs the "
            "flow (the worker), to a key from the site's API console, or to the key of `rh-prefect emulator`; or "
            'save a block once, `RunningHubCredentials(api_key="…").save("NAME")`, and pass credentials="NAME".'
        )
    try:
        return RunningHubCredentials(api_key=settings.api_key, base_url=settings.base_url)
    except ValidationError as error:
        raise ConfigError(
            f"RH_API_KEY or RH_BASE_URL cannot be used: {_flaws(error)}. What to do: set RH_BASE_URL to "
            "https://www.runninghub.cn or https://www.runninghub.ai, the site that the key belongs to."
        ) from None


async def load_storage(name: str | None = None) -> MediaStore:
    """Opens the storage named by a `MediaStorage` block or `RH_STORAGE_URL`; raises `ConfigError` if it is unusable."""
    from rh_prefect.media.input_access_policy import allow_below

    if name is not None:
        found = await find_block(MediaStorage, name)
        if found is None:
            raise missing(MediaStorage, name, ", ".join(await _names(MediaStorage)))
        store = found.get_store()
        # Outputs of earlier jobs may be inputs of later jobs, even in deployments.
        allow_below(store.url)
        return store
    settings = get_settings()
    try:
        block = MediaStorage(url=settings.storage_url, options=SecretDict(settings.storage_options))
    except ValidationError as error:
        raise ConfigError(
            f"RH_STORAGE_URL or RH_STORAGE_OPTIONS cannot be used: {_flaws(error)}. What to do: set RH_STORAGE_URL "
            "to a folder or a URL without credentials, and put the credentials in RH_STORAGE_OPTIONS as JSON, such as "
            '{"username": "…", "password": "…"}.'
        ) from None
    return block.get_store()


def _flaws(error: ValidationError) -> str:
    """Returns the faults of a block or setting; does not quote the invalid values, which may be secret."""
    return "; ".join(wrong["msg"].removeprefix("Value error, ") for wrong in error.errors(include_input=False))


def _check_name(kind: type[Block], name: object) -> None:
    """Raises an error if a block or a key is given in place of a name, before the value is looked up or shown."""
    option = "storage" if kind is MediaStorage else "credentials"
    if not isinstance(name, str):
        raise InputError(
            f"{option} takes the name of a block, not a value of type {type(name).__name__}. Nothing was sent. What to "
            'do: save the block, as in `block.save("NAME")`, and pass its name.'
        )
    if what := secret_in(name):
        raise InputError(
            f"{option} takes the name of a block, but the given value looks like {what}. Nothing was sent. What to do: "
            "save the value in a block and give the block's name. Prefect stores the parameters of runs, so also "
            "replace the key or password by a new one."
        )


async def find_block(kind: type[_B], name: str) -> _B | None:
    """Loads a saved block; returns None if it does not exist, and raises `ConfigError` if it is unusable."""
    _check_name(kind, name)
    what = f"The block {name!r} of type {kind.__name__} cannot be read"

    async def load(client: PrefectClient) -> _B:
        return await kind.aload(name, client=client)

    try:
        # A task in a thread has its own event loop, which would open a connection for this one request.
        return await LOOP.call(ask_repeatedly(load, what=what, patience=patience()))
    except (httpx.HTTPStatusError, httpx.TransportError) as error:
        answer, advice = failure_of(error)
        raise ConfigError(
            f"{what}: the Prefect API at {api_address()}: {answer}. Nothing was sent. What to do: {advice}."
        ) from error
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        fields = ", ".join(sorted({".".join(map(str, wrong["loc"])) for wrong in error.__cause__.errors()}))
        raise ConfigError(
            f"The block {name!r} of type {kind.__name__} cannot be used; wrong or missing: {fields}. What to do: "
            "correct the block in Prefect's dashboard and save it."
        ) from None
    except ValueError:
        return None


async def _no_account(name: str) -> ConfigError:
    pool = await find_block(RunningHubPool, name)
    if pool is not None:
        return ConfigError(
            f"The block {name!r} is a pool of accounts, but one account is needed here. What to do: use "
            f"the name of one of its accounts: {', '.join(pool.credentials)}."
        )
    # Most calls accept a pool as well, so the message lists both kinds of blocks.
    named = {"accounts": await _names(RunningHubCredentials), "pools": await _names(RunningHubPool)}
    there = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    return missing(RunningHubCredentials, name, there)


def missing(kind: type[Block], name: str, there: str) -> ConfigError:
    """Returns the error for a block name that does not exist."""
    known = (
        f"Existing blocks: {there}. What to do: use one of these names, or"
        if there
        else "No block of this type exists yet. What to do:"
    )
    return ConfigError(
        f"There is no block {name!r} of type {kind.__name__}. {known} save the block: "
        f'`{kind.__name__}(…).save("{name}")`.'
    )


async def _names(kind: type[Block]) -> list[str]:
    slug = kind.get_block_type_slug()
    try:
        found = await ask(lambda api: api.read_block_documents_by_type(slug, include_secrets=False))
    except ObjectNotFound:
        return []
    return sorted(block.name for block in found if block.name)


POOL_CACHE_SECONDS = 60.0
"""Seconds for which a process caches whether a name belongs to a pool, and the pool's accounts; each job needs both."""


async def load_pool_context(name: str | None = None) -> PoolServices:
    """Returns this process's single `PoolServices` for the account or pool with this name; see `load_credentials`."""
    if name is not None:
        _check_name(RunningHubPool, name)
    return await LOOP.call(_pool_context(name))


async def _recorded(intent: Intent) -> Account:
    """Returns the account from the credentials block that a record names, even if the block is now part of a pool."""
    try:
        return _account(await load_credentials(intent.credentials), intent.credentials)
    except ConfigError as error:
        raise ConfigError(
            f"The task was paid for on {intent.site}, on account {intent.account_words}, and "
            f"only that account can query it. {error.message}"
        ) from error


RECORDED: Final = Pool(find=_recorded)
"""The accounts that jobs' records name, by block name; use this pool on the loop thread only."""


def _account(block: RunningHubCredentials, name: str | None) -> Account:
    return account_of(block.api_key, base_url=block.base_url, settings=get_settings(), name=block.account, block=name)


Blocks: TypeAlias = Mapping[str, RunningHubCredentials]
"""The blocks of a pool's accounts, by name."""

_pools: SingleFlight[tuple[str, str], Blocks | None] = SingleFlight(1000, seconds=POOL_CACHE_SECONDS)
"""The accounts of a pool, by Prefect API and pool name; None if no pool has the name. Used on the loop thread only."""
# A forked child has its parent's tasks, which belong to a loop that the child does not have.
os.register_at_fork(after_in_child=_pools.clear)


async def _pool_context(name: str | None) -> PoolServices:
    pool = None if name is None else await _pools.get((PREFECT_API_URL.value() or "", name), lambda: _find_pool(name))
    accounts = [_account(block, one) for one, block in (pool or {}).items()]
    accounts = accounts or [_account(await load_credentials(name), name)]
    return pool_services(accounts, settings=get_settings(), find=RECORDED.find, pool=name if pool else None)


async def _find_pool(name: str) -> Blocks | None:
    pool = await find_block(RunningHubPool, name)
    is_account = await find_block(RunningHubCredentials, name) is not None
    if pool is None and not is_account:  # an error is not cached, so that a block that is saved now is found
        raise await _no_account(name)
    if pool is None:
        return None
    if is_account:
        raise ConfigError(
            f"{name!r} is the name of two blocks: one pool of accounts and one single account. It is not clear which "
            "of them should pay. Nothing was sent. What to do: save one under another name, and delete the original."
        )
    found = await asyncio.gather(*(_of_pool(name, account) for account in pool.credentials))
    blocks = dict(zip(pool.credentials, found, strict=True))
    _refuse_two_sites(name, blocks)
    _refuse_one_key_twice(name, blocks)
    return blocks


async def _of_pool(pool: str, name: str) -> RunningHubCredentials:
    try:
        return await load_credentials(name)
    except ConfigError as error:
        raise ConfigError(
            f"The pool {pool!r} contains the account {name!r}, which cannot be used. Nothing was sent. {error.message}"
        ) from error


def _refuse_two_sites(pool: str, blocks: Blocks) -> None:
    sites = {name: urlsplit(block.base_url).netloc for name, block in blocks.items()}
    if len(set(sites.values())) > 1:
        raise ConfigError(
            f"The accounts of the pool {pool!r} belong to several sites "
            f"({', '.join(f'{name}: {site}' for name, site in sites.items())}), but all accounts of a pool must belong "
            "to one site: a retry on another site would pay for a new job. Nothing was sent. What to do: make a pool "
            "for each site."
        )


def _refuse_one_key_twice(pool: str, blocks: Blocks) -> None:
    names: dict[SecretStr, str] = {}
    for name, block in blocks.items():
        other = names.setdefault(block.api_key, name)
        if other != name:
            raise ConfigError(
                f"The accounts {other!r} and {name!r} of the pool {pool!r} have the same key, so the key's limit of "
                "running tasks would be counted twice. Nothing was sent. What to do: remove one of them from the "
                "pool, or correct its key."
            )
