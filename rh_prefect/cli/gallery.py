"""`rh-prefect gallery`: writes a page with the outputs of the jobs and edits in a storage."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import Port

from rh_prefect.cli.options import refuse_two_places
from rh_prefect.errors import InputError
from rh_prefect.settings import get_settings

if TYPE_CHECKING:
    from rh_prefect.gallery.entries import Entry
    from rh_prefect.media.store import MediaStore

_LAST = "last"
What = Literal["film", "gallery", "report"]


def gallery(
    place: str | None = None,
    *,
    run: str | None = None,
    storage: str | None = None,
    serve: bool = False,
    port: Port = 0,
) -> None:
    """Write a page with every picture, video, sound and text in a storage, with prompts and costs.

    Args:
        place: A folder or an fsspec URL such as s3://bucket/media; by default RH_STORAGE_URL.
        run: Only what this run made: its id or name, or `last`.
        storage: Name of a MediaStorage block, instead of a place.
        serve: Serve the page on this machine until Ctrl-C, instead of printing its address.
        port: The port of --serve; 0 selects a free port.
    """
    from rh_prefect.gallery.pages import write_gallery

    store, found, name = _found("gallery", place, storage, run)
    pages = write_gallery(store, found, name=name or "index")
    if serve:
        from rh_prefect.gallery.server import app_of
        from rh_prefect.gallery.server import serve as serve_pages

        serve_pages(
            app_of(store, pages, found), lambda url: print(f"gallery: {url} (Ctrl-C ends it)", flush=True), port=port
        )
        return
    print(f"gallery: {_address(store, pages[0])} ({len(found)} outputs)")


def open_(
    run: str = _LAST,
    *,
    what: Annotated[What | None, Parameter(name="--as")] = None,
    out: str | None = None,
    storage: str | None = None,
) -> None:
    """Open a run's film, a page with all its results, or its report.

    Args:
        run: A run: its id or name, or `last`.
        what: What to open: by default the film of the run, or the gallery if it has no film.
        out: The folder or URL of the files, instead of RH_STORAGE_URL.
        storage: Name of a MediaStorage block, instead of --out.
    """
    store, found, run = _found("open", out, storage, run)
    shown, name = _choice(store, found, run, what)
    address = _address(store, name)
    print(f"{shown}: {address}")
    if not webbrowser.open(address):
        print("open: no browser was found; open the address above in another program", file=sys.stderr)


def _address(store: MediaStore, name: str) -> str:
    from rh_prefect.media.store import link_to

    return link_to(store.uri(name), store) or store.uri(name)


def _choice(store: MediaStore, found: Sequence[Entry], run: str, what: What | None) -> tuple[What, str]:
    """Returns what to open for a run, and the name of the file in the storage."""
    from rh_prefect.gallery.pages import write_gallery
    from rh_prefect.pipelines.run.csv_report import report_name

    if what == "report":
        if not store.exists(report_name(run)):
            raise InputError(
                f"open: the run {run} has no report; only runs of pipelines and batches have one. What to do: open its "
                "gallery, or look at its page in Prefect's dashboard."
            )
        return "report", report_name(run)
    videos = [one for one in found if one.file and one.file.kind == "video"]
    used = {source for one in videos for source in one.sources}
    films = [one for one in videos if one.file and one.file.sha256 not in used]
    if what == "film" and not films:
        raise InputError(f"open: the run {run} has made no video. What to do: use --as gallery.")
    if what != "gallery" and films and (what == "film" or len(films) == 1) and films[0].file:
        return "film", films[0].saved_as or films[0].file.uri
    return "gallery", write_gallery(store, found, name=run)[0]


def _found(
    command: str, place: str | None, storage: str | None, run: str | None
) -> tuple[MediaStore, Sequence[Entry], str]:
    """Returns the outputs in a storage, or those of one run, and the name of the run's report."""
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.cli.gallery_outputs import entries_of, saved_contents
    from rh_prefect.cli.gallery_run_reports import files_of, jobs_of, last_run, of_run, report_of, with_reports
    from rh_prefect.media.store import MediaStore
    from rh_prefect.pipelines.last_run import LastRuns
    from rh_prefect.works.journal.works_journal import options_of_records, records_url

    settings = get_settings()
    named = f"--out {place}" if place is not None and command == "open" else place
    refuse_two_places(command, named, storage, nothing="written")
    # The run that has written here had these options, and records in RH_RECORDS.
    options = settings.storage_options
    store = asyncio.run(load_storage(storage)) if place is None else MediaStore(place, options=options)
    where = records_url(store, settings)
    records = store if where == store.url else MediaStore(where, options=options_of_records(where, store, settings))
    found, run = with_reports(store, entries_of(store, records)), run or ""
    if run:
        run = last_run(store, found) if run == _LAST else report_of(store, run)
        files, jobs = files_of(store, run), jobs_of(store, run)
        found = of_run(found, run, files, jobs, saved_contents(store, records)) if run else []
        if not found and (last := asyncio.run(LastRuns(records).read(run))):
            return _found(command, place, storage, last.run)  # `run` is a pipeline whose runs paid for nothing
    if not found:
        what, todo = "yet", "run a flow or a pipeline first"
        if run:
            what = f"of the run {run!r}"
            todo = "give the id of the outermost flow run: the records do not name flow runs without paid jobs"
        places = "--out or --storage" if command == "open" else "its folder or --storage"
        raise InputError(
            f"{command}: {store.url} has no results {what}. Nothing was written. What to do: name another place with "
            f"{places}, or {todo}."
        )
    return store, found, run
