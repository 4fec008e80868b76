"""Private names of Prefect are used in one module, which is tried with the minor version that pyproject.toml allows."""

from __future__ import annotations

import re
from pathlib import Path

import prefect

ROOT = Path(__file__).parents[2]
PRIVATE = re.compile(
    r"(?<!self)\._token\b|prefect\.(flow_engine|task_engine|events\.worker|logging\.handlers|_internal)\b|"
    r"from prefect[.\w]* import .*FlowDecorator|empirical_policy|AwaitingRetry|\bgc\.get_objects\("
)


def test_only_one_module_uses_private_names() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rh_prefect").rglob("*.py")
        if PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"rh_prefect/flow_runs/prefect_internals.py"}


def test_the_installed_version_is_one_that_is_allowed() -> None:
    assert prefect.__version__.startswith("3.9.")
