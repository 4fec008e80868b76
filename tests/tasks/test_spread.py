"""A model for each kind of output, parameter, rule and price, from its smallest valid input to its file in the storage.

The long suite runs all models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.catalog import Model, models
from tests.support.samples.minimal_calls import run_all, small_emulator


def features(model: Model) -> Iterator[tuple[object, ...]]:
    yield "output", model.output
    yield "price", model.price.unit if model.price else None
    yield from (("rule", rule.kind) for rule in model.rules)
    for param in model.params:
        yield "parameter", param.type, param.multiple, param.key != param.key.strip()


def spread() -> Iterator[Model]:
    seen: set[tuple[object, ...]] = set()
    for model in models():
        if not seen.issuperset(features(model)):
            seen.update(features(model))
            yield model


@pytest.mark.long
async def test_models_of_every_kind_make_what_they_say_for_the_price_that_was_estimated(tmp_path: Path) -> None:
    chosen = list(spread())
    assert 20 <= len(chosen) <= 40
    with small_emulator(tmp_path) as rh:
        assert await run_all(rh, chosen, tmp_path) == {}
        assert len(rh.recorder.paid) == len(chosen)
