"""`NameClashes`: the names under which results are saved, and conflicts between these names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from rh_prefect.media.file_name_templates import folded
from rh_prefect.media.file_types_and_completeness import format_named
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.planned_steps import PlannedStep

_OF_3D = {".zip", ".rar", ".7z", ".gz", ".tar", ".usdz", ".usda", ".3mf", ".blend", ".dae"}
"""Extensions of results with a 3D model, besides those with a known format."""

_LONGEST_NAME = 255
"""Maximum number of bytes in one part of a path, in common file systems."""


def is_too_long(name: str) -> bool:
    """Returns whether a part of a name is too long for common file systems."""
    return any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in name.split("/"))


class NameClashes:
    """The file names of all takes, updated when steps are replaced."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self._ranks = ranks
        self._users: dict[str, list[PlannedStep]] = defaultdict(list)

    def replace(self, old: Iterable[PlannedStep], new: Iterable[PlannedStep]) -> None:
        """Removes the file names of old steps, and adds those of new steps."""
        for one in old:
            for name in one.saved_names:
                self._users[folded(name)].remove(one)
        for one in new:
            for name in one.saved_names:
                self._users[folded(name)].append(one)

    def problems_of(self, one: PlannedStep) -> Iterator[tuple[str, str]]:
        """Yields each problem with a step's file names, and the remedy."""
        for name in one.saved_names:
            first = self._first(name)
            clash = self._of_any_extension(name) if first is one else first
            if clash is not None:
                problem = f"{visible(clash.address)} and {visible(one.address)} are both saved as {visible(name)}"
                advice = "use another name for one of them"
                yield problem, "use $(id) or $(item…) in the name" if clash.path == one.path else advice
                continue
            if is_too_long(name):
                problem = f"{visible(one.address)} is saved as {visible(name)}, which has a part longer than 255 bytes"
                yield problem, "use a shorter name"
            for folder in map(str, PurePosixPath(folded(name)).parents):
                if self._users.get(folder) and (other := self._first(folder)) is not one:
                    problem = f"{visible(other.address)} is saved as {visible(folder)}, which is the folder of "
                    yield f"{problem}{visible(folded(name))}", "use another name"

    def _of_any_extension(self, name: str) -> PlannedStep | None:
        """Returns a step whose name ends in `.*` and may become `name`, because its result is of this kind."""
        named, path = format_named(name), PurePosixPath(name)
        if path.suffix in ("", ".*"):
            return None
        others = ("file", "3d") if path.suffix.lower() in _OF_3D else ("file",)  # "file" such as subtitles
        kinds = named.kinds if named is not None else others
        return next(
            (one for one in self._users.get(folded(str(path.with_suffix(".*"))), ()) if one.kind in kinds), None
        )

    def _first(self, name: str) -> PlannedStep:
        return min(self._users[folded(name)], key=lambda one: (self._ranks[one.path], one.numbers))
