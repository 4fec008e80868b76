"""The report of a run: one artifact with its results, cost, failures and steps."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect import artifacts
from rh_prefect.display_texts import shortened
from rh_prefect.errors import RunningHubError
from rh_prefect.media.input_files import fetch, naming
from rh_prefect.media.media import Media
from rh_prefect.media.store import LONGEST_LINK, MediaStore, link_to
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.run.result import StepReport

MOST_ROWS = 200
"""Maximum number of steps and of outputs in a report; the table file has all of them."""

PER_SHEET = 12
"""Maximum number of pictures on one contact sheet; more pictures would be too small."""

_SHEET_BYTES, _SHEET_SIDE, _WIDE = 60_000, 1024, 6
_LONGEST_REASON, _LONGEST_TEXT, _MOST_REASONS = 240, 300, 20
# Characters of a line in a cell: the default dashboard breaks no lines in tables, and hides what does not fit.
_NAME, _REASON, _FILE = 30, 42, 26
_IN_LINK = str.maketrans("|`<>*\\", "¦'‹›·/")
_COLUMNS = ("step", "state", "cost", "reason", "result")
_FIRST = ("failed", "unknown", "cancelled", "not run", "unfinished", "waits for review")
_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of a run's report, which is one artifact in Prefect."""

    head: str  # The outcome and the cost in one sentence, as in the state's message
    steps: Sequence[StepReport]
    store: MediaStore | None  # Where the files are; None if it cannot be used
    outputs: Mapping[str, Any] = field(default_factory=dict)  # Files, texts and lists of them, by name
    table: str = ""  # The URI of the file with all steps
    gallery: str = ""  # The URI of the page of the outputs
    choices: Sequence[str] = ()  # Paragraphs about the reviews that wait for a choice

    async def show(self, *, page: artifacts.Page | None = None) -> None:
        """Shows the report as the artifact `<name>-report` of a run."""
        steps = {file: one.step for one in self.steps for file in one.files}
        # An item of a list is known by its step, as in `each[A-17].clip`.
        values = [
            (steps.get(one.uri, name) if isinstance(one, Media) and name.endswith("]") else name, one)
            for name, one in values_in(self.outputs)
        ]
        pictures = [(name, value) for name, value in values if isinstance(value, Media)]
        parts = [*self.choices, *(await sheets(pictures, self.store, most=PER_SHEET) if self.store else ())]
        parts += await asyncio.to_thread(lambda: list(self._tables(values)))
        text = "\n\n".join(part for part in parts if part)
        await artifacts.markdown(text, what="report", description=self.head, page=page)

    def _tables(self, values: Sequence[tuple[str, Any]]) -> Iterator[str]:
        if values:
            yield table(("result", ""), (_shown(name, one, self.store) for name, one in values[:MOST_ROWS]))
        yield from artifacts.not_shown(MOST_ROWS, len(values), "results")
        if self.store is not None:
            yield self._place(self.store)
        yield from self._failures()
        steps = sorted(self.steps, key=lambda one: _FIRST.index(one.state) if one.state in _FIRST else len(_FIRST))
        if steps:
            rows = [_row(one, self.store) for one in steps[:MOST_ROWS]]
            columns = [n for n in range(len(_COLUMNS)) if n == 0 or any(row[n] for row in rows)]
            shown = ([row[n] for n in columns] for row in rows)
            yield f"### Steps\n\n{table([_COLUMNS[n] for n in columns], shown)}"
        yield from artifacts.not_shown(MOST_ROWS, len(steps), "steps")

    def _place(self, store: MediaStore) -> str:
        file = f" All steps: {linked(self.table, 'report.csv', store)}." if self.table else ""
        page = f" All outputs: {linked(self.gallery, 'gallery', store)}." if self.gallery else ""
        days = "" if store.protocol == "file" else f" Links are valid for at most {LONGEST_LINK // 86400} days."
        return f"Files: {linked(store.url, store.url, store)}.{file}{page}{days}"

    def _failures(self) -> Iterator[str]:
        """Yields each reason once, with the steps that failed for this reason."""
        steps = defaultdict[str, list[str]](list)
        for one in self.steps:
            if one.state in ("failed", "unknown"):
                steps[one.reason.removeprefix(f"{one.step}: ")].append(one.step)
        lines = [f"- **{escaped(_listed(names))}**: {escaped(reason)}" for reason, names in steps.items()]
        if lines:
            more = artifacts.not_shown(_MOST_REASONS, len(lines), "reasons")
            yield "\n".join(["### What failed\n", *lines[:_MOST_REASONS], *more])


