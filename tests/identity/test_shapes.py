"""Each way to call for paid jobs, broken off when all was paid and resumed three times: nothing is paid for twice.

Equal requests give different results here, so that a result in the wrong branch shows in what the next step is given.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.identity.harness import Form, Shape, World

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.timeout(1800)]

both_forms = pytest.mark.parametrize("form", ["sync", "async"])

BRANCHES = (
    Shape("submit", "submit.py", 12),
    Shape("child flows", "children.py", 8, branches=4),
    Shape("child flows with equal arguments", "twins.py", 8),
    Shape("grandchildren", "grandchildren.py", 8, branches=4),
    Shape("own task, submit", "own_tasks.py", 8, {"how": "submit"}, branches=4),
    Shape("own task, map", "own_tasks.py", 8, {"how": "map"}, branches=4),
    Shape("own task, with_options", "own_tasks.py", 8, {"how": "with_options"}, branches=4),
    Shape("generate_many twice", "many.py", 12),
    Shape("as_completed", "completed.py", 12),
    Shape("a retry of the flow", "retries.py", 12, breaks=("",)),
    Shape("three processes on one run", "own_tasks.py", 8, {"how": "submit"}, processes=3),
    Shape("gather of plain calls", "gathered.py", 8, may_refuse=1),
)

PERSISTED = (
    Shape("a persisted child", "persisted_child.py", 8, branches=4),
    Shape("a persisted task", "persisted_task.py", 8, branches=4),
)

ARGUMENTS = (
    Shape("a time stamp as argument", "arguments.py", 8, {"kind": "time stamp"}),
    Shape("a client as argument", "arguments.py", 8, {"kind": "client"}),
    Shape("a set as argument", "arguments.py", 8, {"kind": "set"}),
    Shape("a result served again as argument", "arguments.py", 9, {"kind": "result"}),
)


@both_forms
@pytest.mark.parametrize("shape", BRANCHES, ids=str)
def test_branches(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """Equal parallel calls keep their results, whatever their next steps are."""
    world.run(shape, form, tmp_path).check(shape)


@both_forms
@pytest.mark.parametrize("shape", PERSISTED, ids=str)
def test_what_prefect_serves_without_running_it(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """A branch that Prefect serves from its persisted result leaves the others theirs."""
    world.run(shape, form, tmp_path).check(shape)


@both_forms
def test_a_process_pool_in_a_child_flow(world: World, tmp_path: Path, form: Form) -> None:
    """Tasks in processes of a child flow's pool belong to the root run."""
    shape = Shape("a process pool in a child", "pooled.py", 4)
    world.run(shape, form, tmp_path).check(shape)


@pytest.mark.parametrize("form", ["async"])
@pytest.mark.parametrize("shape", ARGUMENTS, ids=str)
def test_arguments_that_differ_in_each_attempt(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """A task's argument that is another one in each attempt does not make its jobs new ones."""
    world.run(shape, form, tmp_path).check(shape)
