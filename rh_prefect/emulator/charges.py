"""What a task costs: money or coins, for a model's result or for the seconds that a graph runs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from rh_prefect.emulator.assumptions import Assumptions


@dataclass(frozen=True, slots=True)
class Charge:
    """What is taken from an account.

    Attributes:
        money: Wallet money for run time.
        third_party: Wallet money for a model.
        coins: RH coins for run time.
        seconds: The run time that is paid for; 0 for models.
    """

    money: Decimal = Decimal(0)
    third_party: Decimal = Decimal(0)
    coins: int = 0
    seconds: int = 0

    @property
    def wallet(self) -> Decimal:
        """All the money."""
        return self.money + self.third_party

    def __sub__(self, other: Charge) -> Charge:
        return Charge(
            self.money - other.money, self.third_party - other.third_party, self.coins - other.coins, self.seconds
        )

    def part(self, share: Decimal, *, step: Decimal) -> Charge:
        """Tells what a share of it is, in whole coins and in steps of money."""
        return Charge(
            _rounded(self.money * share, step),
            _rounded(self.third_party * share, step) if share < 1 else self.third_party,
            int(_rounded(self.coins * share, Decimal(1))),
            self.seconds,
        )


def run_charge(assumptions: Assumptions, tier: str, seconds: float, machine: str, *, retained: int = 0) -> Charge:
    """Prices a graph's run by the second.

    Args:
        assumptions: The rates.
        tier: The key's tier: consumers pay coins, shared keys money, exclusive keys have paid for their machines.
        seconds: How long it runs.
        machine: On what.
        retained: For how many seconds the machine is kept after it.
    """
    whole = max(1, int(_rounded(Decimal(str(seconds)), Decimal(1))))
    paid = (whole + retained) * assumptions.machine_factors[machine]
    if tier == "NORMAL":
        return Charge(coins=int(_rounded(paid * assumptions.coins_per_second, Decimal(1))), seconds=whole)
    if tier == "SHARED":
        return Charge(_rounded(paid * assumptions.money_per_second, assumptions.money_step), seconds=whole)
    return Charge(seconds=whole)


def _rounded(amount: Decimal, step: Decimal) -> Decimal:
    return (amount / step).to_integral_value(ROUND_CEILING) * step
