"""The one source of chance of an emulator: what models draw where a request names no seed."""

from __future__ import annotations

import hashlib
import secrets
import string
import threading
from collections import Counter
from typing import Final

from rh_prefect.emulator.options import Switches

_SEED_BITS: Final = 32
_LETTERS: Final = string.ascii_lowercase


class Chance:
    """Draws what differs from task to task.

    Every draw follows from the seed, from the request, and from how often that request was made before. The same seed
    and the same requests give the same results again, in whatever order different requests arrive.

    Args:
        seed: What all draws follow from; default a random number.
        switches: Whether anything is drawn at all.
    """

    def __init__(self, seed: int | None = None, *, switches: Switches) -> None:
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        self._switches = switches
        self._drawn: Counter[str] = Counter()
        self._lock = threading.Lock()

    def variant(self, request: str, *, seed: object = None) -> str:
        """Draws the variant of a request's result.

        Args:
            request: What is asked for; equal requests have equal texts.
            seed: The request's own seed, which then decides alone.

        Returns:
            Digits, other ones at each call; empty where the emulator is deterministic.
        """
        if self._switches.deterministic:
            return ""
        return str(self._draw(f"variant {request}") if seed is None else _number(f"seed {seed}"))

    def node_seed(self, endpoint: str, below: int) -> int:
        """Draws the seed of a node, as RunningHub does at each start of a saved workflow.

        Args:
            endpoint: What is started.
            below: The first number that is too large.
        """
        return self._draw(f"seed {endpoint}") % below

    def token(self, subject: str, *, length: int = 8) -> str:
        """Draws lower-case letters for the name of a file."""
        drawn = self._draw(f"token {subject}")
        return "".join(_LETTERS[drawn // len(_LETTERS) ** place % len(_LETTERS)] for place in range(length))

    def _draw(self, subject: str) -> int:
        with self._lock:
            self._drawn[subject] += 1
            number = self._drawn[subject]
        return _number(f"{self.seed} {number} {subject}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
