"""The results of local edits, stored by recipe: `edits/<recipe>/result.json` next to the works' records.

A *recipe* is an edit, its parameters and the contents of its input files. The same recipe can give other bytes on
another machine. So all later requests contain the hash of the recipe's first result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rh_prefect.json_snapshot import converted
from rh_prefect.media.input_files import fetch, naming
from rh_prefect.media.media import Media
from rh_prefect.media.storage_urls import shown_url
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.plan.work_identity import recipe_id
from rh_prefect.settings import Settings
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.works_journal import FILES, options_of_records, records_url
from rh_prefect.works.loop_thread import LOOP

if TYPE_CHECKING:
    from rh_prefect.pipelines.edit_rendering import Rendering

FOLDER = "edits"
"""The folder of all recipes, in the storage of the records."""


class EditResult(Record):
    """The result of an edit, recorded once."""

    edit: str
    params: dict[str, Any]  # Its parameters, files by content
    version: str  # The version of the package that rendered it; not a part of the recipe
    store: str  # The storage of its file
    file: Media | None = None  # Its file; `uri` is the name in the store, made of the content
    text: str | None = None


@dataclass(frozen=True, slots=True)
class EditOutput:
    """The result of an edit for a step."""

    result: EditResult  # What stands for the recipe
    # The file with its address. If the first file was lost, it may have other bytes than `result.file`, whose hash
    # requests contain
    file: Media | None
    is_new: bool  # Whether it was rendered now


class EditResults:
    """The results of edits in one storage of records."""

    def __init__(
        self,
        url: str,
        store: MediaStore,
        *,
        options: Mapping[str, Any] | None = None,
        rendering: Rendering | None = None,
    ) -> None:
        self._rendering = rendering
        self._records = FolderJournal(url, scope=FOLDER, options=options)
        self._store = store
        self._is_beside = self._records.url == shown_url(store.url)

    async def read_many(self, recipes: Iterable[str]) -> dict[str, EditResult]:
        """Returns the existing results of many recipes, by recipe."""
        found = await self._records.read_many(f"{recipe}-result" for recipe in recipes)
        return {key.removesuffix("-result"): self._records.parse(key, EditResult, one) for key, one in found.items()}

    async def make(
        self, edit: str, params: Mapping[str, Any], *, counts_as: Mapping[str, str] | None = None
    ) -> EditOutput:
        """Returns the result of an edit; renders it if it does not exist or its file is missing."""
        recorded, first = as_recorded(params, counts_as or {}), None
        recipe = recipe_id(edit, recorded)
        async for known in self._results(recipe):
            first = first or known
            if await LOOP.in_file_thread(self._is_there, known):
                return EditOutput(first, self.located(known), is_new=False)
        with TemporaryDirectory(prefix="rh-edit-") as scratch:
            rendered = await LOOP.in_file_thread(self._render, edit, params, Path(scratch))
            file, is_ours = None, False
            if isinstance(rendered, Path):
                file, is_ours = await LOOP.in_file_thread(publish_content, self._store, rendered)
        made = EditResult(
            edit=edit,
            params=recorded,
            version=version("rh-prefect"),
            store=self._store.url,
            file=file,
            text=rendered if isinstance(rendered, str) else None,
        )
        if first is None:
            return await self._record(recipe, made, is_ours=is_ours)
        await self._record_further(recipe, first, made)
        return EditOutput(first, self.located(made), is_new=True)

    async def _results(self, recipe: str) -> AsyncIterator[EditResult]:
        """Yields the first result of a recipe, and those of later renderings."""
        keys = chain([f"{recipe}-result"], (f"{recipe}-further-{n}" for n in count(1)))
        while (found := await self._records.read_as(next(keys), EditResult)) is not None:
            yield found

    async def _record(self, recipe: str, made: EditResult, *, is_ours: bool) -> EditOutput:
        """Records the first result of a recipe; if another process was faster, returns the other result."""
        first = await self._records.ensure(f"{recipe}-result", made)
        if first is made:
            return EditOutput(made, self.located(made), is_new=True)
        if is_ours and made.file is not None and not _is_same(first, made):
            await LOOP.in_file_thread(self._store.delete, made.file.uri)  # nothing refers to it
        return EditOutput(first, self.located(first), is_new=False)

    async def _record_further(self, recipe: str, first: EditResult, again: EditResult) -> None:
        """Records a file that was rendered again, unless one with the same content is recorded."""
        found, numbers = first, count(1)
        while found is not again and not _is_same(found, again):
            found = await self._records.ensure(f"{recipe}-further-{next(numbers)}", again)

    def _render(self, edit: str, params: Mapping[str, Any], scratch: Path) -> Path | str:
        from rh_prefect.pipelines.edit_rendering import render  # most runs render nothing, and numpy takes 17 MB

        inputs, outputs = scratch / "inputs", scratch / "outputs"
        inputs.mkdir()
        outputs.mkdir()
        numbers, given = count(1), dict[Path, Media]()

        def local(value: Any) -> Any:
            if not isinstance(value, Media):
                return value
            path = inputs / f"{next(numbers)}-{value.name}"
            given[path] = value
            fetch(value, path, options=self._store.options_for(value))
            return path

        values = converted(params, local)
        with naming(given):
            return (self._rendering or render)(edit, values, outputs)

    def _is_there(self, result: EditResult) -> bool:
        file, store = result.file, self._store
        if file is None:
            return True  # a text needs no store
        if not self._is_beside and result.store != store.url:
            store = MediaStore(result.store, options=store.options_for(result.store))
        return store.size(file.uri) == file.size

    def lacks(self, result: EditResult, sizes: Mapping[str, int]) -> bool:
        """Returns whether the file of a result belongs to this store and is missing in a listing of its files."""
        is_here = self._is_beside or result.store == self._store.url
        return result.file is not None and is_here and sizes.get(result.file.uri) != result.file.size

    def located(self, result: EditResult) -> Media | None:
        """Returns the file of a result with its address; None if the result is a string."""
        if result.file is None:
            return None
        root = self._store.url if self._is_beside else result.store
        return result.file.at(f"{root.rstrip('/')}/{result.file.uri}")


def open_edits(store: MediaStore, settings: Settings) -> EditResults:
    """Opens the results of edits in the storage of the works' records."""
    url = records_url(store, settings)
    return EditResults(url, store, options=options_of_records(url, store, settings))


def publish_content(store: MediaStore, path: Path) -> tuple[Media, bool]:
    """Moves a file into a store under a name derived from its content; also returns whether the store lacked it."""
    described = store.describe(path, "described")
    name = f"{FILES}/{described.sha256}{path.suffix.lower()}"
    is_new = store.size(name) != described.size
    if is_new:
        store.move(path, name)
    return described.at(name), is_new


def as_recorded(params: Mapping[str, Any], counts_as: Mapping[str, str]) -> dict[str, Any]:
    """Returns the parameters of an edit as its recipe records them, with files identified by their content."""

    def plain(value: Any) -> Any:
        if not isinstance(value, Media):
            return value
        mark = media_mark(value.sha256)
        return counts_as.get(mark, mark)

    return dict(converted(params, plain))


def _is_same(one: EditResult, other: EditResult) -> bool:
    return one.file is not None and other.file is not None and one.file.sha256 == other.file.sha256
