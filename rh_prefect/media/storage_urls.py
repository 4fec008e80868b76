"""URLs of storage locations and links: the protocol, the local path, and the form without secrets."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.registry import available_protocols, registry

from rh_prefect.errors import ConfigError, MediaError
from rh_prefect.redaction import bare

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CHAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)::(?=\S*://)")
"""The start of a chain of locations, as in `simplecache::ftp://host/file`."""

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
"""A user name and password in a URL."""

_BROKEN_USER = re.compile(r"(?<=://)(?![^/\s@]*:\d{1,5}(?:[/?#]|$))[^/\s:@]*:[^\s@]*/[^\s]*@")
"""A user name and a password with a slash; such a URL cannot be opened, because its port is not a number."""

_HOST = r"(?:localhost|[^/\s:@]*\.[^/\s:@]*|\[[^\]\s]*\])"
_CREDENTIALS = re.compile(rf"(?<=://)(?:(?!{_HOST}:\d{{1,5}}(?:[/?#]|$))[^/\s:@]*:\S*@|[^/?#\s]*@)")
"""A possible user name and password in a string, up to the last `@`, so that no part of a password remains."""

_SAME = {"s3a": "s3", "local": "file", "gcs": "gs", "az": "abfs", "abfss": "abfs"}

_READ_ONLY = {"http", "https", "data", "github", "zip", "tar"}

_KEYS_IN_OPTIONS = {"s3", "gs", "abfs", "memory"}
"""Protocols whose URLs begin with a bucket, and never contain a user and a password."""

_REMEMBERING = {"s3", "gs", "abfs"}
"""Protocols whose library caches listings, and therefore would miss files from other processes."""

WITHOUT_THREADS = {"ftp"}
"""Protocols whose library uses one connection in several threads, and caches listings: concurrent outputs would be lost
or mixed up.
"""

_PARAMETER = re.compile(r"([?&;#])([^=&;#?\s\"'<>]+)=([^&;#\s\"'<>]+)")

_SECRET = re.compile(r"(?i)(?:sig|signature|token|secret|password|passwd|credentials?|key)$")
"""Endings of the names of URL parameters whose values give access."""

_ENVIRONMENT = ("AWS_", "GOOGLE_", "AZURE_", "FSSPEC_")
"""Prefixes of environment variables that fsspec's libraries read when they open a file system."""

_PROCESS_KEY = os.urandom(32)


def protocol_of(url: str) -> str:
    """Returns fsspec's canonical protocol name for a URL; "file" for a path.

    For a chain, as in `simplecache::ftp://host/file`, the result is the protocol of the first part.
    """
    found = _SCHEME.match(url) or _CHAIN.match(url)
    protocol = found[1].lower() if found else "file"
    return _SAME.get(protocol, protocol)


def split_url(url: str, *, to_request: bool = False) -> SplitResult:
    """Divides a URL into its parts; raises a `MediaError` if it, or for a request its port, is not valid."""
    try:
        parts = urlsplit(url)
        if to_request:
            parts.port  # noqa: B018  # raises if it is not a number
        return parts
    except ValueError:
        raise MediaError(
            f"{shown_url(url).partition('?')[0]} is not a valid link. What to do: correct the link."
        ) from None


def is_web_link(url: str) -> bool:
    """Returns whether a URL is an http(s) link; `::` in a link belongs to the address, as in `http://[::1]/`."""
    return url.lower().startswith(("http://", "https://"))


def protocols_of(url: str) -> list[str]:
    """Returns the protocols of a URL's parts, outermost first; a chain has several."""
    if is_web_link(url) or is_local(url):
        return [protocol_of(url)]
    # fsspec takes a bare word for a protocol, as the first link of `zip::http://host/a.zip`.
    return [protocol_of(link if "://" in link else f"{link}://") for link in url.split("::")]


def open_link(url: str) -> str | None:
    """Returns a link for browsers that needs no signature; None for a file in a storage other than local folders."""
    if is_web_link(url):
        return url
    return Path(local_path(url)).as_uri() if is_local(url) else None


def signed_link(fs: AbstractFileSystem, path: str, seconds: int) -> str | None:
    """Returns a link to a file that expires; None if the storage cannot sign links."""
    try:
        return str(fs.sign(path, expiration=seconds))
    except NotImplementedError:
        return None


def is_local(url: str) -> bool:
    """Returns whether a URL is a path on this machine, with or without `file://`."""
    return protocol_of(url) == "file"


