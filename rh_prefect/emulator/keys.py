"""API keys and the accounts behind them: tier, concurrency, wallet. A key's value shows in no repr."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.assumptions import DEFAULT, Assumptions
from rh_prefect.emulator.charges import Charge

Tier = Literal["FREE", "NORMAL", "SHARED", "EXCLUSIVE"]
"""RunningHub's `apiType`; FREE stands for accounts that may not use the API at all."""


@dataclass(slots=True)
class Account:
    """Who pays: the wallet that one or more keys share."""

    name: str
    money: Decimal
    coins: int = 0
    currency: str = ""

    def pay(self, charge: Charge, *, tier: Tier, assumptions: Assumptions) -> None:
        """Takes a charge from the account.

        Raises:
            Refused: It cannot be paid, or nothing is left.
        """
        self.check(charge, tier=tier, assumptions=assumptions)
        self.give_back(Charge() - charge)

    def check(self, charge: Charge, *, tier: Tier, assumptions: Assumptions) -> None:
        """Checks that a charge can be paid, and that anything is left.

        Raises:
            Refused: It cannot be paid, or nothing is left.
        """
        if tier == "NORMAL" and self.coins < max(1, charge.coins):
            raise Refused("414")
        if tier == "SHARED" and (self.money < charge.wallet or self.money <= 0):
            raise Refused(*assumptions.empty_wallet)
        if tier == "EXCLUSIVE" and self.money < charge.wallet:
            raise Refused(*assumptions.empty_wallet)

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
    queue: int


class KeyRing:
    """All keys that the emulator knows.

    Args:
        assumptions: What a new key has where nothing is said, and how a wrong one is refused.
    """

    def __init__(self, assumptions: Assumptions = DEFAULT) -> None:
        self.assumptions = assumptions
        self._lock = threading.Lock()
        self._by_secret: dict[str, ApiKey] = {}
        self._accounts: dict[str, Account] = {}

    def add(
        self,
        name: str,
        *,
        tier: Tier = "SHARED",
        limit: int | None = None,
        money: Decimal | str | int | None = None,
        coins: int | None = None,
        queue: int | None = None,
        account: str | None = None,
        secret: str | None = None,
        currency: str | None = None,
    ) -> ApiKey:
        """Adds a key, or replaces the one of that name.

        Args:
            name: What books and logs call it.
            tier: What it may do.
            limit: How many tasks it may have at once; default by tier.
            money: The wallet's content, where the account is new; default `Assumptions.start_money`.
            coins: RH coins, where the account is new; default by tier.
            queue: How many tasks may wait in its personal queue; default `Assumptions.personal_queue`.
            account: The account that pays; default a new one named like the key.
            secret: The key's value; default 32 random characters.
            currency: The wallet's, where the account is new; default `Assumptions.currency`.
        """
        with self._lock:
            known = self.assumptions
            wallet = known.start_money if money is None else Decimal(str(money))
            purse = known.start_coins.get(tier, 0) if coins is None else coins
            owner = Account(account or name, wallet, purse, currency or known.currency)
            payer = self._accounts.setdefault(owner.name, owner)
            room = known.default_limits[tier] if limit is None else limit
            waiting = known.personal_queue if queue is None else queue
            key = ApiKey(secret or secrets.token_hex(16), name, tier, room, payer, waiting)
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
