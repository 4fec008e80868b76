"""This process's accounts: one for each key, and those who pay with them; call these on the loop thread."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from rh_prefect.client import Client
from rh_prefect.errors import ConfigError
from rh_prefect.jobs.accounts.account import Account, Member
from rh_prefect.jobs.accounts.pool import Pool
from rh_prefect.jobs.engine import JobEngine
from rh_prefect.jobs.journal.records import Intent
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.settings import Settings


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, and where it comes from.

    Attributes:
        api_key: RunningHub's API key.
        base_url: The site.
        account: What the records call the account; a fingerprint of the key by default.
        block: Name of its credentials block; None for RH_API_KEY.
    """

    api_key: SecretStr
    base_url: str
    account: str | None = None
    block: str | None = None


_accounts: dict[tuple[str, SecretStr, Path], Account] = {}
_payers: dict[tuple[Path, str | None, tuple[Member, ...]], JobEngine] = {}


def _after_fork() -> None:
    # A forked child has its parent's sockets and locks, which are bound to a loop that it does not have.
    _accounts.clear()
    _payers.clear()


os.register_at_fork(after_in_child=_after_fork)


def member(key: Key, *, settings: Settings) -> Member:
    """Gives this process's one account of a key, as its block calls it.

    Args:
        key: The key.
        settings: Where this machine's scratch lies, and how often to look at tasks.

    Raises:
        ConfigError: The key or the site cannot be used.
    """
    name = (key.base_url, key.api_key, settings.state_dir)
    if name not in _accounts:
        client = Client(key.api_key, base_url=key.base_url, submit_timeout=settings.submit_timeout)
        _accounts[name] = Account(client, settings=settings)
        LOOP.on_close(_accounts[name].aclose)
    account = _accounts[name]
    return Member(account, key.account or account.client.account_id, key.block)


def payer(
    keys: Sequence[Key],
    *,
    settings: Settings,
    find: Callable[[Intent], Awaitable[Key]] | None = None,
    pool: str | None = None,
) -> JobEngine:
    """Gives this process's one `JobEngine` for some accounts.

    Args:
        keys: The accounts' keys, of one site; at least one.
        settings: Where this machine's scratch lies, and how often to look at tasks.
        find: Finds the key of the account that a record names where it is none of these (any more); by default that
            is an error.
        pool: Name of the pool's block, if they are one.

    Raises:
        ConfigError: A key or the site cannot be used.
    """
    members = tuple(member(key, settings=settings) for key in keys)
    name = (settings.state_dir, pool, members)

    async def find_member(intent: Intent) -> Member:
        if find is None:
            raise ConfigError(
                f"task paid on account {intent.account!r}: none of the accounts at hand is that one. What to do: run "
                "again with its key."
            )
        return member(await find(intent), settings=settings)

    if name not in _payers:
        _payers[name] = JobEngine(Pool(members, find=find_member, name=pool), settings=settings)
    return _payers[name]
