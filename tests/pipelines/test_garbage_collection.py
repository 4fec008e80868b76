"""The garbage collector during runs."""

import gc
from collections.abc import Iterator

import pytest

from rh_prefect.pipelines.garbage_collection import Freezer, uncollected


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """The suite freezes what it has imported."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.usefixtures("unfrozen")
@pytest.mark.long
def test_what_survives_a_full_pass_is_not_looked_at_again_until_the_block_ends() -> None:
    freezer = Freezer()
    with freezer.survivors_frozen():
        kept: list[list[int]] = [[] for _ in range(100)]
        gc.collect(1)
        assert gc.get_freeze_count() == 0
        gc.collect()
        assert gc.get_freeze_count() > 100
        assert not any(one is kept[0] for one in gc.get_objects())
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gc.get_freeze_count() == 0


def test_what_the_process_has_frozen_itself_stays_frozen_and_is_not_mixed_with_a_run_s_objects() -> None:
    gc.freeze()
    freezer = Freezer()
    before = gc.get_freeze_count()
    with freezer.survivors_frozen():
        kept: list[list[int]] = [[] for _ in range(100)]
        freezer.freeze()
        gc.collect()
        assert any(one is kept[0] for one in gc.get_objects())
    assert gc.get_freeze_count() > before / 2  # some were freed meanwhile


def test_a_pause_ends_even_after_an_error_and_keeps_a_collector_off_that_was_off() -> None:
    try:
        with uncollected():
            assert not gc.isenabled()
            raise ValueError
    except ValueError:
        assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
