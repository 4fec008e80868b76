"""Registered media of Seedance and SparkVideo, and the groups that they are kept in (api.md 3.24)."""

from __future__ import annotations

from typing import Final, Literal

from rh_prefect.client.parsing import count, first_text, rows, table
from rh_prefect.client.wire.value import Page, Value

AssetKind = Literal["Image", "Video", "Audio"]

# What official code tolerates; which of them the service really uses is not confirmed.
_READY: Final = frozenset({"ACTIVE", "SUCCESS", "SUCCEEDED", "COMPLETED", "DONE", "READY", "AVAILABLE"})
_FAILED: Final = frozenset({"FAILED", "ERROR", "CANCEL", "CANCELED", "CANCELLED"})


class Asset(Value):
    """A registered file. What an answer does not tell is empty.

    Attributes:
        asset_id: Its id.
        status: RunningHub's word for how far it is; `state` says what that means.
        kind: Image, Video or Audio.
        name: Its name.
        group_id: The group that it is in.
        preview_url: A picture of it.
    """

    asset_id: str
    status: str = ""
    kind: str = ""
    name: str = ""
    group_id: str = ""
    preview_url: str = ""

    @property
    def uri(self) -> str:
        """What a model takes in place of a link to a file."""
        return f"asset://{self.asset_id}"

    @property
    def state(self) -> Literal["ready", "failed", "pending"]:
        """Whether it can be used; a status that nobody documented is taken as pending."""
        if self.status.upper() in _READY:
            return "ready"
        return "failed" if self.status.upper() in _FAILED else "pending"


class AssetGroup(Value):
    """A group of assets. What an answer does not tell is empty."""

    group_id: str
    name: str = ""
    description: str = ""
    assets: int | None = None


class AssetPage(Page[Asset]):
    """A page of assets."""


class GroupPage(Page[AssetGroup]):
    """A page of groups."""


def read_asset(data: dict[str, object], *, known: Asset | None = None) -> Asset | None:
    """Reads an asset.

    Args:
        data: The answer; most endpoints tell only a part.
        known: What is known without it.

    Returns:
        The asset, or None where there is no id.
    """
    base = known or Asset(asset_id="")
    asset = Asset(
        asset_id=first_text(data, "assetId", "id") or base.asset_id,
        status=first_text(data, "status") or base.status,
        kind=first_text(data, "assetType", "type") or base.kind,
        name=first_text(data, "name") or base.name,
        group_id=first_text(data, "groupId") or base.group_id,
        preview_url=first_text(data, "previewUrl") or base.preview_url,
    )
    return asset if asset.asset_id else None


def read_group(data: dict[str, object], *, known: AssetGroup | None = None) -> AssetGroup | None:
    """Reads a group; see `read_asset`."""
    base = known or AssetGroup(group_id="")
    group = AssetGroup(
        group_id=first_text(data, "groupId", "id") or base.group_id,
        name=first_text(data, "name") or base.name,
        description=first_text(data, "description") or base.description,
        assets=count(data.get("assetCount")),
    )
    return group if group.group_id else None


def read_asset_page(data: dict[str, object], *, number: int, size: int) -> Page[Asset]:
    """Reads a page of assets."""
    items = (read_asset(table(row)) for row in rows(data.get("items")))
    return AssetPage(items=tuple(item for item in items if item), **_place(data, number=number, size=size))


def read_group_page(data: dict[str, object], *, number: int, size: int) -> Page[AssetGroup]:
    """Reads a page of groups."""
    items = (read_group(table(row)) for row in rows(data.get("items")))
    return GroupPage(items=tuple(item for item in items if item), **_place(data, number=number, size=size))


def _place(data: dict[str, object], *, number: int, size: int) -> dict[str, int | bool | None]:
    total = count(data.get("totalCount"))
    return {"number": number, "total": total, "has_next": total is not None and total > number * size}
