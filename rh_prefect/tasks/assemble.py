"""`assemble`: combines clips, speech and music into one film, without a model and without cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.flow_runs.call_scope import current_scope
from rh_prefect.flow_runs.job_progress import add_results, run_observer
from rh_prefect.flow_runs.lineage import emit_asset, note_made
from rh_prefect.media import edit
from rh_prefect.media.input_files import fetch, naming
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.probe import probe
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import get_settings
from rh_prefect.tasks.task_or_call import PlainTask
from rh_prefect.works.events import JobEvent
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger("rh_prefect")

SHEET_COLUMNS = 4

_UNHEARD = 0.3
"""Seconds at the end of a speech that are usually silent."""

MediaLike = Media | Result | str
"""The types that a parameter for a file accepts."""


class Film(BaseModel):
    """A finished film and its contact sheet.

    Attributes:
        film: H.264 video, with an AAC track if there is sound.
        contact_sheet: A JPEG with one picture of each clip.
    """

    model_config = ConfigDict(frozen=True)

    film: Media
    contact_sheet: Media


def _task(body: Callable[P, Coroutine[Any, Any, R]]) -> PlainTask[P, R]:
    name = "assemble {name}"
    return PlainTask(body, cache_policy=NO_CACHE, task_run_name=name, retries=1, retry_delay_seconds=5)


@_task
async def assemble(
    clips: Sequence[MediaLike],
    *,
    name: str = "film",
    speech: MediaLike | None = None,
    music: MediaLike | None = None,
    captions: Sequence[str] = (),
    storage: str | None = None,
) -> Film:
    """Joins clips, adds speech over lowered music, and publishes the film and a contact sheet.

    The film is as long as the clips. Without speech and music it has the clips' own sound.

    Args:
        clips: Videos, in their order.
        name: The film's name, without extension.
        speech: A file with speech, or None; if it is longer than the film, it is cut, with a warning.
        music: A file with music, which is repeated if it is too short, or None.
        captions: A line for each clip on the contact sheet.
        storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.

    Returns:
        The film and its contact sheet, in the storage.

    Raises:
        InputError: There are no clips.
        MediaError: A file cannot be read, or is of another kind.
        StoreError: The storage refuses the film.
    """
    if not clips:
        raise InputError(f"{name}: there are no clips to join. What to do: give at least one video.")
    store, observer = await load_storage(storage), run_observer()
    event = JobEvent("running", name, "assemble", label=name, message="is made on this machine", is_edit=True)
    observer.notify(event)
    with TemporaryDirectory(prefix="rh-film-") as scratch:
        cut = _Cut(Path(scratch), store)
        recipe = await asyncio.to_thread(cut.make, clips, speech, music, captions)
        film = await asyncio.to_thread(cut.publish, await _name(name, recipe))
    await _note(cut.parts, film.film, store)
    observer.notify(replace(event, state="succeeded", message="made"))
    note_made((film.film, film.contact_sheet))
    emit_asset(film.film, sources=cut.sources, model="assemble", cost=None)
    add_results({name: film.film})
    return film


async def _note(parts: Mapping[str, Any], film: Media, store: MediaStore) -> None:
    """Records the sources of the film, for the gallery."""
    named = film.model_copy(update={"uri": store.name_of(film.uri) or film.uri})
    try:
        await LOOP.call(open_edits(store, get_settings()).note("assemble", parts, named))
    except RunningHubError as error:
        _log.warning("The gallery will not show %s: %s", film.uri, error.message)


async def _name(name: str, recipe: str) -> str:
    """Returns the film's name in the storage: the same in each attempt, and different for another film."""
    scope = current_scope()
    if scope is None:
        return f"films/{recipe[:12]}/{name}"
    for number in count(1):
        candidate = name if number == 1 else f"{name}-{number}"
        key = f"film{hashlib.sha256(candidate.encode()).hexdigest()[:24]}-recipe"
        mine = {"name": candidate, "recipe": recipe}
        if await scope.journal.create(key, mine) or await scope.journal.read(key) == mine:
            return f"{scope.flow}/{scope.run}/{candidate}"
    raise AssertionError("count has no end")


class _Cut:
    """Makes one film in a scratch folder."""

    def __init__(self, scratch: Path, store: MediaStore) -> None:
        self.sheet = scratch / "sheet.jpg"
        self.parts: dict[str, Any] = {}
        self._film = scratch / "film.mp4"
        self._scratch = scratch
        self._given: dict[Path, Media | str] = {}
        self._store = store

    @property
    def sources(self) -> list[str]:
        """The addresses of its source files."""
        return [one.uri if isinstance(one, Media) else one for one in self._given.values()]

    def make(
        self,
        clips: Sequence[MediaLike],
        speech: MediaLike | None,
        music: MediaLike | None,
        captions: Sequence[str],
    ) -> str:
        """Makes the film and its contact sheet; returns a hash of all inputs."""
        videos = [self._local(clip, f"clip-{number}") for number, clip in enumerate(clips)]
        spoken, played = self._optional(speech, "speech"), self._optional(music, "music")
        with naming(self._given):
            self._join(videos, spoken, played)
            columns = min(len(videos), SHEET_COLUMNS)
            edit.contact_sheet(videos, self.sheet, columns=columns, captions=list(captions) or None)
        files = [*videos, spoken, played]
        parts = [file and _digest(file) for file in files]
        marks = [part and media_mark(part) for part in parts]
        named = {"clips": marks[:-2], "speech": marks[-2], "music": marks[-1], "captions": list(captions)}
        self.parts = {name: value for name, value in named.items() if value}
        return hashlib.sha256(json.dumps([parts, list(captions)]).encode("utf-8", "surrogatepass")).hexdigest()

    def publish(self, name: str) -> Film:
        """Publishes the film and its contact sheet."""
        return Film(
            film=self._store.publish(self._film, f"{name}.mp4"),
            contact_sheet=self._store.publish(self.sheet, f"{name}-contact-sheet.jpg"),
        )

    def _join(self, videos: list[Path], speech: Path | None, music: Path | None) -> None:
        if speech is None and music is None:
            edit.concat(videos, self._film, audio="keep" if any(map(edit.has_sound, videos)) else "drop")
            return
        joined = self._scratch / "joined.mp4"
        cut = edit.concat(videos, joined)
        spoken = probe(speech).seconds if speech is not None else None
        if spoken is not None and spoken > cut.seconds + _UNHEARD:
            _log.warning(
                "the speech lasts %.1f s and the film %.1f s, so its end is cut off. What to do: use more or "
                "longer clips, or a shorter text.",
                spoken,
                cut.seconds,
            )
        track = self._scratch / "track.wav"
        edit.mix(speech, music, track, seconds=cut.seconds)
        edit.mux(joined, track, self._film)

    def _optional(self, file: MediaLike | None, name: str) -> Path | None:
        return None if file is None else self._local(file, name)

    def _local(self, file: MediaLike, name: str) -> Path:
        source = as_media_input(file)
        path = self._scratch / name
        self._given[path] = source
        fetch(source, path, options=self._store.options_for(source))
        return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
