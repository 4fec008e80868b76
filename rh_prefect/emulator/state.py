"""Everything that one emulator knows, in one value that the routes are given."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from rh_prefect.emulator.assets import Assets
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.clock import Clock
from rh_prefect.emulator.comfy.apps import Apps
from rh_prefect.emulator.comfy.library import Workflows
from rh_prefect.emulator.durations import Durations
from rh_prefect.emulator.faults import Faults
from rh_prefect.emulator.files import Shelf
from rh_prefect.emulator.hold import Gate
from rh_prefect.emulator.inputs import Sources
from rh_prefect.emulator.keys import ApiKey, KeyRing
from rh_prefect.emulator.loras import Loras
from rh_prefect.emulator.models import Models
from rh_prefect.emulator.options import Switches
from rh_prefect.emulator.progress import Progress
from rh_prefect.emulator.proxy import Proxy
from rh_prefect.emulator.random_source import Chance
from rh_prefect.emulator.rate_limit import Rate
from rh_prefect.emulator.recorder import Books
from rh_prefect.emulator.render_queue import Workshop
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.webhooks import Webhooks


@dataclass(slots=True)
class State:
    """What the routes work on.

    Attributes:
        url: The API's own address.
        assumptions: What is decided here, for RunningHub has not published it.
        clock: The time.
        keys: Who may ask.
        tasks: What was accepted.
        books: What happened.
        faults: What goes wrong.
        gate: Where held answers wait.
        shelf: The files.
        workshop: Who makes results.
        durations: How long tasks take.
        workflows: The saved workflows.
        apps: The AI apps.
        assets: What was registered for models that know people.
        loras: What was sent for the node RHLoraLoader.
        webhooks: Tells the ends of tasks.
        progress: Shows tasks on their way.
        proxy: What the native proxy was asked.
        switches: What a test may change.
        chance: What models and graphs draw.
        models: The models that can be run.
        moderated: Words that the content check refuses.
        rate: Counts the requests of each key.
        lock: Guards tasks, wallets and books.
    """

    url: str
    assumptions: Assumptions
    clock: Clock
    keys: KeyRing
    tasks: Tasks
    books: Books
    faults: Faults
    gate: Gate
    shelf: Shelf
    workshop: Workshop
    durations: Durations
    workflows: Workflows
    apps: Apps
    assets: Assets
    loras: Loras
    webhooks: Webhooks
    progress: Progress
    proxy: Proxy
    switches: Switches
    chance: Chance
    models: Models
    rate: Rate
    moderated: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def sources(self, key: ApiKey) -> Sources:
        """Says where the files of a key's requests come from."""
        return Sources(self.shelf, self.assets, key.account, self.assumptions)