def linked(uri: str, name: str, store: MediaStore | None) -> str:
    """Returns a link to a file in Markdown for a person's browser; the address as text if browsers cannot open it."""
    url = link_to(uri, store)
    # The default dashboard shows a backslash in the text of a link.
    return f"[{visible(name).translate(_IN_LINK)}](<{url}>)" if url else f"{escaped(name)}: {wrapped(uri, _REASON)}"


def file_name(uri: str, step: str) -> str:
    """Returns the name of a file for display: without a job's key, or the step's name if the name is a content hash."""
    stem, dot, ending = uri.rpartition("/")[2].rpartition(".")
    stem = re.sub(r"-?[0-9a-f]{16,64}(-1)?$", "", stem) or step.rpartition(".")[2]
    return f"{shortened(stem, _FILE)}{dot}{ending}"


def escaped(text: str) -> str:
    """Returns text as one line, with Markdown escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", visible(" ".join(text.split())))


def wrapped(text: str, width: int) -> str:
    """Returns text for a table cell, in lines of at most `width` characters."""
    return "<br>".join(map(escaped, textwrap.wrap(" ".join(text.split()), width)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table, whose cells are Markdown as well."""
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(one: StepReport, store: MediaStore | None) -> tuple[str, ...]:
    about = (one.model if one.model != one.step else "", shortened(one.subject, _NAME))
    name = "<br>".join(wrapped(part, _NAME) for part in (one.step, *about) if part)
    seconds = f"{one.seconds:.0f} s" if one.seconds and one.seconds >= 1 else ""
    cost = "<br>".join(filter(None, (one.cost.replace("1 task of unknown cost", "unknown"), seconds)))
    # The state of an absent step says enough; its reason would push the results out of a narrow page.
    why = "" if one.state == "absent" else one.reason.removeprefix(f"{one.step}: ")
    reason = wrapped(shortened(why, _LONGEST_REASON), _REASON)
    more = f"<br>and {len(one.files) - 1} more" if len(one.files) > 1 else ""
    file = linked(one.files[0], file_name(one.files[0], one.step), store) + more if one.files else ""
    return name, one.state, cost, reason, file


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def values_in(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields each individual value of the outputs with its name, as in `clips[2]`; lists and mappings are unpacked."""
    for name, value in outputs.items():
        if isinstance(value, list | tuple):
            yield from values_in({f"{name}[{number}]": one for number, one in enumerate(value, 1)})
        elif isinstance(value, dict):
            yield from values_in({f"{name}.{key}": one for key, one in value.items()})
        elif value is not None:
            yield name, value


def _shown(name: str, value: Any, store: MediaStore | None) -> tuple[str, str]:
    if not isinstance(value, Media):
        return wrapped(name, _NAME), wrapped(shortened(str(value), _LONGEST_TEXT), 2 * _REASON)
    return linked(value.uri, shortened(name, 2 * _NAME), store), escaped(value.facts)


async def sheets(pictures: Sequence[tuple[str, Media]], store: MediaStore, *, most: int) -> list[str]:
    """Returns contact sheets of at most `most` images and videos with captions, as paragraphs of Markdown."""
    pictures = [(name, file) for name, file in pictures if file.kind in ("image", "video") and file.defect is None]
    parts = [pictures[start : min(start + PER_SHEET, most)] for start in range(0, min(len(pictures), most), PER_SHEET)]
    found = [(part, await _sheet(part, store)) for part in parts]
    shown = sum(len(part) for part, picture in found if picture)
    return [*(picture for _, picture in found if picture), *artifacts.not_shown(shown, len(pictures), "pictures")]


async def _sheet(pictures: Sequence[tuple[str, Media]], store: MediaStore) -> str:
    """Returns a contact sheet as an image in Markdown; empty if it cannot be made."""
    try:
        jpeg = await asyncio.to_thread(_drawn, pictures, store)
    except (RunningHubError, OSError) as error:  # also of the folder for temporary files
        _log.warning("The report has no picture of the results: %s", error)
        return ""
    # Inline: the browser that shows it reaches neither a local folder nor a private bucket.
    return f"![contact sheet](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


def _drawn(pictures: Sequence[tuple[str, Media]], store: MediaStore) -> bytes:
    # numpy takes 17 MB, and many runs have no pictures.
    from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, thumbnail

    with TemporaryDirectory(prefix="rh-sheet-") as folder:
        copies = {Path(folder) / f"{number}-{file.name}": file for number, (_, file) in enumerate(pictures)}
        with naming(copies):
            for copy, file in copies.items():
                fetch(file, copy, options=store.options_for(file))
            sheet, columns = Path(folder) / "sheet.jpg", 3 if len(pictures) <= _WIDE else 4
            contact_sheet([*copies], sheet, columns=columns, captions=[visible(name) for name, _ in pictures])
        return thumbnail(sheet, max_bytes=_SHEET_BYTES, side=_SHEET_SIDE)
