"""Each assumption of the emulator: its evidence, and what a client sees when it is turned to another answer."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

from rh_prefect.emulator import DEFAULT, Assumptions, assumptions
from tests.emulator.conftest import Emulate
from tests.emulator.flips import ends, files, graphs, models, refusals, tasks
from tests.emulator.flips.flip import Flip

FAMILIES = (refusals, models, tasks, files, graphs, ends)
FLIPS: dict[str, Flip] = {name: flip for family in FAMILIES for name, flip in family.FLIPS.items()}
NAMES = [field.name for field in fields(Assumptions)]


def test_every_field_has_a_flip() -> None:
    assert sorted(FLIPS) == sorted(NAMES)
    assert len(FLIPS) == sum(len(family.FLIPS) for family in FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_another_answer_is_seen_over_http(emulate: Emulate, name: str) -> None:
    flip = FLIPS[name]
    assert flip.value != getattr(DEFAULT, name)
    seen = [flip.probe(emulate(**flip.options, assumptions=known)) for known in (flip.present, flip.flipped)]
    assert tuple(seen) == flip.seen


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
        DEFAULT.refusal_status = 400  # type: ignore[misc]
    assert not [name for name in vars(assumptions) if name.isupper() and name != "DEFAULT"]
