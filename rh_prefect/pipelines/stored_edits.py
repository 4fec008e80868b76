"""The results of local edits, stored by recipe: `edits/<recipe>/result.json` next to the works' records.

A *recipe* is an edit, its parameters and the contents of its input files. The same recipe can give other bytes on
another machine. So all later requests contain the hash of the recipe's first result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rh_prefect.media.input_files import fetch, naming
from rh_prefect.media.media import Media
from rh_prefect.media.storage_urls import shown_url
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.plan.work_identity import recipe_id
from rh_prefect.settings import Settings
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.journal.journal import FolderJournal, UnreadableRecord
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.works_journal import FILES, records_url

if TYPE_CHECKING:
    from rh_prefect.pipelines.edit_rendering import Rendered, Rendering

FOLDER = "edits"
"""The folder of all recipes, in the storage of the records."""


class EditResult(Record):
    """The result of an edit, recorded once."""

    edit: str
    params: dict[str, Any]  # Its parameters, files by content
    version: str = ""  # The version of the package that rendered it; not a part of the recipe
    store: str = ""  # The storage of its file
    file: Media | None = None  # Its file; `uri` is the name in the store, made of the content
    text: str | None = None
    seconds: float | None = None  # Its length; None if it has none


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

    async def read(self, recipe: str) -> EditResult | None:
        """Returns the result of a recipe; None if it was never rendered."""
        return await self._read(f"{recipe}-result")

    async def _read(self, key: str) -> EditResult | None:
        record = await self._records.read(key)
        return None if record is None else _parse(key, record)

    async def read_many(self, recipes: Iterable[str]) -> dict[str, EditResult]:
        """Returns the existing results of many recipes, by recipe."""
        found = await self._records.read_many(f"{recipe}-result" for recipe in recipes)
        return {key.removesuffix("-result"): _parse(key, record) for key, record in found.items()}

    async def make(
        self, edit: str, params: Mapping[str, Any], *, counts_as: Mapping[str, str] | None = None
    ) -> EditOutput:
        """Returns the result of an edit; renders it if it does not exist or its file is missing."""
        recipe = recipe_id(edit, as_recorded(params, counts_as or {}))
        known = await self.read(recipe)
        if known is not None and (output := await self._find(recipe, known)) is not None:
            return output
        with TemporaryDirectory(prefix="rh-edit-") as scratch:
            return await self._make(recipe, known, edit, params, counts_as or {}, Path(scratch))

    async def _make(
        self,
        recipe: str,
        known: EditResult | None,
        edit: str,
        params: Mapping[str, Any],
        counts_as: Mapping[str, str],
        scratch: Path,
    ) -> EditOutput:
        rendered = await asyncio.to_thread(self._render, edit, params, scratch)
        file, is_ours = None, False
        if rendered.path is not None:
            file, is_ours = await asyncio.to_thread(publish_content, self._store, rendered.path)
        result = EditResult(
            edit=edit,
            params=as_recorded(params, counts_as),
            version=version("rh-prefect"),
            store=self._store.url,
            file=file,
            text=rendered.text,
            seconds=rendered.seconds,
        )
        if known is not None:
            await self._record_further(recipe, known, result)
            return EditOutput(known, self.located(result), is_new=True)
        if await self._records.create(f"{recipe}-result", result.model_dump(mode="json")):
            return EditOutput(result, self.located(result), is_new=True)
        # Another process has recorded its file first: nothing refers to this one.
        first = await self.read(recipe) or result
        if is_ours and file is not None and first.file is not None and first.file.sha256 != file.sha256:
            await asyncio.to_thread(self._store.delete, file.uri)
        return EditOutput(first, self.located(first), is_new=False)

    def _render(self, edit: str, params: Mapping[str, Any], scratch: Path) -> Rendered:
        from rh_prefect.pipelines.edit_rendering import render  # most runs render nothing, and numpy takes 17 MB

        inputs, outputs = scratch / "inputs", scratch / "outputs"
        inputs.mkdir()
        outputs.mkdir()
        numbers, given = count(1), dict[Path, Media]()

        def local(value: Any) -> Any:
            if isinstance(value, Media):
                path = inputs / f"{next(numbers)}-{value.name}"
                given[path] = value
                fetch(value, path, options=self._store.options_for(value))
                return path
            return list(map(local, value)) if isinstance(value, list | tuple) else value

        values = {name: local(value) for name, value in params.items()}
        with naming(given):
            return (self._rendering or render)(edit, values, outputs)

    async def _find(self, recipe: str, first: EditResult) -> EditOutput | None:
        """Returns the result of a recipe if one of its files still exists; None if it must be rendered again."""
        found, numbers = first, count(1)
        while not await asyncio.to_thread(self._is_there, found):
            further = await self._read(f"{recipe}-further-{next(numbers)}")
            if further is None:
                return None
            found = further
        return EditOutput(first, self.located(found), is_new=False)

    def _is_there(self, result: EditResult) -> bool:
        file = result.file
        if file is None:
            return True  # a text
        if self._is_beside or result.store == self._store.url:
            return self._store.size(file.uri) == file.size
        return MediaStore(result.store, options=self._store.options_for(result.store)).size(file.uri) == file.size

    async def _record_further(self, recipe: str, first: EditResult, again: EditResult) -> None:
        """Records a file that was rendered again, unless one with the same content is recorded."""
        found: EditResult | None = first
        for n in count(1):
            if found is None or (found.file and again.file and found.file.sha256 == again.file.sha256):
                return
            key = f"{recipe}-further-{n}"
            created = await self._records.create(key, again.model_dump(mode="json"))
            found = None if created else await self._read(key)

    def located(self, result: EditResult) -> Media | None:
        """Returns the file of a result with its address; None if the result is a string."""
        if result.file is None:
            return None
        root = self._store.url if self._is_beside else result.store
        return result.file.at(f"{root.rstrip('/')}/{result.file.uri}")


def open_edits(store: MediaStore, settings: Settings) -> EditResults:
    """Opens the results of edits in the storage of the works' records."""
    url = records_url(store, settings)
    return EditResults(url, store, options=store.options_for(url))


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
        if isinstance(value, Media):
            return media_mark(counts_as.get(value.sha256, value.sha256))
        if isinstance(value, list | tuple):
            return list(map(plain, value))
        return value

    return {name: plain(value) for name, value in params.items()}


def _parse(key: str, record: Mapping[str, Any]) -> EditResult:
    try:
        return EditResult.model_validate(record)
    except ValidationError as error:
        raise UnreadableRecord(
            f"The record {FOLDER}/{key} has a format that this version cannot read ({error.error_count()} "
            "invalid field(s)). What to do: use the version of rh-prefect that wrote the record."
        ) from error