def is_relative(url: str) -> bool:
    """Returns whether a URL is a path relative to the working folder."""
    return is_local(url) and not Path(_path_of(url)).expanduser().is_absolute()


def local_path(url: str) -> str:
    """Returns the absolute path of a local file or folder; `~` is the home folder."""
    found, path = _SCHEME.match(url), _path_of(url)
    # Browsers and pathlib write file:// with escapes, fsspec without: what exists decides.
    if found and "%" in path and not Path(path).exists():
        path = unquote(path)
    # Not resolved: a link to a folder is the name that its owner uses.
    return Path(os.path.abspath(Path(path).expanduser())).as_posix()  # noqa: PTH100


def _path_of(url: str) -> str:
    found = _SCHEME.match(url)
    return url[found.end() :] if found else url


def without_user(url: str) -> str:
    """Returns a URL without user name and password, in each part of a chain."""
    url = _BROKEN_USER.sub("", url)
    # Azure writes container@account, which is not a user name.
    return _USER.sub(lambda user: "" if ":" in user[0] or protocol_of(url) != "abfs" else user[0], url)


def has_password(url: str) -> bool:
    """Returns whether a URL contains a password before the `@` of its host."""
    return any(":" in found[0] for pattern in (_USER, _BROKEN_USER) for found in pattern.finditer(url))


def has_signature(url: str) -> bool:
    """Returns whether a URL has a signature or a token as a parameter, as in Azure's `?sig=…`."""
    query = url.partition("?")[2] if "://" in url else ""
    return any(_SECRET.search(unquote(pair.partition("=")[0])) for pair in re.split("[&#?]", query))


def shown_url(url: str) -> str:
    """Returns the URL for messages without user and password; if they cannot be identified, their part is masked.

    Values of parameters that give access are masked; http(s) links in a chain are shown without parameters.
    """
    masked = _CREDENTIALS.sub("***@", url)
    text = without_user(url) if masked == _USER.sub("***@", url) else masked
    if len(protocols_of(url)) > 1:
        text = "::".join(bare(link) if is_web_link(link) else link for link in text.split("::"))
    return _masked_parameters(text)


def masked_url(text: str) -> str:
    """Returns a URL or another string with `***` for user names, passwords and parameters that give access."""
    return _masked_parameters(_CREDENTIALS.sub("***@", text))


def _masked_parameters(text: str) -> str:
    def mask(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}=***" if _SECRET.search(unquote(found[2])) else found[0]

    return _PARAMETER.sub(mask, text)


def locate(url: str) -> str:
    """Returns a store's absolute path, or its URL without a final slash.

    Raises a `ConfigError` if the location is read-only, or unknown to fsspec.
    """
    refuse_signature(url)
    protocol, shown = protocol_of(url), masked_url(url).partition("?")[0]
    has_bad_scheme = protocol == "file" and "://" in url and not _SCHEME.match(url)
    if not url.strip() or "::" in url or has_bad_scheme:
        raise ConfigError(
            f"{shown!r} is not a storage URL. What to do: give a folder or an fsspec URL, as in s3://bucket."
        )
    if protocol == "file":
        _refuse_missing_slash(url)
        return local_path(url)
    if protocol in _READ_ONLY:
        raise ConfigError(
            f"Files cannot be stored at {shown}: {protocol} is read-only. What to do: use a folder or s3://."
        )
    # A driver that was registered as a class is not among the protocols that fsspec knows by name.
    if protocol not in available_protocols() and protocol not in registry:
        raise ConfigError(f"Unknown protocol {protocol}:// in {shown}. What to do: check the spelling of the protocol.")
    if protocol in _KEYS_IN_OPTIONS and has_password(url):
        raise ConfigError(
            f"{shown} contains a key or a password, which {protocol}:// does not accept in a URL. What to "
            "do: set key and password as storage options, in RH_STORAGE_OPTIONS or in a MediaStorage block."
        )
    path = url.partition("://")[2]
    if "//" in path.strip("/"):
        raise ConfigError(
            f"{shown} has an empty folder name, in which some storages do not find files. What to do: "
            "write single slashes between folders, as in s3://bucket/prefix."
        )
    path = path.rstrip("/")
    if (not path and protocol != "memory") or (path.startswith("/") and protocol in _REMEMBERING):
        raise ConfigError(f"{shown!r} contains no bucket. What to do: add a bucket, as in {protocol}://bucket/prefix.")
    return f"{protocol}://{path}"


