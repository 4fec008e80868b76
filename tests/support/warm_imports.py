"""What the fork server imports: Prefect, the package's flows and tasks, and the modules of all commands.

The last of its imports keeps the garbage collector from touching, and so copying, all of it in each forked process.
"""

import gc
import importlib
import pkgutil

import rh_prefect.cli
import rh_prefect.flows
import rh_prefect.tasks

for _module in pkgutil.iter_modules(rh_prefect.cli.__path__, "rh_prefect.cli."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
gc.collect()
gc.freeze()
