"""Naming templates for stored files, and the rules for valid names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from itertools import pairwise
from string import Formatter

from rh_prefect.errors import ConfigError, InputError

DEFAULT_TEMPLATE = "{flow}/{run}/{label}-{key}-{index}.{ext}"
"""One folder for each run; the key tells jobs with equal labels apart, and the index tells the files of a job apart."""

FIELDS = ("run", "flow", "label", "model", "key", "task", "index", "ext")
"""The fields of a template."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|{}]+')
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,16}")
_INDEX_FORM = re.compile(r"(0[1-9]d)?")
_LONGEST = 60
_HASH = 10


def check_template(template: str) -> str:
    """Raises a `ConfigError` if a template could give two files the same name, or has an unknown field."""
    if flaw := _flaw_of(template):
        raise ConfigError(
            f"The naming template {template!r} {flaw} What to do: correct the template. The fields are "
            f"{', '.join(FIELDS)}; the default template is {DEFAULT_TEMPLATE!r}."
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
        return "could give two files the same name: a template needs {index}, and {task} or both {run} and {key}."
    try:
        check_name(fill(template, dict.fromkeys(FIELDS, "x") | {"index": 1}))
    except InputError as error:
        return f"gives no usable names: {error}"
    return ""


def fill(template: str, fields: dict[str, str | int]) -> str:
    """Returns the name from a template; fields are sanitised first, so that they add no folder."""
    return template.format_map({key: safe(v) if isinstance(v, str) else v for key, v in fields.items()})


def safe(text: str) -> str:
    """Converts a string to part of a file name: keeps letters of all scripts; replaces invalid characters with dashes.

    If the string is changed or cut, the name ends with the string's hash, so that two strings never get the same name.
    """
    clean = _UNSAFE.sub("-", text).strip(" .-")
    # Bytes, not characters: a file name may have 255 bytes, and a label may be Chinese.
    if clean == text and len(text.encode()) <= _LONGEST:
        return text or "x"
    cut = clean.encode()[: _LONGEST - _HASH - 1].decode(errors="ignore").strip(" .-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{cut or 'x'}-{digest}"


def extension_of(text: str) -> str:
    """Returns a string as a file extension without a dot; `bin` if the string is not valid."""
    extension = text.lstrip(".")
    return extension if _EXTENSION.fullmatch(extension) else "bin"


def check_name(name: str) -> str:
    """Raises an `InputError` for a name outside of the store, or a name that some file system does not allow."""
    parts = name.split("/")
    # fsspec takes `::` in an address for a chain of locations, so that the file could not be read.
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]|::", name):
        raise InputError(
            f"{name!r} is not a valid file name. What to do: use a relative path with forward slashes and without ::, "
            "as in shots/1.mp4."
        )
    return name


def wrong_part(text: str) -> str:
    """Returns a clause that says why a string cannot be part of a file name, or an empty string if it can."""
    if "/" in text or "\\" in text or text in ("", ".", ".."):
        return "it must be one part of a name, without / or .."
    if "::" in text:
        return "it must be one part of a name, without ::"
    if not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        return ""
    slug = "-".join(re.findall(r"\w+", text))[:_LONGEST]
    return f"it must be one part of a name, without control characters{f', such as {slug}' if slug else ''}"


def folded(name: str) -> str:
    """Returns a form that is equal for names that differ only in case or Unicode form, which macOS ignores."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
