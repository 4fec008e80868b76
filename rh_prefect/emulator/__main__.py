"""`python -m rh_prefect.emulator`: serves in the foreground and prints the addresses."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from rh_prefect.emulator.clock import Mode
from rh_prefect.emulator.emulator import Emulator, serve
from rh_prefect.errors import ConfigError


def main() -> None:
    """Reads the command line and serves until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m rh_prefect.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="the API's port; 0 selects a free port")
    parser.add_argument("--files-port", type=int, default=0, help="the file host's port")
    parser.add_argument("--clock", choices=get_args(Mode), default="real")
    parser.add_argument("--factor", type=float, default=1.0, help="number of emulator seconds per real second")
    parser.add_argument("--polls", type=int, default=2, help="the poll at which a task is done")
    parser.add_argument("--limit", type=int, default=50, help="number of tasks that the key may run at once")
    parser.add_argument("--long-side", type=int, default=256, help="long side of pictures and videos, in pixels")
    parser.add_argument("--fps", type=int, default=12)
    parser.add_argument("--max-seconds", type=float, help="maximum length of sounds and videos")
    parser.add_argument("--least-bytes", type=int, default=0, help="minimum size of a result; smaller ones are padded")
    parser.add_argument("--deterministic", action="store_true", help="equal requests give equal results")
    parser.add_argument("--random-seed", type=int, help="seed of all results; by default a random number")
    parser.add_argument("--key", help="the key's value; by default a random value, which is printed")
    options = vars(parser.parse_args())
    given = options["key"]

    def announce(emulator: Emulator) -> None:
        lines = [
            f"RH_BASE_URL={emulator.url}",
            f"RH_FILES_URL={emulator.files_url}",
            f"# --random-seed {emulator.random_seed}",
        ]
        sys.stdout.write("\n".join([*lines, *([] if given else [f"RH_API_KEY={emulator.key}"])]) + "\n")
        sys.stdout.flush()

    try:
        serve(announce, **options)
    except ConfigError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
