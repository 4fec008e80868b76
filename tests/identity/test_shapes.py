"""Each way to call for paid jobs, broken off twice when all was paid, and resumed: nothing is paid for twice.

Equal requests give different results here, so that a result in the wrong branch shows in what the next step is given.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.identity.harness import Form, Shape, World

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.timeout(1800)]

SHAPES = (
    Shape("submit", "submit.py", 12),
    Shape("child flows", "children.py", 8, branches=4),
    Shape("grandchildren", "grandchildren.py", 8, branches=4),
    Shape("own task, submit", "own_tasks.py", 8, {"how": "submit"}, branches=4),
    Shape("own task, map", "own_tasks.py", 8, {"how": "map"}, branches=4),
    Shape("own task, with_options", "own_tasks.py", 8, {"how": "with_options"}, branches=4),
    Shape("as_completed", "completed.py", 12),
    Shape("a retry of the flow", "retries.py", 12, breaks=("",)),
    Shape("three processes on one run", "own_tasks.py", 8, {"how": "submit"}, processes=3),
    Shape("a persisted child", "persisted_child.py", 8, branches=4),
    Shape("a persisted task", "persisted_task.py", 8, branches=4),
    Shape("a process pool", "pooled.py", 4, {"in_a_child": False}),
    Shape("a process pool in a child", "pooled.py", 4, {"in_a_child": True}),
)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_program_that_is_killed_is_paid_for_once(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """It is killed, fails and completes; each branch keeps its results in all its next steps."""
    world.check(shape, form, tmp_path)
