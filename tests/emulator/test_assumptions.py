"""Each assumption of the emulator: its evidence, and what a client sees when it is turned to another answer."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

from rh_prefect.emulator import DEFAULT, Assumptions, assumptions
from tests.emulator.assumption_probes import ends, files, graphs, models, refusals, tasks
from tests.emulator.assumption_probes.probe import AssumptionProbe
from tests.emulator.conftest import Emulate

FAMILIES = (refusals, models, tasks, files, graphs, ends)
PROBES: dict[str, AssumptionProbe] = {name: probe for family in FAMILIES for name, probe in family.PROBES.items()}
NAMES = [field.name for field in fields(Assumptions)]


def test_every_field_has_a_probe() -> None:
    assert sorted(PROBES) == sorted(NAMES)
    assert len(PROBES) == sum(len(family.PROBES) for family in FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_another_answer_is_seen_over_http(emulate: Emulate, name: str) -> None:
    probe = PROBES[name]
    assert probe.value != getattr(DEFAULT, name)
    seen = [probe.probe(emulate(**probe.options, assumptions=known)) for known in (probe.default, probe.changed)]
    assert tuple(seen) == probe.seen


def test_every_field_names_its_evidence() -> None:
    (owner,) = ast.parse(inspect.getsource(Assumptions)).body
    assert isinstance(owner, ast.ClassDef)
    texts = [
        node.value.value for node in owner.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    said = [text for text in texts if isinstance(text, str) and " Evidence: " in " ".join(text.split())]
    assert len(said) == len(NAMES)


def test_the_answers_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULT.refusal_status = 400  # type: ignore[misc]  # the assignment is the test
    assert not [name for name in vars(assumptions) if name.isupper() and name != "DEFAULT"]
