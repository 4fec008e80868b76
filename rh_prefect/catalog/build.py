"""Makes the catalogue's files: the slim data file from a registry file, and from that the stubs and the count in docs.

python -m rh_prefect.catalog.build SOURCE           rewrites the data file, the stubs and the count
python -m rh_prefect.catalog.build                  rewrites the stubs and the count
python -m rh_prefect.catalog.build --check          fails where one of these does not fit the data file
python -m rh_prefect.catalog.build --check SOURCE   ... or the data file does not fit the source
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import unified_diff
from itertools import islice
from pathlib import Path

from rh_prefect.catalog import stub
from rh_prefect.catalog.changes import changes
from rh_prefect.catalog.data_file import decoded, dumps, slim
from rh_prefect.catalog.model import Model
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.errors import InputError

STUB_FILE = SLIM_FILE.parent.parent / "models.pyi"
TASKS_FILE = SLIM_FILE.parent.parent / "tasks" / "endpoints.pyi"
PAGE_FILE = SLIM_FILE.parents[2] / "docs" / "models.md"
"""The one place that says how many models there are, in the line after its mark; a wheel does not hold it."""

_MARK = "<!-- Written by `python -m rh_prefect.catalog.build`. -->"
_Renderer = Callable[[Iterable[Model]], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code: 1 where `--check` found a difference, 2 where the source cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rh_prefect.catalog.build", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("source", nargs="?", type=Path, help="a registry file in this package's own form")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    parser.add_argument("--stub", type=Path, default=STUB_FILE, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=Path, default=TASKS_FILE, help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, default=PAGE_FILE, help=argparse.SUPPRESS)
    parser.add_argument("--slim", type=Path, default=SLIM_FILE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        stubs: dict[_Renderer, Path] = {stub.render: options.stub, stub.render_tasks: options.tasks}
        return _run(options.source, check=options.check, slim_file=options.slim, stubs=stubs, page=options.page)
    except (OSError, ValueError, InputError) as error:
        sys.stderr.write(f"{options.source or options.slim}: {error}\n")
        return 2


def _run(source: Path | None, *, check: bool, slim_file: Path, stubs: Mapping[_Renderer, Path], page: Path) -> int:
    content = json.loads(slim_file.read_bytes()) if source is None or (check and slim_file.exists()) else {"models": []}
    wanted = slim(json.loads(source.read_bytes())) if source else content
    models = decoded(content if check else wanted)
    files = {file: render(models) for render, file in stubs.items()}
    if page.exists():
        files[page] = _counted(
            page.read_text(encoding="utf-8"), models, str((content if check else wanted).get("version", ""))
        )
    if check:
        return _check(list(changes(content, wanted).lines()), files)
    if source:
        slim_file.write_text(dumps(wanted), encoding="utf-8")
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(wanted['models'])} models written\n")
    return 0


def _counted(text: str, models: Sequence[Model], version: str) -> str:
    counts = Counter(model.status for model in models)
    line = (
        f"{len(models)} models are known as of {version[:10]}: {counts['current']} current, {counts['deprecated']} "
        f"deprecated and {counts['gone']} that RunningHub's newest lists no longer have."
    )
    head, mark, rest = text.partition(f"{_MARK}\n")
    return f"{head}{mark}{line}\n{rest.partition(chr(10))[2]}" if mark else text


def _check(stale: list[str], files: Mapping[Path, str]) -> int:
    if stale:
        sys.stderr.write(f"The data file does not fit the source ({len(stale)} models):\n{_first(stale)}")
    drifted = [file for file, text in files.items() if _drift(file, text)]
    if drifted:
        sys.stderr.write("Run `python -m rh_prefect.catalog.build` to write it anew.\n")
    return 1 if stale or drifted else 0


def _drift(file: Path, rendered: str) -> bool:
    written = file.read_text(encoding="utf-8") if file.exists() else ""
    if written == rendered:
        return False
    drift = unified_diff(written.splitlines(), rendered.splitlines(), file.name, "expected", n=0, lineterm="")
    sys.stderr.write(f"The file does not fit the data file:\n{_first(drift)}")
    return True


def _first(lines: Iterable[str], limit: int = 20) -> str:
    return "".join(f"  {line[:160]}\n" for line in islice(lines, limit))


if __name__ == "__main__":
    sys.exit(main())
