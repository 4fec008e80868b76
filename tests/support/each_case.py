"""Many small cases in one test: all are checked, and a failure names each case that fails with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

Case = Callable[[object], AbstractContextManager[None]]


@contextmanager
def each_case() -> Iterator[Case]:
    """Gives a context manager for each case: `with each_case() as case: … with case(name): assert …`."""
    names: list[str] = []
    failures: list[str] = []

    @contextmanager
    def case(name: object) -> Iterator[None]:
        names.append(str(name))
        try:
            yield
        except (AssertionError, pytest.fail.Exception) as error:
            failures.append(f"{name}: {error}")
        except Exception as error:
            failures.append(f"{name}: {error!r}")

    yield case
    assert names, "there is no case"
    if failures:
        pytest.fail(f"{len(failures)} of {len(names)} cases\n" + "\n".join(failures), pytrace=False)
