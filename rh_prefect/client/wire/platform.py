"""The account's keys and the public model library (api.md 3.22)."""

from __future__ import annotations

from decimal import Decimal

from rh_prefect.client.parsing import amount, count, first_text, flag, rows, table, text
from rh_prefect.client.redaction import MASK
from rh_prefect.client.wire.value import Page, Value


class ApiKey(Value):
    """One key of the account.

    Attributes:
        name: What the account's owner called it.
        masked: The key with its middle masked.
        enabled: Whether it works.
        quota_limit: What it may spend; None where there is no limit.
        quota_used: What it has spent.
        expires_at: When it ends, in RunningHub's words.
        created_at: When it was made, in RunningHub's words.
    """

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
    """One model of the public library.

    Attributes:
        resource_id: Its id.
        name: Its title.
        kind: UNET, CHECKPOINT, LORA or GGUF.
        node_model_name: What a loader node takes as the model's name.
        description: The owner's words.
        owner: The owner's name.
        tags: Its tags.
        versions: Its versions.
        cover: A picture.
    """

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
    """Reads the list of keys; one that was sent in the clear is masked here."""
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
