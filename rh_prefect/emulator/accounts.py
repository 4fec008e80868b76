"""API keys and accounts: tier, concurrency, wallet, charges and rate limit. No repr contains a key's value."""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, get_args

from rh_prefect.emulator.assumptions import DEFAULT, Assumptions
from rh_prefect.emulator.clock import Clock
from rh_prefect.emulator.responses import Refused
from rh_prefect.errors import InputError
from rh_prefect.redaction import SHORTEST_KEY


@dataclass(frozen=True, slots=True)
class Charge:
    """The cost of a task.

    Attributes:
        money: Wallet money for run time.
        third_party: Wallet money for a model.
        coins: RH coins for run time.
        seconds: The billed run time; 0 for models.
    """

    money: Decimal = Decimal(0)
    third_party: Decimal = Decimal(0)
    coins: int = 0
    seconds: int = 0

    @property
    def wallet(self) -> Decimal:
        """The total wallet money."""
        return self.money + self.third_party

    def __sub__(self, other: Charge) -> Charge:
        return Charge(
            self.money - other.money,
            self.third_party - other.third_party,
            self.coins - other.coins,
            self.seconds - other.seconds,
        )

    def part(self, share: Decimal, *, step: Decimal) -> Charge:
        """Returns a share of the charge, rounded to whole coins, whole seconds and steps of money."""
        return Charge(
            _rounded(self.money * share, step),
            _rounded(self.third_party * share, step) if share < 1 else self.third_party,
            int(_rounded(self.coins * share, Decimal(1))),
            int(_rounded(self.seconds * share, Decimal(1))),
        )


def run_charge(assumptions: Assumptions, tier: str, seconds: float, machine: str, *, retained: int = 0) -> Charge:
    """Returns the price of the seconds that a graph runs: coins, money or nothing more, by the tier of the key."""
    whole = max(1, int(_rounded(Decimal(str(seconds)), Decimal(1))))
    paid = (whole + retained) * assumptions.machine_factors[machine]
    if tier == "NORMAL":
        return Charge(coins=int(_rounded(paid * assumptions.coins_per_second, Decimal(1))), seconds=whole)
    if tier == "SHARED":
        return Charge(_rounded(paid * assumptions.money_per_second, assumptions.money_step), seconds=whole)
    return Charge(seconds=whole)


def _rounded(amount: Decimal, step: Decimal) -> Decimal:
    return (amount / step).to_integral_value(ROUND_CEILING) * step


Tier = Literal["FREE", "NORMAL", "SHARED", "EXCLUSIVE"]
"""RunningHub's `apiType`; FREE is an account without API access."""


@dataclass(slots=True)
class Account:
    """An account: a wallet that one or more keys share."""

    name: str
    money: Decimal
    coins: int = 0
    currency: str = ""

    def pay(self, charge: Charge, *, tier: Tier, assumptions: Assumptions) -> None:
        """Takes a charge from the account; raises `Refused` if the account cannot pay it, or is empty."""
        self.check(charge, tier=tier, assumptions=assumptions)
        self.give_back(Charge() - charge)

    def check(self, charge: Charge, *, tier: Tier, assumptions: Assumptions) -> None:
        """Raises `Refused` if the account cannot pay a charge, or is empty."""
        if tier == "NORMAL" and self.coins < max(1, charge.coins):
            raise Refused("414")
        if tier == "SHARED" and (self.money < charge.wallet or self.money <= 0):
            raise Refused(*assumptions.empty_wallet)
        if tier == "EXCLUSIVE" and self.money < charge.wallet:
            raise Refused(*assumptions.empty_wallet)

    def give_back(self, charge: Charge) -> None:
        """Refunds a charge."""
        self.money += charge.wallet
        self.coins += charge.coins


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, with its limits and the account that pays."""

    secret: str = field(repr=False)
    name: str
    tier: Tier
    limit: int
    account: Account
    queue: int


class ApiKeys:
    """The API keys of the emulator."""

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
        """Adds a key, or replaces the key with this name.

        Args:
            name: The key's name in records and logs.
            tier: The account type, which decides what the key may do.
            limit: Number of tasks that the key may run at once; the default depends on the tier.
            money: The wallet's content if the account is new; by default `Assumptions.start_money`.
            coins: The RH coins if the account is new; the default depends on the tier.
            queue: Number of tasks that may wait in the key's personal queue; by default `Assumptions.personal_queue`.
            account: The name of the account that pays; by default a new account with the key's name.
            secret: The key's value; by default 32 random characters.
            currency: The wallet's currency if the account is new; by default `Assumptions.currency`.

        Raises:
            InputError: A value is of the wrong type.
        """
        counts = {"limit": limit, "coins": coins, "queue": queue}
        wrong = [name for name, value in counts.items() if value is not None and type(value) is not int]
        if wrong or tier not in get_args(Tier):
            raise InputError(f"Invalid {', '.join(wrong) or 'tier'} of a key. What to do: see `ApiKeys.add`.")
        with self._lock:
            known = self.assumptions
            try:
                wallet = known.start_money if money is None else Decimal(str(money))
            except ArithmeticError as error:
                raise InputError(f"Invalid money {money!r} of a key. What to do: give an amount.") from error
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
        """Finds the key with this value; None if there is no such key."""
        return self._by_secret.get(secret)

    def __getitem__(self, name: str) -> ApiKey:
        for key in self:
            if key.name == name:
                return key
        raise KeyError(name)

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(list(self._by_secret.values()))

    def mask(self, text: str) -> str:
        """Replaces API keys of at least `SHORTEST_KEY` characters with their names, for records and logs."""
        for key in self:
            if len(key.secret) >= SHORTEST_KEY:  # a shorter one is a part of other words
                text = text.replace(key.secret, f"<{key.name}>")
        return text


_MINUTE: Final = 60.0


class RateLimit:
    """Counts the requests of each key, at most so many a minute (0: any number); not thread-safe."""

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._most = most
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, key_name: str) -> None:
        """Counts a request; raises `Refused` if the key has sent too many in the last minute."""
        if not self._most:
            return
        now, times = self._clock.now(), self._times[key_name]
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= self._most:
            raise Refused("1003")
        times.append(now)
