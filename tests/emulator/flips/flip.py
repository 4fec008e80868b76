"""One assumption turned to another answer, and what a client sees of it over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from rh_prefect.emulator import DEFAULT, Assumptions
from tests.emulator.caller import Caller

Probe = Callable[[Caller], object]


@dataclass(frozen=True)
class Flip:
    """A probe, named like the field that it looks at.

    Attributes:
        probe: Asks an emulator over HTTP and returns what shows the field's answer.
        value: Another answer.
        seen: What the probe returns with the present answer, and with the other one.
        options: How the emulator is started.
        base: Other fields that both emulators have.
    """

    probe: Probe
    value: object
    seen: tuple[object, object]
    options: Mapping[str, object] = field(default_factory=dict)
    base: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.probe.__name__

    @property
    def present(self) -> Assumptions:
        return replace(DEFAULT, **self.base)  # type: ignore[arg-type]  # names and values of one probe

    @property
    def flipped(self) -> Assumptions:
        return replace(self.present, **{self.name: self.value})  # type: ignore[arg-type]


class Flips(dict[str, Flip]):
    """The flips of one family, by the name of their field."""

    def __call__(
        self, value: object, *seen: object, base: Mapping[str, object] | None = None, **options: object
    ) -> Callable[[Probe], Probe]:
        """Registers a probe: `@flips(other_answer, seen_now, seen_then)`."""

        def register(probe: Probe) -> Probe:
            now, then = seen
            flip = Flip(probe, value, (now, then), options, base or {})
            assert flip.name not in self
            self[flip.name] = flip
            return probe

        return register
