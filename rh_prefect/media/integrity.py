"""Whether a file that was fetched is what its link promised: what stands before a file host serves pages, too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rh_prefect.errors import MediaError
from rh_prefect.media import file_types
from rh_prefect.media.file_types import FileType
from rh_prefect.media.probe import file_type, probe

_NO_TEXT: Final = frozenset(
    found.extension
    for found in vars(file_types).values()
    if isinstance(found, FileType) and found.kind in ("image", "video", "audio")
) | {"jpeg", "tif", "zip", "glb"}
"""Extensions of files that are never a text."""


@dataclass(frozen=True, slots=True)
class DownloadDefect:
    """What is wrong with a file.

    Attributes:
        what: In words, as in "a web page".
        sha256: The hash of what came. Where it may be so at RunningHub itself, and not for what happened on the way,
            the same comes again; empty where that is out of the question.
    """

    what: str
    sha256: str = ""


def flaw_of(path: Path, *, extension: str) -> DownloadDefect | None:
    """Looks at a file that has just arrived.

    Args:
        path: The file.
        extension: The extension of its link, without the dot, in lower case.

    Returns:
        What is wrong with it; None where it is fine, as far as anybody can see.
    """
    is_media = extension in _NO_TEXT
    if not path.stat().st_size:
        return DownloadDefect("an empty file") if is_media else DownloadDefect("an empty file", _hash(path))
    found = file_type(path)
    if found.kind == "text" and is_media:
        return DownloadDefect("a web page or a message")
    try:
        probe(path)
    except MediaError:
        return DownloadDefect(f"a broken {found.extension}", _hash(path))
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
