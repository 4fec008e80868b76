"""Parses responses about uploads, prices, accounts, keys, the model library and registered assets."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from rh_prefect.client.tolerant_json import Page, Value, amount, count, first_text, flag, rows, table, text
from rh_prefect.redaction import MASK


class Upload(Value):
    """A file that RunningHub holds for a day: `url` for models, `file_name` for loader nodes of workflows.

    The legacy upload gives no `url`.
    """

    url: str
    file_name: str
    size: int
    kind: str


class QueueStatus(Value):
    """The key's task limit, and its numbers of running and waiting tasks."""

    key_type: str
    limit: int | None
    running: int
    queued: int


class PricePreview(Value):
    """The price of a request; nothing is created."""

    amount: Decimal
    currency: str | None
    free: bool


class Account(Value):
    """The balance and other data of the account."""

    coins: Decimal | None
    money: Decimal | None
    currency: str | None
    running: int
    key_type: str


class Download(Value):
    """A file that has been fetched completely."""

    size: int


def read_upload(data: dict[str, object], *, size: int) -> Upload | None:
    """Reads the response to an upload, of the present or the deprecated endpoint; returns None if it names no file."""
    url, file_name = first_text(data, "download_url", "downloadUrl", "url"), first_text(data, "fileName", "file_name")
    if not url and not file_name:
        return None
    stored = count(data.get("size"))
    kind = first_text(data, "type", "fileType")
    return Upload(url=url, file_name=file_name, size=size if stored is None else stored, kind=kind)


def read_queue_status(data: dict[str, object]) -> QueueStatus:
    """Parses the numbers of running and waiting tasks of a key (`/openapi/v2/queue/status`)."""
    return QueueStatus(
        key_type=first_text(data, "apiKeyType", "apiType"),
        limit=count(data.get("concurrentLimit")),
        running=count(data.get("runningCount")) or 0,
        queued=count(data.get("queuedCount")) or 0,
    )


def read_price(source: dict[str, object]) -> PricePreview | None:
    """Reads a price preview; returns None if it has no price.

    Models that are charged by tokens show 0, which is not their price unless the call is said to be free.
    """
    price, free = amount(source.get("estimatedPrice")), source.get("isFreeThisCall") is True
    if not price and not free:
        return None
    return PricePreview(amount=price or Decimal(0), currency=first_text(source, "currency") or None, free=free)


def read_account(data: dict[str, object]) -> Account:
    """Reads the account (`/uc/openapi/accountStatus`)."""
    return Account(
        coins=amount(data.get("remainCoins")),
        money=amount(data.get("remainMoney")),
        currency=first_text(data, "currency") or None,
        running=count(data.get("currentTaskCounts")) or 0,
        key_type=first_text(data, "apiType", "apiKeyType"),
    )


class ApiKey(Value):
    """One key of the account, masked; times are in RunningHub's words, and `quota_limit` is None for no limit."""

    name: str = ""
    masked: str = ""
    enabled: bool = False
    quota_limit: Decimal | None = None
    quota_used: Decimal | None = None
    expires_at: str = ""
    created_at: str = ""


class ResourceVersion(Value):
    """One version of a public model."""

    version_id: str = ""
    version: str = ""
    name: str = ""
    base_model: str = ""
    trigger_words: str = ""


class Resource(Value):
    """One model of the public library, a UNET, CHECKPOINT, LORA or GGUF; loader nodes take its `node_model_name`."""

    resource_id: str = ""
    name: str = ""
    kind: str = ""
    node_model_name: str = ""
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    versions: tuple[ResourceVersion, ...] = ()
    cover: str = ""


class ResourcePage(Page[Resource]):
    """A page of the library."""


def read_api_keys(found: list[dict[str, object]]) -> tuple[ApiKey, ...]:
    """Reads the list of keys; a key that was sent unmasked is masked here."""
    return tuple(
        ApiKey(
            name=first_text(row, "apiKeyName"),
            masked=_masked(first_text(row, "key")),
            enabled=flag(row.get("status")),
            quota_limit=amount(row.get("quotaLimit")),
            quota_used=amount(row.get("quotaUsed")),
            expires_at=first_text(row, "expireAt"),
            created_at=first_text(row, "createdAt"),
        )
        for row in found
    )


def _masked(key: str) -> str:
    if not key or "*" in key:
        return key
    return f"{key[:4]}{MASK}{key[-4:]}" if len(key) > 12 else MASK


def read_resource_page(data: dict[str, object], *, number: int) -> Page[Resource]:
    """Reads a page of the library."""
    return ResourcePage(
        items=tuple(_read_resource(row) for row in rows(data.get("records")) if isinstance(row, dict)),
        number=count(data.get("current")) or number,
        total=count(data.get("total")),
        has_next=flag(data.get("hasNext")),
    )


def _read_resource(row: dict[str, object]) -> Resource:
    tags = (first_text(table(tag), "name") or text(tag) for tag in rows(row.get("tags")))
    return Resource(
        resource_id=first_text(row, "id"),
        name=first_text(row, "resourceName"),
        kind=first_text(row, "resourceType"),
        node_model_name=first_text(row, "nodeModelName"),
        description=first_text(row, "desc"),
        owner=first_text(table(row.get("owner")), "name") or text(row.get("owner")),
        tags=tuple(filter(None, tags)),
        versions=tuple(_read_version(each) for each in rows(row.get("versions")) if isinstance(each, dict)),
        cover=first_text(row, "posterUrl", "thumbnailUrl"),
    )


def _read_version(row: dict[str, object]) -> ResourceVersion:
    return ResourceVersion(
        version_id=first_text(row, "id"),
        version=first_text(row, "version"),
        name=first_text(row, "versionResourceName"),
        base_model=first_text(row, "baseModel"),
        trigger_words=first_text(row, "triggerWords"),
    )


AssetKind = Literal["Image", "Video", "Audio"]

# The forms that official code tolerates; which of them the service really uses is not confirmed.
_READY: Final = frozenset({"ACTIVE", "SUCCESS", "SUCCEEDED", "COMPLETED", "DONE", "READY", "AVAILABLE"})
_FAILED: Final = frozenset({"FAILED", "ERROR", "CANCEL", "CANCELED", "CANCELLED"})


class Asset(Value):
    """A registered file; `kind` is Image, Video or Audio. Fields that a response does not contain are empty.

    `status` is RunningHub's word for how far it is; `state` says what that means.
    """

    asset_id: str
    status: str = ""
    kind: str = ""
    name: str = ""
    group_id: str = ""
    preview_url: str = ""

    @property
    def uri(self) -> str:
        """The URI that a model accepts in place of a link to a file."""
        return f"asset://{self.asset_id}"

    @property
    def state(self) -> Literal["ready", "failed", "pending"]:
        """Whether it can be used; an undocumented status counts as pending."""
        if self.status.upper() in _READY:
            return "ready"
        return "failed" if self.status.upper() in _FAILED else "pending"


class AssetGroup(Value):
    """A group of assets. Fields that a response does not contain are empty."""

    group_id: str
    name: str = ""
    description: str = ""
    assets: int | None = None


class AssetPage(Page[Asset]):
    """A page of assets."""


class GroupPage(Page[AssetGroup]):
    """A page of groups."""


def read_asset(data: dict[str, object], *, known: Asset | None = None) -> Asset | None:
    """Reads an asset and adds the known data, since most responses are partial; returns None without an id."""
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
