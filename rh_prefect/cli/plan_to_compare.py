"""Finds the plan for the comparison of `rh-prefect plan --compare`: a saved plan, or the plan of a file in git."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect.errors import InputError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan


def earlier_plan(other: str, file: Path, plan: Callable[[Pipeline], Plan]) -> tuple[Mapping[str, Any], str]:
    """Returns the plan for a comparison as JSON data, and its name; `plan` makes the plan of a file from git."""
    if Path(other).is_file():
        return ReviewedPlan.read(other).data, f"the plan {other}"
    with TemporaryDirectory() as folder:
        try:
            archive = _git(file, "archive", "--format=tar", "--", other)
            commit = _git(file, "rev-parse", "--short", f"{other}^{{commit}}").decode().strip()
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
            raise InputError(
                f"plan --compare: {other} is neither a plan file nor a git revision that contains this folder: {said}. "
                "What to do: give a file with the output of `plan --json`, or a revision such as main (run `git fetch` "
                "first)."
            ) from None
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter=_inside)  # noqa: S202, it stays in the folder
        old = Path(folder) / file.name
        if not old.exists():
            return {"steps": [], "price": {"least": 0, "expected": 0, "most": 0}}, f"{other}, which lacks {file.name}"
        done = plan(Pipeline.from_file(old))
    if done.problems:
        listed = "\n".join(str(one).replace(f"{folder}/", f"{other}:") for one in done.problems)
        raise InputError(
            f"plan --compare {other}: its version of {file.name} has problems. Nothing was paid. What to do: compare "
            f"with another revision. The problems are:\n{listed}"
        )
    return done.as_json(), f"{other} ({commit})"


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError:  # a link that leaves the folder
        return None


def _git(file: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", *words], cwd=file.absolute().parent, capture_output=True, check=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise InputError(
            "plan --compare: git is not installed. What to do: install git, or give a file with a plan's JSON."
        ) from None
    return done.stdout
