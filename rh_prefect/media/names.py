"""Naming templates for stored files, and the rules for valid names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from itertools import pairwise
from string import Formatter

from rh_prefect.errors import ConfigError, InputError

DEFAULT_TEMPLATE = "{flow}/{run}/{label}-{key}-{index}.{ext}"
"""One folder a run; the job's key tells equal labels apart, the index a job's several files."""

FIELDS = ("run", "flow", "label", "model", "key", "task", "index", "ext")
"""What a template may name."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|{}]+')
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,16}")
_INDEX_FORM = re.compile(r"(0[1-9]d)?")
_LONGEST = 60
_HASH = 10


def check_template(template: str) -> str:
    """Raises a `ConfigError` for a template under which two files could get the same name, or with an unknown field."""
    if flaw := _flaw_of(template):
        raise ConfigError(
            f"The naming template {template!r} {flaw} Fields are {', '.join(FIELDS)}; "
            f"the default is {DEFAULT_TEMPLATE!r}."
        )
    return template


def _flaw_of(template: str) -> str:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return f"cannot be read: {error}."
    used = {field for _, field, _, _ in parts if field is not None}
    if unknown := sorted(used - set(FIELDS)):
        return f"has the unknown field {unknown[0]!r}."
    for _, field, form, conversion in parts:
        if conversion or not _INDEX_FORM.fullmatch(form or "") or (form and field != "index"):
            return (
                f"formats the field {field!r}, which could give two files the same name. "
                "Only {index:01d} to {index:09d} are allowed."
            )
    if any(not after[0] and "index" in (before[1], after[1]) for before, after in pairwise(parts)):
        return "could give two files the same name: put a character between {index} and the adjacent field."
    if "index" not in used or not ("task" in used or {"run", "key"} <= used):
        return "could give two files the same name: it needs {index}, and {task} or both {run} and {key}."
    try:
        check_name(fill(template, dict.fromkeys(FIELDS, "x") | {"index": 1}))
    except InputError as error:
        return f"gives no usable names: {error}"
    return ""


def fill(template: str, fields: dict[str, str | int]) -> str:
    """Returns the name from a template; each field is sanitised first, so that it adds no folder."""
    return template.format_map({key: safe(v) if isinstance(v, str) else v for key, v in fields.items()})


def safe(text: str) -> str:
    """Sanitises a text for a file name: any script is kept, and invalid characters become a dash.

    A text that was changed or cut ends with a hash of the whole, so that two texts never become one name.
    """
    clean = _UNSAFE.sub("-", text).strip(" .-")
    # Bytes, not characters: a file name may have 255 bytes, and a label may be Chinese.
    if clean == text and len(text.encode()) <= _LONGEST:
        return text or "x"
    cut = clean.encode()[: _LONGEST - _HASH - 1].decode(errors="ignore").strip(" .-")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{cut or 'x'}-{digest}"


def extension_of(text: str) -> str:
    """The text as a file extension without its dot; `bin` if it is not valid."""
    extension = text.lstrip(".")
    return extension if _EXTENSION.fullmatch(extension) else "bin"


def check_name(name: str) -> str:
    """Raises an `InputError` for a name outside the store, or one that some file system cannot hold."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", name):
        raise InputError(
            f"{name!r} is not a valid file name. What to do: use a relative path with forward slashes, as in "
            "shots/1.mp4."
        )
    return name


def wrong_part(text: str) -> str:
    """Returns a clause which says that a text cannot be one part of a file's name, and offers one; empty if it can."""
    if "/" in text or "\\" in text or text in ("", ".", ".."):
        return "it must be one part of a name, without / and .."
    if not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        return ""
    slug = "-".join(re.findall(r"\w+", text))[:_LONGEST]
    return f"it must be one part of a name, without control characters{f', such as {slug}' if slug else ''}"


def folded(name: str) -> str:
    """Returns the form in which a store that ignores case or Unicode forms, as on macOS or Windows, compares names."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
