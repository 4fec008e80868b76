"""What `rh_prefect.tasks` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prefect import Task

from rh_prefect import tasks
from rh_prefect.tasks import platform, uploads_and_assets, workflows

MODULES = (uploads_and_assets, platform, workflows)


def test_all_tasks_of_the_platform_are_offered() -> None:
    assert tasks.__all__ == sorted(tasks.__all__) == dir(tasks)
    defined = {name for module in MODULES for name, value in vars(module).items() if isinstance(value, Task)}
    assert defined == {*tasks.__all__} - {"Film", "assemble", "generate", "generate_many"}


@pytest.mark.parametrize("name", tasks.__all__)
def test_every_name_resolves_to_the_task_itself(name: str) -> None:
    found = getattr(tasks, name)
    assert found is getattr(tasks, name)
    assert {getattr(module, name, found) for module in MODULES} == {found}
    if isinstance(found, Task):
        assert found.fn.__name__ == name
        assert (found.fn.__doc__ or "").strip().endswith(".")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'rh_prefect\.tasks' has no attribute 'run_workflo'"):
        tasks.run_workflo  # type: ignore[attr-defined]  # noqa: B018  # the access is the test


def test_generate_alone_does_not_load_the_platform() -> None:
    code = "import sys; from rh_prefect.tasks import generate; print('rh_prefect.tasks.platform' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
