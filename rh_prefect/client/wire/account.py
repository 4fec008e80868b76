"""Files, prices, the account and its keys: what the platform's smaller endpoints tell."""

from __future__ import annotations

from decimal import Decimal

from rh_prefect.client.parsing import amount, count, first_text
from rh_prefect.client.wire.value import Value


class Upload(Value):
    """A file that RunningHub holds for a day: `url` for models, `file_name` for loader nodes of workflows.

    The legacy upload gives no `url`.
    """

    url: str
    file_name: str
    size: int
    kind: str


class QueueStatus(Value):
    """How many tasks the key may run, runs, and has waiting."""

    key_type: str
    limit: int | None
    running: int
    queued: int


class PricePreview(Value):
    """What a request would cost; nothing is created."""

    amount: Decimal
    currency: str | None
    free: bool


class Account(Value):
    """What the account holds."""

    coins: Decimal | None
    money: Decimal | None
    currency: str | None
    running: int
    key_type: str


class Download(Value):
    """A file that has been fetched completely."""

    size: int


def read_upload(data: dict[str, object], *, size: int) -> Upload | None:
    """Reads an upload's answer (api.md 3.18 and 3.19); None where it names no file."""
    url, file_name = first_text(data, "download_url", "downloadUrl", "url"), first_text(data, "fileName", "file_name")
    if not url and not file_name:
        return None
    stored = count(data.get("size"))
    kind = first_text(data, "type", "fileType")
    return Upload(url=url, file_name=file_name, size=size if stored is None else stored, kind=kind)


def read_queue_status(data: dict[str, object]) -> QueueStatus:
    """Reads the key's load (api.md 3.22)."""
    return QueueStatus(
        key_type=first_text(data, "apiKeyType", "apiType"),
        limit=count(data.get("concurrentLimit")),
        running=count(data.get("runningCount")) or 0,
        queued=count(data.get("queuedCount")) or 0,
    )


def read_price(source: dict[str, object]) -> PricePreview | None:
    """Reads a price preview (api.md 3.22); None where it gives no price."""
    price, free = amount(source.get("estimatedPrice")), source.get("isFreeThisCall") is True
    if price is None and not free:
        return None
    return PricePreview(amount=price or Decimal(0), currency=first_text(source, "currency") or None, free=free)


def read_account(data: dict[str, object]) -> Account:
    """Reads the account (api.md 3.21)."""
    return Account(
        coins=amount(data.get("remainCoins")),
        money=amount(data.get("remainMoney")),
        currency=first_text(data, "currency") or None,
        running=count(data.get("currentTaskCounts")) or 0,
        key_type=first_text(data, "apiType", "apiKeyType"),
    )
