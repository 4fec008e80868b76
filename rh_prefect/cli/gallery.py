"""`rh-prefect gallery`: writes a page of what a storage's jobs and edits have made."""

from __future__ import annotations

import asyncio
import re
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rh_prefect.cli.emulator_and_webhook import PORT
from rh_prefect.errors import InputError
from rh_prefect.settings import get_settings

if TYPE_CHECKING:
    from rh_prefect.gallery.entries import Entry
    from rh_prefect.media.store import MediaStore

_LAST = "last"


def gallery(
    place: Annotated[
        str | None, Parameter(help="A folder or an fsspec URL such as s3://bucket/media; by default RH_STORAGE_URL.")
    ] = None,
    *,
    run: Annotated[str | None, Parameter(help="Only what this run made: its id or name, or `last`.")] = None,
    storage: Annotated[str | None, Parameter(help="Name of a MediaStorage block, instead of a place.")] = None,
    serve: Annotated[
        bool,
        Parameter(help="Serve the page on this machine until Ctrl-C, instead of printing where it is.", negative=""),
    ] = False,
    port: Annotated[int, Parameter(help="The port of --serve; 0 selects a free port.", validator=PORT)] = 0,
) -> None:
    """Write a page with every picture, video, sound and text of a storage, with prompts and costs."""
    if place is not None and storage is not None:
        raise InputError(
            f"gallery: {place} and --storage {storage} are two places. Nothing was written. What to do: name one."
        )
    store, pages, found = _written(place, storage, run)
    if serve:
        from rh_prefect.gallery.server import app_of
        from rh_prefect.gallery.server import serve as serve_pages

        serve_pages(
            app_of(store, pages, found), lambda url: print(f"gallery: {url} (Ctrl-C ends it)", flush=True), port=port
        )
        return
    print(f"gallery: {_address(store, pages)} ({len(found)} outputs)")


def open_(
    run: Annotated[str, Parameter(help="A run: its id or name, or `last`.")] = _LAST,
    *,
    storage: Annotated[str | None, Parameter(help="Name of a MediaStorage block; by default RH_STORAGE_URL.")] = None,
) -> None:
    """Open the page of what a run made in your browser."""
    store, pages, _ = _written(None, storage, run)
    address = _address(store, pages)
    print(f"gallery: {address}")
    if not webbrowser.open(address):
        raise InputError("open: this machine has no browser. What to do: open the address above on another machine.")


def _address(store: MediaStore, pages: Sequence[str]) -> str:
    return store.link(pages[0]) or store.uri(pages[0])


def _written(
    place: str | None, storage: str | None, run: str | None
) -> tuple[MediaStore, Sequence[str], Sequence[Entry]]:
    """Writes the pages; returns their storage, their names and what they show."""
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.gallery.entries import entries_of
    from rh_prefect.gallery.pages import write_gallery
    from rh_prefect.media.store import MediaStore
    from rh_prefect.works.journal.works_journal import records_url

    store = asyncio.run(load_storage(storage)) if place is None else MediaStore(place)
    where = records_url(store, get_settings()) if place is None else store.url
    records = store if where == store.url else MediaStore(where, options=store.options_for(where))
    found = entries_of(store, records)
    name = "index"
    if run is not None:
        run = next((one.run for one in found if one.run), "") if run == _LAST else run
        found = [one for one in found if run and run in (one.run, one.run_name, one.flow)]
        # The name of a flow or a run may hold what a file's name cannot.
        name = re.sub(r"[^\w.-]+", "-", run)[:80]
    if not found:
        what = f"of the run {run} " if run else ""
        raise InputError(
            f"gallery: {store.url} has no results {what}yet. Nothing was written. What to do: name another place, or "
            "run a flow or a pipeline first."
        )
    return store, write_gallery(store, found, name=name), found
