"""Problems that many items of a plan have, each reported once."""

from __future__ import annotations

from rh_prefect.pipelines.check import Checked
from rh_prefect.pipelines.document import Path, Problems, visible


class ItemProblems:
    """Problems of items, each reported once, with the first item and the number of other items."""

    def __init__(self, problems: Problems, *, of_rows: bool = False) -> None:
        """Collects for a list of problems.

        Args:
            problems: The list.
            of_rows: Whether they are rows', whose places are the keys of columns.
        """
        self._problems, self._of_rows = problems, of_rows
        self._found: dict[tuple[str, Path, str], tuple[Checked, list[str]]] = {}

    def add(self, checked: Checked, at: Path, clause: str, address: str) -> None:
        """Adds a problem of one item.

        Args:
            checked: The file.
            at: The value that is wrong.
            clause: What is wrong.
            address: The item's step, or the row.
        """
        _, addresses = self._found.setdefault((checked.document.name, at, clause), (checked, []))
        addresses.append(address)

    def flush(self) -> None:
        """Adds the collected problems to the report, equal ones once."""
        for (_, at, clause), (checked, addresses) in self._found.items():
            first = f"{visible(addresses[0])}: " if addresses[0] else ""
            what = "rows" if self._of_rows else "items"
            more = f" (and {len(addresses) - 1} further {what})" if len(addresses) > 1 else ""
            self._problems.add(checked.document, at, f"{first}{visible(clause)}{more}", key=self._of_rows)
