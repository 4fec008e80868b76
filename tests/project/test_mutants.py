"""`make mutants` names modules and tests that exist."""

from __future__ import annotations

from pathlib import Path

from benchmarks.mutation import QUICK, WIDE

ROOT = Path(__file__).parents[2]


def test_its_modules_and_tests_exist() -> None:
    modules = {f"rh_prefect/jobs/{module}.py" for module in QUICK}
    tests = {f"tests/{name}" for names in QUICK.values() for name in names}
    assert [path for path in sorted({*modules, *tests, *WIDE}) if not (ROOT / path).exists()] == []
