"""What commands print: JSON, and lines that fit the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any


def print_json(data: Any) -> None:
    """Prints data as JSON, and nothing else."""
    print(json.dumps(data, ensure_ascii=False, indent=2, default=str))


def terminal_width() -> int:
    """Returns how many columns a line may have; 0 for any number, as in a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else 0
