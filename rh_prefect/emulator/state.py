"""The state of one emulator: everything that the routes use, and the options that can change at run time."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict, NonNegativeFloat, ValidationError
from pydantic.dataclasses import dataclass

from rh_prefect.emulator.accounts import ApiKeys, RateLimit
from rh_prefect.emulator.assets import Assets
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.broken_responses import HeldResponses
from rh_prefect.emulator.clock import Clock, Durations
from rh_prefect.emulator.comfy.apps import Apps
from rh_prefect.emulator.comfy.workflows import Workflows
from rh_prefect.emulator.faults import Faults
from rh_prefect.emulator.file_store import FileStore
from rh_prefect.emulator.models_and_prices import Models
from rh_prefect.emulator.native_prompts import Proxy
from rh_prefect.emulator.progress import Progress
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.emulator.render_queue import RandomSource, RenderQueue
from rh_prefect.emulator.tasks import Tasks
from rh_prefect.emulator.webhooks import Webhooks
from rh_prefect.errors import InputError


@dataclass(config=ConfigDict(strict=True, extra="forbid"), slots=True)
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

    webhook_spacing: NonNegativeFloat
    webhook_timeout: NonNegativeFloat
    webhook_data: Literal["object", "string"]
    real_people: bool = False
    deterministic: bool = False

    def update(self, **values: Any) -> None:
        """Sets options by name; raises `InputError` for an unknown option or a value of the wrong type."""
        try:
            checked = asdict(RuntimeOptions(**{**asdict(self), **values}))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise InputError(
                f"Invalid options: {wrong}. What to do: use the options in rh_prefect.emulator.state.RuntimeOptions."
            ) from error
        for name, value in checked.items():
            setattr(self, name, value)


class State:
    """The state of an emulator that its routes use; see `Emulator`, which sets it."""

    url: str  # The address of the API
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
    webhooks: Webhooks
    progress: Progress
    proxy: Proxy
    options: RuntimeOptions
    random: RandomSource
    models: Models
    rate_limit: RateLimit
    moderated: set[str]  # Words that fail the content check
    lock: threading.RLock  # The lock of tasks, wallets and records
