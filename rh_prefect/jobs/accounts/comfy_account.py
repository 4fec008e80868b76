"""An account's machines behind the native proxy: each has its own queue and files, and nobody counts its graphs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rh_prefect.client import Client, NativeSubmit, Upload
from rh_prefect.jobs.accounts.account import Account, Member
from rh_prefect.jobs.accounts.limiter import Limiter
from rh_prefect.jobs.accounts.poller import Poller
from rh_prefect.jobs.accounts.uploads import Uploads
from rh_prefect.settings import Settings

GRAPHS_AT_ONCE = 1
"""How many graphs of this process a machine has at a time: nobody has published that it takes more."""

FILES_SECONDS = 600.0
"""For how long a file is taken to be on the machine still: nobody says that it is the same one tomorrow."""


def is_native(endpoint: str) -> bool:
    """Tells whether an order goes to ComfyUI's own API.

    Args:
        endpoint: The order's.
    """
    return endpoint in get_args(NativeSubmit)


class Machine(Account):
    """What the graphs on one machine of an account share in this process."""

    def __init__(self, client: Client, endpoint: str, *, settings: Settings) -> None:
        """Opens the machine; nothing is asked before its first graph.

        Args:
            client: The account's.
            endpoint: One of `NativeSubmit`.
            settings: As of `Account`.
        """
        super().__init__(client, settings=settings)
        self._comfy = client.comfy if endpoint == "/proxy" else client.comfy_plus
        # The account's own count of its tasks says nothing of these.
        self.slots = Limiter(self._ask_for_one, clock=time.monotonic)
        self.poller = Poller(client.query, clock=time.monotonic, shortest=settings.poll_seconds)
        self._uploads = Uploads(
            self._upload, folder=settings.state_dir / "inputs", clock=time.monotonic, lifetime=FILES_SECONDS
        )

    async def _ask_for_one(self) -> tuple[int | None, int]:
        return GRAPHS_AT_ONCE, self.slots.held

    async def _upload(self, path: Path, *, name: str, mime: str) -> Upload:
        file = await self._comfy.upload(path, name=name, mime=mime)
        return Upload(url="", file_name="/".join(filter(None, (file.subfolder, file.name))), size=0, kind=file.kind)


def at_machine(member: Member, endpoint: str) -> Member:
    """The same account, where its graphs run.

    Args:
        member: The account.
        endpoint: One of `NativeSubmit`.
    """
    machines = member.account.machines
    if endpoint not in machines:
        machines[endpoint] = Machine(member.client, endpoint, settings=member.account.settings)
    return replace(member, account=machines[endpoint])
