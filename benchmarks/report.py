"""The table that a benchmark prints."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing and what it shall stay below.

    Attributes:
        what: What was measured.
        measured: The figure.
        limit: What it shall be less than.
        unit: Of both.
        note: How it came about.
    """

    what: str
    measured: float
    limit: float
    unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the aim was reached, if there is one."""
        if self.limit == math.inf:
            return "no aim"
        return "reached" if self.measured < self.limit else "NOT REACHED"


def show(title: str, figures: list[Figure]) -> None:
    """Prints a table."""
    width = max(len(figure.what) for figure in figures)
    print(f"\n{title}")
    for figure in figures:
        aim = f"aim < {figure.limit:g} {figure.unit}"
        digits = 2 if figure.limit < 10 else 1
        measured = f"{figure.measured:8.{digits}f} {figure.unit:3}"
        print(f"  {figure.what:{width}}  {measured} {aim:13} {figure.verdict:12} {figure.note}".rstrip(), flush=True)
