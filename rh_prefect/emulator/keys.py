"""API keys and the accounts behind them: tier, concurrency, wallet. A key's value shows in no repr."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from rh_prefect.emulator import assumptions
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.charges import Charge

Tier = Literal["FREE", "NORMAL", "SHARED", "EXCLUSIVE"]
"""RunningHub's `apiType`; FREE stands for accounts that may not use the API at all."""


@dataclass(slots=True)
class Account:
    """Who pays: the wallet that one or more keys share."""

    name: str
    money: Decimal
    coins: int = 0
    currency: str = assumptions.CURRENCY

    def pay(self, charge: Charge, *, tier: Tier) -> None:
        """Takes a charge from the account.

        Raises:
            Refused: It cannot be paid, or nothing is left.
        """
        if tier == "NORMAL" and self.coins < max(1, charge.coins):
            raise Refused(*assumptions.EMPTY_COINS)
        if tier == "SHARED" and (self.money < charge.wallet or self.money <= 0):
            raise Refused(*assumptions.EMPTY_WALLET)
        if tier == "EXCLUSIVE" and self.money < charge.wallet:
            raise Refused(*assumptions.EMPTY_WALLET)
        self.give_back(Charge() - charge)

    def give_back(self, charge: Charge) -> None:
        """Gives a charge back to the account."""
        self.money += charge.wallet
        self.coins += charge.coins


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key.

    Attributes:
        secret: The 32 characters that a client sends.
        name: What books and logs call it.
        tier: What it may do.
        limit: How many tasks it may have at once.
        account: Who pays.
        queue: How many tasks may wait in its personal queue.
    """

    secret: str = field(repr=False)
    name: str
    tier: Tier
    limit: int
    account: Account
    queue: int = assumptions.PERSONAL_QUEUE


class KeyRing:
    """All keys that the emulator knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_secret: dict[str, ApiKey] = {}
        self._accounts: dict[str, Account] = {}

    def add(
        self,
        name: str,
        *,
        tier: Tier = "SHARED",
        limit: int | None = None,
        money: Decimal | str | int = assumptions.START_MONEY,
        coins: int | None = None,
        queue: int = assumptions.PERSONAL_QUEUE,
        account: str | None = None,
        secret: str | None = None,
        currency: str = assumptions.CURRENCY,
    ) -> ApiKey:
        """Adds a key, or replaces the one of that name.

        Args:
            name: What books and logs call it.
            tier: What it may do.
            limit: How many tasks it may have at once; default by tier.
            money: The wallet's content, where the account is new.
            coins: RH coins, where the account is new; default by tier.
            queue: How many tasks may wait in its personal queue.
            account: The account that pays; default a new one named like the key.
            secret: The key's value; default 32 random characters.
            currency: The wallet's, where the account is new.
        """
        with self._lock:
            purse = assumptions.START_COINS.get(tier, 0) if coins is None else coins
            owner = Account(account or name, Decimal(str(money)), purse, currency)
            payer = self._accounts.setdefault(owner.name, owner)
            room = assumptions.DEFAULT_LIMITS[tier] if limit is None else limit
            key = ApiKey(secret or secrets.token_hex(16), name, tier, room, payer, queue)
            self._by_secret = {held: old for held, old in self._by_secret.items() if old.name != name}
            self._by_secret[key.secret] = key
            return key

    def find(self, secret: str) -> ApiKey | None:
        """Finds the key that a client sent; None where it is wrong."""
        return self._by_secret.get(secret)

    def __getitem__(self, name: str) -> ApiKey:
        for key in self:
            if key.name == name:
                return key
        raise KeyError(name)

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(list(self._by_secret.values()))

    def mask(self, text: str) -> str:
        """Writes names instead of keys, for books and logs."""
        for key in self:
            text = text.replace(key.secret, f"<{key.name}>")
        return text
