"""`make mutants` names tests that exist, and changes every module."""

from __future__ import annotations

from benchmarks.mutants import ROOT, mutants_of
from benchmarks.mutation import MODULES, TESTS


def test_its_tests_exist() -> None:
    assert [path for path in TESTS if not (ROOT / path).exists()] == []


def test_every_mutant_has_other_source() -> None:
    for module in MODULES:
        mutants = mutants_of(module)
        assert mutants, module
        assert all(one.source(ROOT) != (ROOT / one.path).read_bytes() for one in mutants)


def test_what_is_recorded_before_an_effect_is_tried_after_it() -> None:
    changed = [one.new for one in mutants_of("works/lifecycle")]
    assert any("note_claim(n)" in new and new.find(".claim(n)") < new.find("note_claim(n)") for new in changed)
