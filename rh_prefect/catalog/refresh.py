"""Takes newer models for one user, without a new version of the package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rh_prefect.catalog import build, registry
from rh_prefect.errors import InputError


def refresh(source: Path) -> list[str]:
    """Makes a registry file this user's own catalogue; processes that start from now on read it.

    Args:
        source: The registry file, newer than what is in use.

    Returns:
        How it differs from what was in use: a line for each model that came (+), went (-) or changed (~).

    Raises:
        InputError: It is no registry, or older than the package's own; what was in use stays in use.
    """
    content = _read(source)
    own = json.loads(registry.SLIM_FILE.read_bytes())
    if registry.is_older(content["version"], own["version"]):
        raise InputError(
            f"{source} is of {content['version']}, and the package has models of {own['version']}. "
            "Nothing was changed. What to do: give a newer file."
        )
    before = in_use()
    target = registry.user_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    part.write_text(build.dumps(content), encoding="utf-8")
    part.replace(target)
    return build.changes(before, content)


def reset() -> bool:
    """Goes back to the package's own models.

    Returns:
        Whether there was anything to go back from.
    """
    target = registry.user_file()
    there = target.exists()
    target.unlink(missing_ok=True)
    return there


def in_use() -> dict[str, Any]:
    """The content of the data file that a process which starts now would read."""
    for file in (registry.user_file(), registry.SLIM_FILE):
        try:
            content: dict[str, Any] = json.loads(file.read_bytes())
            build.decoded(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a user's file that cannot be read is not in use
        return content
    raise InputError(f"The package's own models in {registry.SLIM_FILE} cannot be read. What to do: install it anew.")


def _read(source: Path) -> dict[str, Any]:
    try:
        content = build.slim(json.loads(source.read_bytes()))
        if not build.decoded(content):
            raise InputError("it names no model")
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}. Nothing was changed.") from error
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{source} is no registry of models: {error}. Nothing was changed.") from error
    return content
