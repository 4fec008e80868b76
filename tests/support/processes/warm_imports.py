"""What the fork server imports: Prefect, the package's flows, tasks and commands, and what a flow run imports late.

The last line keeps the garbage collector from touching, and so copying, all of it in each forked process.
"""

import gc
import importlib
import pkgutil

import rh_prefect.cli
import rh_prefect.flow_runs
import rh_prefect.flows
import rh_prefect.tasks

_LATE = ("anyio._backends._asyncio", "fastapi", "graphviz", "prefect.task_engine", "prefect.utilities.visualization")

for _package in (rh_prefect.cli, rh_prefect.flow_runs):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        if not _module.name.endswith("__main__"):
            importlib.import_module(_module.name)
for _name in _LATE:
    importlib.import_module(_name)
gc.collect()
gc.freeze()
