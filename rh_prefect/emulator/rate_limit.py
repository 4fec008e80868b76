"""How many requests a key may send in a minute, where an emulator is told that there is such a limit."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.clock import Clock

_MINUTE: Final = 60.0


class Rate:
    """Counts the requests of each key; call it from the server's own loop.

    Args:
        clock: Tells the time.
        most: Requests in a minute; 0 for no limit.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._most = most
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, key_name: str) -> None:
        """Counts a request.

        Raises:
            Refused: The key has sent too many in the last minute.
        """
        if not self._most:
            return
        now, times = self._clock.now(), self._times[key_name]
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= self._most:
            raise Refused("1003")
        times.append(now)
