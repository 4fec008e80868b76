"""Assets: registered media, which are processed once and then used as `asset://id` in requests."""

from __future__ import annotations

import itertools
import secrets
import string
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeVar

from rh_prefect.emulator.accounts import Account
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.clock import Clock, Timing

AssetType = Literal["Image", "Video", "Audio"]
_LETTERS: Final = string.ascii_lowercase + string.digits

T = TypeVar("T")


@dataclass(slots=True)
class Group:
    """A group of assets."""

    id: str
    name: str
    description: str
    account: str


@dataclass(slots=True)
class Asset:
    """A file that an account has registered, with the state of its processing.

    Attributes:
        id: The part after `asset://`.
        path: The file of the asset; None if the file is not of the asset's type.
        polls: Number of polls so far.
    """

    id: str
    group_id: str
    name: str
    type: AssetType
    url: str
    account: str
    timing: Timing
    path: Path | None
    polls: int = 0


class Assets:
    """All assets and groups of all accounts."""

    def __init__(self, clock: Clock, *, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._groups: dict[str, Group] = {}
        self._assets: dict[str, Asset] = {}

    def create_group(self, account: Account, name: str, description: str) -> Group:
        """Creates a group."""
        with self._lock:
            group = Group(self._new_id("group"), name, description, account.name)
            self._groups[group.id] = group
            return group

    def group(self, account: Account, group_id: object) -> Group | None:
        """Finds a group of the account."""
        group = self._groups.get(str(group_id))
        return group if group and group.account == account.name else None

    def groups(self, account: Account, *, name: str = "") -> list[Group]:
        """Lists the account's groups."""
        return [group for group in self._groups.values() if group.account == account.name and name in group.name]

    def delete_group(self, group: Group) -> None:
        """Deletes a group with all its assets."""
        with self._lock:
            del self._groups[group.id]
            self._assets = {key: asset for key, asset in self._assets.items() if asset.group_id != group.id}

    def create(self, group: Group, *, name: str, kind: AssetType, url: str, path: Path | None) -> Asset:
        """Creates an asset; its processing begins now."""
        with self._lock:
            timing = Timing(self._clock.now(), 0.0, self._assumptions.asset_seconds)
            asset = Asset(self._new_id("asset"), group.id, name, kind, url, group.account, timing, path)
            self._assets[asset.id] = asset
            return asset

    def find(self, account: Account, asset_id: object) -> Asset | None:
        """Finds an asset of the account."""
        asset = self._assets.get(str(asset_id))
        return asset if asset and asset.account == account.name else None

    def of(self, account: Account, *, group_id: str = "", name: str = "", status: str = "") -> list[Asset]:
        """Lists the account's assets."""
        return [
            asset
            for asset in self._assets.values()
            if asset.account == account.name
            and (not group_id or asset.group_id == group_id)
            and name in asset.name
            and (not status or self.status(asset).lower() == status.lower())
        ]

    def delete(self, asset: Asset) -> None:
        """Deletes an asset."""
        self._assets.pop(asset.id, None)

    def poll(self, asset: Asset) -> str:
        """Counts one poll by a client and returns the status."""
        asset.polls += 1
        return self.status(asset)

    def status(self, asset: Asset) -> str:
        """Returns the word for the state of an asset, without counting a poll."""
        stage = self._clock.stage(asset.timing, polls=asset.polls)
        if stage == "DONE" and asset.path is None:
            return self._assumptions.asset_failed
        return self._assumptions.asset_statuses[stage]

    def ready(self, account: Account, asset_id: str) -> Path | None:
        """Returns the file of an asset; None if the asset does not exist or is not ready."""
        asset = self.find(account, asset_id)
        is_active = asset is not None and self.status(asset) == self._assumptions.asset_statuses["DONE"]
        return asset.path if asset and is_active else None

    def _new_id(self, kind: str) -> str:
        # The format of the only published group id: group-20260327004931-dvjbj.
        moment = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y%m%d%H%M%S")
        return f"{kind}-{moment}-{''.join(secrets.choice(_LETTERS) for _ in range(5))}{next(self._numbers)}"


def page(items: Sequence[T], *, number: int, size: int, shown: Callable[[T], object]) -> dict[str, object]:
    """Returns a page of a list in the format of the asset endpoints; page numbers start at 1."""
    part = items[(number - 1) * size : number * size]
    return {"items": [shown(item) for item in part], "totalCount": len(items)}
