"""Reads the rules by which a bucket deletes old objects, where the storage service permits this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.urls import protocol_of, read_options, shown_url

_NONE = "NoSuchLifecycleConfiguration"


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """A rule that deletes objects.

    Attributes:
        name: Its id.
        prefix: The prefix of the objects' keys; empty for the whole bucket.
        when: `after 30 days`, or `on 2027-01-01`.
    """

    name: str
    prefix: str
    when: str


def expiry_rules(url: str, options: Mapping[str, object]) -> list[ExpiryRule]:
    """Reads the rules that delete objects at a location: those of its bucket whose prefix covers a part of it.

    Args:
        url: The location. Storages other than S3 have no rules.
        options: fsspec's storage options.

    Raises:
        StoreError: The rules cannot be read; the key may lack the right `s3:GetLifecycleConfiguration`.
    """
    if protocol_of(url) != "s3":
        return []
    fs, root = url_to_fs(url, **read_options("s3", options))
    bucket, _, prefix = str(root).partition("/")
    with as_store_error("read the expiry rules of", shown_url(url), options=options):
        try:
            found = fs.call_s3("get_bucket_lifecycle_configuration", Bucket=bucket)
        except Exception as error:
            if _is_none(error):
                return []
            raise
    covered = f"{prefix}/" if prefix else ""
    rules = (rule for one in found.get("Rules", ()) if one.get("Status") == "Enabled" for rule in _rules(one))
    return [rule for rule in rules if rule.prefix.startswith(covered) or covered.startswith(rule.prefix)]


def _is_none(error: Exception) -> bool:
    """Returns whether the error says that the bucket has no rules."""
    causes = (error, error.__cause__, error.__context__)
    codes = [getattr(one, "response", {}).get("Error", {}).get("Code") for one in causes if one is not None]
    return _NONE in codes or _NONE in str(error)


def _rules(one: Mapping[str, Any]) -> Iterator[ExpiryRule]:
    expiration, chosen = one.get("Expiration") or {}, one.get("Filter") or {}
    both = chosen.get("And") or {}
    if "Tag" in chosen or both.get("Tags"):
        return  # objects of this package have no tags
    prefix = chosen.get("Prefix") or both.get("Prefix") or one.get("Prefix") or ""
    if expiration.get("Days"):
        yield ExpiryRule(one.get("ID", ""), prefix, f"after {expiration['Days']} days")
    elif expiration.get("Date"):
        yield ExpiryRule(one.get("ID", ""), prefix, f"on {expiration['Date']:%Y-%m-%d}")