def _refuse_missing_slash(url: str) -> None:
    """Raises an error for a folder such as `s3:/bucket`: most likely a bucket is meant."""
    name, colon, _ = url.partition(":")
    is_scheme = colon and _SCHEME.fullmatch(f"{name}://") is not None and not _SCHEME.match(url)
    if is_scheme and protocol_of(f"{name}://") in available_protocols():
        shown = masked_url(url).partition("?")[0]
        raise ConfigError(
            f"{shown!r} is read as a local folder, because // is missing after {name}:. What to do: write "
            f"{name}://… for the storage, or ./{name}:… for a folder of this name."
        )


def refuse_signature(url: str) -> None:
    """Raises a `ConfigError` if the URL of a storage contains a signature, since such URLs are shown and recorded."""
    if has_signature(url):
        raise ConfigError(
            f"{masked_url(url).partition('?')[0]} has a signature or a token after its question mark, but the URL of "
            "a storage is shown and recorded. What to do: remove this value from the URL, and set it as a storage "
            "option, such as sas_token for abfs://, in RH_STORAGE_OPTIONS or in a MediaStorage block."
        )


def open_filesystem(url: str, options: Mapping[str, object], **more: object) -> tuple[AbstractFileSystem, str]:
    """Returns fsspec's file system for a URL, with storage options, and the path of the URL in it."""
    protocol, config = protocol_of(url), options.get("config_kwargs") or {}
    found = {**options, **more}
    if protocol in _REMEMBERING:
        found = {"use_listings_cache": False, **found}
    if protocol == "s3" and isinstance(config, Mapping):  # many services refuse links with botocore's default signature
        found["config_kwargs"] = {"signature_version": "s3v4", **config}
    fs, path = url_to_fs(url, **found)
    return fs, str(path)


def identity_of(where: str, options: Mapping[str, object]) -> str:
    """Returns a value without secrets that identifies a location, its options and their environment in this process.

    An object among the options is equal only to itself.
    """
    around = sorted((key, value) for key, value in os.environ.items() if key.startswith(_ENVIRONMENT))
    text = repr((where, sorted(options.items()), around))
    # With a key of this process, since a plain hash of a short password can be guessed.
    return hashlib.blake2b(text.encode(), key=_PROCESS_KEY, digest_size=16).hexdigest()


_SCHEMES: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (frozenset(needed.split()), frozenset(others.split()))
    for needed, others in (
        # AWS, signature version 4
        (
            "X-Amz-Signature X-Amz-Credential",
            "X-Amz-Algorithm X-Amz-Date X-Amz-Expires X-Amz-SignedHeaders X-Amz-Security-Token",
        ),
        # AWS, signature version 2
        ("Signature AWSAccessKeyId Expires", "x-amz-security-token"),
        # Google, version 4
        (
            "X-Goog-Signature X-Goog-Credential",
            "X-Goog-Algorithm X-Goog-Date X-Goog-Expires X-Goog-SignedHeaders",
        ),
        # Google, version 2
        ("Signature GoogleAccessId Expires", ""),
        # Azure, shared access signature
        ("sig sv", "ss srt sr sp se st spr sip si sdd ses skoid sktid skt ske sks skv saoid suoid scid"),
        # Aliyun OSS, version 1
        ("Signature OSSAccessKeyId Expires", "security-token"),
        # Aliyun OSS, version 4
        (
            "x-oss-signature x-oss-credential",
            "x-oss-signature-version x-oss-date x-oss-expires x-oss-security-token x-oss-additional-headers",
        ),
        # Tencent COS
        (
            "q-signature q-ak",
            "q-sign-algorithm q-sign-time q-key-time q-header-list q-url-param-list x-cos-security-token",
        ),
        # CloudFront
        ("Signature Key-Pair-Id", "Expires Policy Hash-Algorithm"),
    )
)
"""For each way of signing a link: the parameters that such a link always has, and those that it may have."""


def unsigned(link: str) -> str | None:
    """Returns a link without its signature; None if the link is not presigned.

    Other parameters are kept: `token=`, `x-oss-process=` or `versionId=` may identify the file.
    """
    head, mark, query = link.partition("?")
    query, hash_mark, fragment = query.partition("#")
    if not mark or not query:
        return None
    pairs = [(pair, unquote(pair.partition("=")[0])) for pair in query.split("&")]
    names = {name for _, name in pairs}
    drop: set[str] = set().union(*(needed | others for needed, others in _SCHEMES if needed <= names))
    if not drop:
        return None
    rest = [pair for pair, name in pairs if name not in drop]
    return head + ("?" + "&".join(rest) if rest else "") + hash_mark + fragment
