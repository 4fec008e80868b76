"""Prints JSON, and lines that fit the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(data: Any) -> None:
    """Prints data as JSON, and nothing else."""
    print(json.dumps(data, ensure_ascii=False, indent=2, default=str))


def terminal_width() -> int:
    """Returns the number of columns of the terminal; 0 for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else 0


def print_wrapped(text: str, *, indent: str = "", more: str = "    ") -> None:
    """Prints text in lines that fit the terminal; all lines but the first are indented by `more`."""
    # Names and options with dashes are copied as a whole.
    wrapper = textwrap.TextWrapper(terminal_width() or sys.maxsize, break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = indent, indent + more
    print(wrapper.fill(text))


def print_rows(rows: Iterable[Sequence[object]], *, indent: str = "") -> None:
    """Prints rows in columns; if these do not fit the terminal, prints a row's cells below the row's first cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_narrow = 0 < terminal_width() < len(indent) + sum(widths) + 2 * (len(widths) - 1)
    for first, *others in cells:
        if is_narrow:
            print(indent + first)
            print_wrapped("  ".join(filter(None, others)), indent=f"{indent}    ", more="")
        else:
            padded = (f"{cell:{width}}" for cell, width in zip([first, *others], widths, strict=True))
            print((indent + "  ".join(padded)).rstrip())
