"""Changes one assumption, and compares what a client sees over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rh_prefect.emulator import DEFAULT, Assumptions
from tests.support.servers.caller import Caller

Probe = Callable[[Caller], object]


@dataclass(frozen=True)
class AssumptionProbe:
    """A probe of one assumption, named like its field.

    Attributes:
        probe: Sends requests to an emulator and returns what depends on the field.
        value: Another value of the field.
        seen: The results with the default value and with the other value.
        options: Options of the emulator.
        base: Other fields that both emulators have.
    """

    probe: Probe
    value: object
    seen: tuple[object, object]
    options: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.probe.__name__

    @property
    def default(self) -> Assumptions:
        return replace(DEFAULT, **self.base)

    @property
    def changed(self) -> Assumptions:
        one: dict[str, Any] = {self.name: self.value}
        return replace(self.default, **one)


class AssumptionProbes(dict[str, AssumptionProbe]):
    """The probes of one family, by the name of their field."""

    def __call__(
        self, value: object, *seen: object, base: Mapping[str, object] | None = None, **options: object
    ) -> Callable[[Probe], Probe]:
        """Registers a probe: `@probes(other_value, seen_now, seen_then)`."""

        def register(probe: Probe) -> Probe:
            now, then = seen
            made = AssumptionProbe(probe, value, (now, then), options, base or {})
            assert made.name not in self
            self[made.name] = made
            return probe

        return register
