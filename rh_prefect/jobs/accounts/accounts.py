"""The accounts of this process, one for each API key, and the account that a job's record names."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from rh_prefect.client import Client
from rh_prefect.errors import ConfigError
from rh_prefect.jobs.accounts.account import Account, Member
from rh_prefect.jobs.journal.records import Intent
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.settings import Settings


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, and where it comes from.

    Attributes:
        api_key: RunningHub's API key.
        base_url: The site.
        account: The account's name in records; a fingerprint of the key by default.
        block: Name of its credentials block; None for RH_API_KEY.
    """

    api_key: SecretStr
    base_url: str
    account: str | None = None
    block: str | None = None


_accounts: dict[tuple[str, SecretStr, Path], Account] = {}
# A forked child has its parent's sockets and locks, which are bound to a loop that the child does not have.
os.register_at_fork(after_in_child=_accounts.clear)


def member(key: Key, *, settings: Settings) -> Member:
    """Gives this process's one account of a key; call it on the loop thread.

    Args:
        key: The key.
        settings: This machine's state folder, and how often tasks are polled.

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


async def _unknown(intent: Intent) -> Member:
    raise ConfigError(
        f"task paid on account {intent.account!r}: none of the accounts at hand is that one. What to do: run again "
        "with its key."
    )


class Accounts:
    """Finds the account that a job's record names: the only way from an intent to its client."""

    def __init__(
        self, members: Sequence[Member] = (), *, find: Callable[[Intent], Awaitable[Member]] = _unknown
    ) -> None:
        """Takes the accounts at hand.

        Args:
            members: The accounts that are looked at first.
            find: Finds an account that is not among these; by default that is an error.
        """
        self.members = tuple(members)
        self.find = find

    async def for_intent(self, intent: Intent) -> Member:
        """Finds the account that a job was paid on.

        Args:
            intent: The job's record.

        Raises:
            ConfigError: Its block does not exist any more, no key is set, or the key is for another site.
        """
        found = self._at_hand(intent) or await self.find(intent)
        if found.client.site != intent.site:
            raise ConfigError(
                f"the job was submitted to {intent.site}, and the credentials here are for {found.client.site}. What "
                "to do: start this process with the same RH_BASE_URL, or name blocks in your flows."
            )
        return found

    async def client_for(self, intent: Intent) -> Client:
        """Finds the client of the account that a job was paid on; see `for_intent`."""
        return (await self.for_intent(intent)).client

    def _at_hand(self, intent: Intent) -> Member | None:
        # A block whose key was renewed is the same account; only where two have changed places does the name decide.
        named = [one for one in self.members if one.name == intent.account]
        blocks = [one for one in self.members if one.block == intent.credentials]
        both = [one for one in named if one in blocks]
        return next((found[0] for found in (both, named, blocks) if found), None)
