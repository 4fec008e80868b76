"""`rh-prefect models refresh`: takes newer models or prices from a public file, for this user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.catalog.user_models import Refreshed

_FORMS = {
    "registry": "the registry of RunningHub's ComfyUI nodes",
    "capabilities": "the capabilities of RunningHub's tools",
    "prices": "RunningHub's price file",
    "catalogue": "rh_prefect's own form",
}


def refresh(
    file: Annotated[str | None, Parameter(help="Path or URL of a public list of models or prices.")] = None,
    *,
    date: Annotated[str | None, Parameter(help="Date of the file (YYYY-MM-DD); default: its `version` field.")] = None,
    reset: Annotated[bool, Parameter(help="Restore the package's models.", negative=())] = False,
) -> None:
    """Update this user's models or prices from a public file, and show what changed."""
    from rh_prefect.catalog import user_models
    from rh_prefect.catalog.registry import user_file

    if (file is None) is not reset:
        raise InputError("models refresh: give a file or URL, or `--reset`; one of them.")
    if file is None:
        there = user_models.reset()
        print("back to the package's own models" if there else "the package's own models are in use already")
        return
    done = user_models.refresh(file, date=date)
    print("\n".join(_report(done)))
    print(done.changes)
    if user_file().exists():
        print(f"{user_file()} is used from now on; `rh-prefect models refresh --reset` goes back.")


def _report(done: Refreshed) -> list[str]:
    from_when = f"of {done.date}" if done.date else "without a date"
    lines = [f"{_FORMS[done.form]}, {from_when}: {done.entries} entries"]
    if done.is_older:
        lines.append("It is older than the models in use: it adds what they lack, and changes nothing else.")
    elif not done.date and done.form != "prices":
        lines.append("Models that it lacks do not count as gone; `--date YYYY-MM-DD` says when it is from.")
    lines += done.changes.lines()
    if done.flaws:
        lines += ["not used:", *(f"  {flaw}" for flaw in done.flaws)]
    return lines
