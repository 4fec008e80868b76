"""`rh-prefect init`: writes a shipped pipeline with example inputs, ready to plan and run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rh_prefect.errors import InputError
from rh_prefect.pipelines.check.checked_file import SHIPPED
from rh_prefect.pipelines.parsed_document import nearest
from rh_prefect.pipelines.pipeline import shipped_names

EXAMPLES = SHIPPED / "examples"
_SCORE = "`score` is a building block for other pipelines, as in `use: rh:score`."


def init(
    *,
    example: Annotated[str, Parameter(help=f"Which shipped pipeline: {', '.join(shipped_names())}. {_SCORE}")] = "film",
    to: Path | None = None,
) -> None:
    """Write a shipped pipeline with example inputs, ready to plan and to run.

    Args:
        to: The pipeline's file; default EXAMPLE.yaml.
    """
    if example not in shipped_names():
        raise InputError(
            f"There is no example {example}. Nothing was written. What to do: use the name of a shipped pipeline; "
            f"{nearest(example, shipped_names())}"
        )
    target = to or Path(f"{example}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"{target} is not a valid name for a pipeline file. Nothing was written. What to do: end the name with "
            f".yaml, as in --to {example}.yaml."
        )
    written = write_example(example, target)
    params = written[1]
    print("\n".join(f"written: {file}" for file in written))
    words = shlex.join([str(target), "--params", str(params)])
    print(f"Next: `rh-prefect plan {words}`, then `rh-prefect run {words}`.")


def write_example(name: str, target: Path) -> list[Path]:
    """Writes a shipped pipeline, its parameters and inputs, and returns the files; never replaces a file."""
    writers = dict(_files(name, target))
    for file in writers:
        if file.exists():
            raise InputError(f"{file} exists already. Nothing was written. What to do: name another file with --to.")
    for file, write in writers.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file)
        except OSError as error:
            raise InputError(
                f"{file} cannot be written: {error.strerror}. What to do: name another file with --to."
            ) from None
    return list(writers)


def _files(name: str, target: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    from rh_prefect.cli.example_media import MEDIA

    folder, data = EXAMPLES / name, target.with_suffix("")
    yield target, _text((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
    params = (folder / "params.yaml").read_text(encoding="utf-8").replace("DATA/", f"{data.as_posix()}/")
    yield target.with_suffix(".params.yaml"), _text(params)
    for file in sorted(folder.iterdir()):
        if file.name != "params.yaml":
            yield data / file.name, _text(file.read_text(encoding="utf-8"))
    for below, draw in MEDIA.get(name, {}).items():
        yield data / below, draw


def _text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content, encoding="utf-8")
