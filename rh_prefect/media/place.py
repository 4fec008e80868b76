"""Places by their URL: which kind it is, and where it is on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from fsspec.registry import available_protocols

from rh_prefect.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_SAME = {"s3a": "s3", "local": "file", "gcs": "gs", "az": "abfs", "abfss": "abfs"}

_READ_ONLY = {"http", "https", "data", "github", "zip", "tar"}

_REMEMBERING = {"s3", "gs", "abfs"}
"""Places whose library remembers listings, and so would not see what another process wrote."""


def protocol_of(url: str) -> str:
    """Fsspec's name for the kind of place, one for all its spellings; "file" for a path."""
    found = _SCHEME.match(url)
    protocol = found[1].lower() if found else "file"
    return _SAME.get(protocol, protocol)


def is_local(url: str) -> bool:
    """Whether it is a path on this machine, with or without `file://`."""
    return protocol_of(url) == "file"


def local_path(url: str) -> str:
    """The absolute path of a local file or folder; `~` is the home folder."""
    found = _SCHEME.match(url)
    path = url[found.end() :] if found else url
    # Browsers and pathlib write file:// with escapes, fsspec without: what exists decides.
    if found and "%" in path and not Path(path).exists():
        path = unquote(path)
    # Not resolved: a link to a folder is the name that its owner uses.
    return Path(os.path.abspath(Path(path).expanduser())).as_posix()  # noqa: PTH100


def without_user(url: str) -> str:
    """The URL without a user's name and password."""
    return _USER.sub("", url)


def locate(url: str) -> str:
    """The one spelling of a store's URL: an absolute path, or an fsspec URL without a slash at its end.

    Raises:
        ConfigError: Nothing can be written there, or fsspec does not know such a place.
    """
    if not url.strip() or "::" in url:
        raise ConfigError(f"{url!r} is no place for files. Give a folder or an fsspec URL, as in s3://bucket/prefix.")
    protocol = protocol_of(url)
    if protocol == "file":
        return local_path(url)
    if protocol in _READ_ONLY:
        raise ConfigError(
            f"Files cannot be kept at {without_user(url)}: {protocol} is for reading only. Use a folder or s3://."
        )
    if protocol not in available_protocols():
        raise ConfigError(f"Nothing is known about {protocol}:// in {without_user(url)}. Check its spelling.")
    path = url.partition("://")[2]
    path = path.rstrip("/")
    if not path and protocol != "memory":
        raise ConfigError(f"{url!r} names no bucket. Give one, as in {protocol}://bucket/prefix.")
    return f"{protocol}://{path}"


def read_options(protocol: str, options: Mapping[str, object]) -> dict[str, object]:
    """The storage options with what this package needs of the library behind the place."""
    return {"use_listings_cache": False, **options} if protocol in _REMEMBERING else dict(options)
