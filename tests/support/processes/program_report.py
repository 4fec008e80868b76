"""Reports of the programs of `tests/identity`, and the points where they are interrupted."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from rh_prefect.works.outputs.result import Result

_lock = threading.Lock()
_kept: set[str] = set()


class BrokenOff(RuntimeError):
    """The program ends here in this attempt."""


def say(event: str, **facts: object) -> None:
    """Appends one line to the attempt's report; several processes may write at once."""
    line = json.dumps({"event": event, "attempt": int(os.environ["PROGRAM_ATTEMPT"]), **facts}) + "\n"
    report = os.open(os.environ["PROGRAM_REPORT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(report, line.encode())
    finally:
        os.close(report)


def tag() -> str:
    """A word in every prompt of this program, by which its submits are found in the emulator's books."""
    return os.environ["PROGRAM_TAG"]


def keep(branch: object, *results: Result, source: str = "") -> list[str]:
    """Reports what a branch got, first step first; the branch is over then.

    Args:
        branch: The branch's name.
        results: The results of its steps; each step was given the result of the one before.
        source: SHA-256 of the file that the first step was given, if it was given one.

    Returns:
        The hashes of the results.
    """
    hashes = [one.first_output.sha256 for one in results]
    say("chain", branch=str(branch), tasks=[one.task_id for one in results], hashes=hashes, source=source)
    with _lock:
        _kept.add(str(branch))
        is_last = len(_kept) == int(os.environ.get("PROGRAM_BRANCHES", "0"))
    if is_last:
        break_off("branch")
    return hashes


def keep_again(branch: object, hashes: list[str]) -> None:
    """Reports what a branch has returned, which Prefect may have stored in an earlier attempt."""
    say("returned", branch=str(branch), hashes=hashes)


def break_off(place: str = "end") -> None:
    """Ends this attempt, where it is to end at this place.

    Args:
        place: `branch`, in the branch that is the last to be over, or `end`, when all is done.
    """
    if os.environ["PROGRAM_BREAK_AT"] not in (place, "both") or not os.environ["PROGRAM_BREAK"]:
        return
    say("broken", place=place)
    if os.environ["PROGRAM_BREAK"] == "exit":
        # What other branches have just reported to Prefect is on its way.
        time.sleep(0.3)
        os._exit(9)
    raise BrokenOff(f"broken off at its {place}")


def file(name: str) -> Path:
    """A file that the test has put beside the program, or that it will."""
    return Path(os.environ["PROGRAM_FILES"]) / name
