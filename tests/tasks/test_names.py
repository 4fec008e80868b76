"""What `rh_prefect.tasks` offers."""

from __future__ import annotations

from prefect import Task

from rh_prefect import tasks
from rh_prefect.tasks import account_and_apps, uploads_and_assets


def test_all_tasks_of_the_platform_are_offered_with_their_own_names() -> None:
    assert tasks.__all__ == sorted(tasks.__all__)
    found = {**vars(account_and_apps), **vars(uploads_and_assets)}
    platform_tasks = {name for name, value in found.items() if isinstance(value, Task)}
    assert platform_tasks == {*tasks.__all__} - {"generate", "generate_many"}
    for name in platform_tasks:
        task = getattr(tasks, name)
        assert task is found[name]
        assert task.fn.__name__ == name
        assert (task.fn.__doc__ or "").strip().endswith(".")
