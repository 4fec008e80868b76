"""Values from responses about uploads, prices, accounts, keys, the model library and registered assets."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from rh_prefect.client.json_values import (
    Amount,
    Count,
    Flag,
    Number,
    OptionalText,
    Page,
    Text,
    Value,
    amount,
    count,
    first_text,
    rows,
    table,
    text,
    wire,
)
from rh_prefect.redaction import MASK


class Upload(Value):
    """A file that RunningHub stores for a day; models take its `url`, and workflows' loader nodes its `file_name`.

    The legacy upload has no `url`.
    """

    url: Text = wire("download_url", "downloadUrl", "url")
    file_name: Text = wire("fileName", "file_name")
    size: Number = wire("size", default=0)
    kind: Text = wire("type", "fileType")


class QueueStatus(Value):
    """The key's task limit, and its numbers of running and waiting tasks."""

    key_type: Text = wire("apiKeyType", "apiType")
    limit: Count = wire("concurrentLimit", default=None)
    running: Number = wire("runningCount", default=0)
    queued: Number = wire("queuedCount", default=0)


class PricePreview(Value):
    """The price of a request; `free` says whether the call costs nothing."""

    amount: Decimal
    currency: OptionalText
    free: bool


class Account(Value):
    """The balance and other data of the account."""

    coins: Amount = wire("remainCoins", default=None)
    money: Amount = wire("remainMoney", default=None)
    currency: OptionalText = wire("currency", default=None)
    running: Number = wire("currentTaskCounts", default=0)
    key_type: Text = wire("apiType", "apiKeyType")


class Download(Value):
    """A file that was downloaded completely."""

    size: int


def read_price(source: dict[str, object]) -> PricePreview | None:
    """Reads a price preview; returns None if the response has no price.

    For models that are priced by tokens, RunningHub returns 0, which is the price only if the response says that the
    call is free.
    """
    price, free = amount(source.get("estimatedPrice")), source.get("isFreeThisCall") is True
    if not price and not free:
        return None
    return PricePreview(amount=price or Decimal(0), currency=first_text(source, "currency") or None, free=free)


def _masked(key: object) -> str:
    shown = text(key).strip()
    if not shown or "*" in shown:
        return shown
    return f"{shown[:4]}{MASK}{shown[-4:]}" if len(shown) > 12 else MASK


class ApiKey(Value):
    """One key of the account, masked. Times are in RunningHub's format; a `quota_limit` of None means no limit."""

    name: Text = wire("apiKeyName")
    masked: Annotated[str, BeforeValidator(_masked)] = wire("key")
    enabled: Flag = wire("status", default=False)
    quota_limit: Amount = wire("quotaLimit", default=None)
    quota_used: Amount = wire("quotaUsed", default=None)
    expires_at: Text = wire("expireAt")
    created_at: Text = wire("createdAt")


class ResourceVersion(Value):
    """One version of a public model."""

    version_id: Text = wire("id")
    version: Text = wire("version")
    name: Text = wire("versionResourceName")
    base_model: Text = wire("baseModel")
    trigger_words: Text = wire("triggerWords")


class Resource(Value):
    """One model (UNET, CHECKPOINT, LORA or GGUF) of the public library; loader nodes take its `node_model_name`."""

    resource_id: Text = wire("id")
    name: Text = wire("resourceName")
    kind: Text = wire("resourceType")
    node_model_name: Text = wire("nodeModelName")
    description: Text = wire("desc")
    owner: str = ""
    tags: tuple[str, ...] = ()
    versions: tuple[ResourceVersion, ...] = ()
    cover: Text = wire("posterUrl", "thumbnailUrl")


class ResourcePage(Page[Resource]):
    """A page of the model library."""


def read_resource_page(data: dict[str, object], *, number: int) -> Page[Resource]:
    """Reads a page of the model library (`/openapi/v2/resource/list`)."""
    items = [_read_resource(row) for row in rows(data.get("records")) if isinstance(row, dict)]
    return ResourcePage.read(data, number=count(data.get("current")) or number, items=items)


def _read_resource(row: dict[str, object]) -> Resource:
    return Resource.read(
        row,
        owner=_name(row.get("owner")),
        tags=tuple(filter(None, map(_name, rows(row.get("tags"))))),
        versions=[ResourceVersion.read(each) for each in rows(row.get("versions")) if isinstance(each, dict)],
    )


def _name(value: object) -> str:
    return first_text(table(value), "name") or text(value)


AssetKind = Literal["Image", "Video", "Audio"]

# The forms that official code tolerates; which of them the service really uses is not confirmed.
_READY: Final = frozenset({"ACTIVE", "SUCCESS", "SUCCEEDED", "COMPLETED", "DONE", "READY", "AVAILABLE"})
_FAILED: Final = frozenset({"FAILED", "ERROR", "CANCEL", "CANCELED", "CANCELLED"})


class Asset(Value):
    """A registered file; `kind` is Image, Video or Audio. Fields that a response does not contain are empty.

    `status` is the asset's status in RunningHub's words; `state` is what this status means.
    """

    asset_id: Text = wire("assetId", "id")
    status: Text = wire("status")
    kind: Text = wire("assetType", "type")
    name: Text = wire("name")
    group_id: Text = wire("groupId")
    preview_url: Text = wire("previewUrl")

    @property
    def uri(self) -> str:
        """The URI that models accept in place of a link to a file."""
        return f"asset://{self.asset_id}"

    @property
    def state(self) -> Literal["ready", "failed", "pending"]:
        """`ready`, `pending` or `failed`; an undocumented status is `pending`."""
        if self.status.upper() in _READY:
            return "ready"
        return "failed" if self.status.upper() in _FAILED else "pending"


class AssetGroup(Value):
    """A group of assets. Fields that a response does not contain are empty."""

    group_id: Text = wire("groupId", "id")
    name: Text = wire("name")
    description: Text = wire("description")
    assets: Count = wire("assetCount", default=None)


class AssetPage(Page[Asset]):
    """A page of assets."""


class GroupPage(Page[AssetGroup]):
    """A page of asset groups."""
