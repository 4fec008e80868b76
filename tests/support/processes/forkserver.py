"""A forkserver context: a process forked from the tests' own process could inherit a held lock."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "tests.support.processes.warm_imports"])
