"""What a test may change while the emulator runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.errors import InputError


@dataclass(slots=True)
class Switches:
    """The switches.

    Attributes:
        webhook_spacing: Seconds between the tries of a delivery, by the emulator's clock.
        webhook_timeout: Seconds of real time in which a receiver must have answered.
        webhook_data: What `eventData` of v2 and model tasks is.
        real_people: Whether every picture, video and sound shows a real person: Seedance 2.0 then takes only assets,
            or `realPersonMode`.
        deterministic: Whether equal requests give equal results; otherwise only those that name the same seed do.
    """

    webhook_spacing: float
    webhook_timeout: float
    webhook_data: Literal["object", "string"]
    real_people: bool = False
    deterministic: bool = False

    def turn(self, **values: object) -> None:
        """Sets switches by their names.

        Raises:
            InputError: There is no such switch.
        """
        unknown = set(values) - {field.name for field in fields(self)}
        if unknown:
            raise InputError(f"There is no switch {', '.join(sorted(unknown))}; see rh_prefect.emulator.options.")
        for name, value in values.items():
            setattr(self, name, value)


def first_switches(assumptions: Assumptions, *, deterministic: bool) -> Switches:
    """Makes the switches of a new emulator.

    Args:
        assumptions: What stands where nothing was switched.
        deterministic: Whether equal requests give equal results.
    """
    return Switches(
        assumptions.webhook_spacing,
        assumptions.webhook_timeout,
        assumptions.webhook_data,
        deterministic=deterministic,
    )
