"""What `import rh_prefect` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import rh_prefect

HEAVY = {"prefect", "httpx", "pydantic", "fsspec", "av", "numpy", "starlette"}


@pytest.mark.parametrize("name", dir(rh_prefect))
def test_every_name_resolves_to_the_thing_itself(name: str) -> None:
    found = getattr(rh_prefect, name)
    home = rh_prefect._HOMES.get(name)
    assert found is (getattr(import_module(home), name) if home else import_module("rh_prefect.models"))
    assert found is getattr(rh_prefect, name), "the same object each time"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'rh_prefect' has no attribute 'generat'"):
        rh_prefect.generat  # type: ignore[attr-defined]  # noqa: B018  # the access is the test


def test_the_import_is_light() -> None:
    loaded = f"*({HEAVY!r} & set(sys.modules)), *(name for name in sys.modules if 'rh_prefect.' in name)"
    code = f"import sys, rh_prefect; print({loaded})"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.long
def test_the_names_can_be_imported_in_any_order_and_a_pipeline_without_edits_needs_no_numpy() -> None:
    code = "".join(f"from rh_prefect import {name}\n" for name in reversed(dir(rh_prefect)))
    code += "import sys, rh_prefect.flows.pipeline_run; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
