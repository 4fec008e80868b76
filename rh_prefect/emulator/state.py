"""The state of one emulator: everything that the routes use, and the options that can change at run time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from typing import Literal

from rh_prefect.emulator.accounts import ApiKey, ApiKeys, RateLimit
from rh_prefect.emulator.assets import Assets
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.broken_responses import HeldResponses
from rh_prefect.emulator.clock import Clock, Durations
from rh_prefect.emulator.comfy.apps import Apps
from rh_prefect.emulator.comfy.workflows import Workflows
from rh_prefect.emulator.faults import Faults
from rh_prefect.emulator.file_store import FileStore, Loras
from rh_prefect.emulator.inputs import Sources
from rh_prefect.emulator.models_and_prices import Models
from rh_prefect.emulator.native_prompts import Proxy
from rh_prefect.emulator.progress import Progress
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.emulator.render_queue import RandomSource, RenderQueue
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.webhooks import Webhooks
from rh_prefect.errors import InputError


@dataclass(slots=True)
class RuntimeOptions:
    """The options that can change while the emulator runs.

    Attributes:
        webhook_spacing: Seconds between the tries of a delivery, by the emulator's clock.
        webhook_timeout: Seconds of real time within which a receiver must respond.
        webhook_data: The type of `eventData` for v2 and model tasks.
        real_people: Whether every picture, video and sound shows a real person: Seedance 2.0 then takes only assets, or
            requires `realPersonMode`.
        deterministic: Whether equal requests give equal results; otherwise only requests with the same seed do.
    """

    webhook_spacing: float
    webhook_timeout: float
    webhook_data: Literal["object", "string"]
    real_people: bool = False
    deterministic: bool = False

    def update(self, **values: object) -> None:
        """Sets options by name.

        Raises:
            InputError: An option does not exist, or a value is of the wrong type.
        """
        unknown = set(values) - {field.name for field in fields(self)}
        if unknown:
            raise InputError(
                f"Unknown option {', '.join(sorted(unknown))}. What to do: use the options in "
                "rh_prefect.emulator.state.RuntimeOptions."
            )
        wrong = [name for name, value in values.items() if not self._fits(name, value)]
        if wrong:
            raise InputError(f"Invalid value of the option {', '.join(wrong)}. What to do: use the type of the option.")
        for name, value in values.items():
            setattr(self, name, value)

    def _fits(self, name: str, value: object) -> bool:
        if name == "webhook_data":
            return value in ("object", "string")
        if isinstance(getattr(self, name), bool):
            return isinstance(value, bool)
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def initial_options(assumptions: Assumptions, *, deterministic: bool) -> RuntimeOptions:
    """Returns the options of a new emulator.

    Args:
        assumptions: The default values.
        deterministic: Whether equal requests give equal results.
    """
    return RuntimeOptions(
        assumptions.webhook_spacing,
        assumptions.webhook_timeout,
        assumptions.webhook_data,
        deterministic=deterministic,
    )


@dataclass(slots=True)
class State:
    """The state of the emulator.

    Attributes:
        url: The address of the API.
        assumptions: The values for behaviour that RunningHub has not published.
        clock: The clock.
        keys: The API keys.
        tasks: The tasks.
        recorder: The recorder.
        faults: The scripted faults.
        held: The held responses.
        file_store: The files.
        render_queue: The queue that renders results.
        durations: The durations of tasks.
        workflows: The saved workflows.
        apps: The AI apps.
        assets: The assets.
        loras: The LoRAs for the node RHLoraLoader.
        webhooks: The webhooks.
        progress: The progress over WebSocket.
        proxy: The prompts of the native proxy.
        options: The runtime options.
        random: The random source.
        models: The models.
        moderated: Words that fail the content check.
        rate_limit: The rate limit of each key.
        lock: The lock of tasks, wallets and records.
    """

    url: str
    assumptions: Assumptions
    clock: Clock
    keys: ApiKeys
    tasks: Tasks
    recorder: Recorder
    faults: Faults
    held: HeldResponses
    file_store: FileStore
    render_queue: RenderQueue
    durations: Durations
    workflows: Workflows
    apps: Apps
    assets: Assets
    loras: Loras
    webhooks: Webhooks
    progress: Progress
    proxy: Proxy
    options: RuntimeOptions
    random: RandomSource
    models: Models
    rate_limit: RateLimit
    moderated: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def sources(self, key: ApiKey) -> Sources:
        """Returns the sources of the files of a key's requests."""
        return Sources(self.file_store, self.assets, key.account, self.assumptions)
