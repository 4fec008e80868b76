"""`rh-prefect models refresh`: takes newer models from a registry file, for this user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rh_prefect.errors import InputError


def refresh(
    file: Annotated[Path | None, Parameter(help="The registry file.")] = None,
    *,
    reset: Annotated[bool, Parameter(help="Go back to the package's own models.", negative=())] = False,
) -> None:
    """Take newer models from a registry file, for this user, and show what changed.

    Args:
        file: The registry file.
        reset: Go back to the package's own models.
    """
    from rh_prefect.catalog import refresh as own
    from rh_prefect.catalog.registry import user_file

    if (file is None) is not reset:
        raise InputError("models refresh: give a registry file, or `--reset`; one of them.")
    if file is None:
        print("back to the package's own models" if own.reset() else "the package's own models are in use already")
        return
    lines = own.refresh(file)
    print("\n".join(lines) or "no model has changed")
    print(f"{_count(lines)}; from now on {user_file()} is used (`rh-prefect models refresh --reset` goes back)")


def _count(lines: list[str]) -> str:
    words = {"+": "new", "-": "gone", "~": "changed"}
    return ", ".join(f"{sum(line.startswith(sign) for line in lines)} {word}" for sign, word in words.items())
