"""`python -OO` drops docstrings and assertions; nothing may depend on them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

SCRIPT = """
import importlib, pkgutil, sys
import rh_prefect
for found in pkgutil.walk_packages(rh_prefect.__path__, "rh_prefect."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from rh_prefect.flows import model_flows as flows
from rh_prefect.tasks import model_tasks
from rh_prefect.tasks.generate import generate
task, flow = model_tasks.z_image_turbo, flows.z_image_turbo
assert False, "assertions are on"
print(generate.fn.__doc__, task.name, flow.name)
"""


def test_everything_is_imported_and_a_models_task_and_flow_are_built_without_docstrings() -> None:
    done = subprocess.run([sys.executable, "-OO", "-c", textwrap.dedent(SCRIPT)], capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["None", "z-image/turbo", "z-image-turbo"]
