"""Runs a function in a fork of the tests' own process: what a forked process makes of its parent's state."""

from __future__ import annotations

import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_fork(act: Callable[[], Result]) -> Result:
    """Returns what a function returns in a forked process, which ends with it, also where it raises.

    Without that end, the copy of this process would run the tests that follow.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Python 3.12 warns of other threads
        child = os.fork()
    if not child:
        try:
            os.write(writer, pickle.dumps(act()))
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told, "the function raised in the forked process"
    returned: Result = pickle.loads(told)
    return returned
