"""`make mutants` names modules and tests that exist."""

from __future__ import annotations

from pathlib import Path

from benchmarks.mutants import mutants_of
from benchmarks.mutation import QUICK, WIDE

ROOT = Path(__file__).parents[2]


def test_its_modules_and_tests_exist() -> None:
    modules = {f"rh_prefect/{module}.py" for module in QUICK}
    tests = {f"tests/{name}" for names in QUICK.values() for name in names}
    wide = {name for names in WIDE.values() for name in names}
    assert [path for path in sorted({*modules, *tests, *wide}) if not (ROOT / path).exists()] == []


def test_every_module_has_mutants_with_other_source() -> None:
    for module in QUICK:
        mutants = mutants_of(module)
        assert len(mutants) > 20
        assert all(one.source(ROOT) != (ROOT / one.path).read_bytes() for one in mutants)


def test_what_is_recorded_before_an_effect_is_tried_after_it() -> None:
    changed = [one.new for one in mutants_of("works/lifecycle")]
    assert any("note_claim(n)" in new and new.find(".claim(n)") < new.find("note_claim(n)") for new in changed)
