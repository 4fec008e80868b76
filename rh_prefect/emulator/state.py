"""Everything that one emulator knows, in one value that the routes are given."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from rh_prefect.emulator.books import Books
from rh_prefect.emulator.clock import Clock
from rh_prefect.emulator.durations import Durations
from rh_prefect.emulator.faults import Faults
from rh_prefect.emulator.files import Shelf
from rh_prefect.emulator.gate import Gate
from rh_prefect.emulator.keys import KeyRing
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.workshop import Workshop


@dataclass(slots=True)
class State:
    """What the routes work on.

    Attributes:
        clock: The time.
        keys: Who may ask.
        tasks: What was accepted.
        books: What happened.
        faults: What goes wrong.
        gate: Where held answers wait.
        shelf: The files.
        workshop: Who makes results.
        durations: How long tasks take.
        moderated: Words that the content check refuses.
        lock: Guards tasks, wallets and books.
    """

    clock: Clock
    keys: KeyRing
    tasks: Tasks
    books: Books
    faults: Faults
    gate: Gate
    shelf: Shelf
    workshop: Workshop
    durations: Durations
    moderated: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
