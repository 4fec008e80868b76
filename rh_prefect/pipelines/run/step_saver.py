"""`StepSaver`: saves the results of steps under the names given in `save_as`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath

from rh_prefect.media.media import Media
from rh_prefect.pipelines.named_file_saver import SavedNames
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.run_services import Outcome
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.works.loop_thread import LOOP


class StepSaver:
    """Copies the results of steps to the names given in `save_as`, and records the copies in the run's outcome."""

    def __init__(self, names: SavedNames, known: KnownResults, outcome: Outcome) -> None:
        self._names, self._known, self._outcome = names, known, outcome

    def is_unsaved(self, instance: PlannedStep) -> bool:
        """Returns whether a step has names under which this run has not saved its results yet."""
        return bool(instance.save_as) and instance.address not in self._outcome.saved

    async def find(self, instance: PlannedStep) -> None:
        """Finds the results of a step that an earlier run saved under the names given in `save_as`."""
        named = self.named(instance)
        found = await asyncio.gather(*(LOOP.call(self._names.find(file, name)) for file, name in named))
        files = [file for file in found if file is not None]
        if files and len(files) == len(found):
            self._note(instance, named, files)

    async def save(self, instance: PlannedStep) -> None:
        """Copies the results of a step to the names given in `save_as`."""
        named = self.named(instance)
        self._note(instance, named, [await self._save_as(file, name) for file, name in named])

    async def _save_as(self, file: Media, name: str) -> Media:
        return await while_store_is_away(lambda: LOOP.call(self._names.save(file, name)))

    def _note(self, instance: PlannedStep, named: Sequence[tuple[Media, str]], saved: list[Media]) -> None:
        self._outcome.saved[instance.address] = saved
        for (file, _), one in zip(named, saved, strict=True):
            self._outcome.named[instance.address, file.sha256] = self._outcome.named["", file.sha256] = one

    def named(self, instance: PlannedStep) -> list[tuple[Media, str]]:
        """Returns the results of a step, each with its name from `save_as`; for a review, the chosen result."""
        if isinstance(instance.chosen, File):
            address = instance.chosen.address
            media = instance.chosen.media
            file = media and media.at(address or media.uri)
            return [(file, instance.save_as)] if file else []
        files = [None if one is None else one.output(instance.file_kind) for one in self._known.of(instance)]
        return [
            (file, _with_extension(name, file)) for file, name in zip(files, instance.saved_names) if file is not None
        ]


def _with_extension(name: str, file: Media) -> str:
    """Replaces `.*` at the end of a name with the extension of the file."""
    return f"{name.removesuffix('.*')}{PurePosixPath(file.name).suffix}" if name.endswith(".*") else name
