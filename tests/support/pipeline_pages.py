"""The parts of docs/pipelines/ that are made from the shipped pipelines and the example inputs of `rh-prefect init`."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from rh_prefect.cli.init import EXAMPLES, write_example
from rh_prefect.cli.options import Given
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.pipeline import Pipeline, shipped_names
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.render import prices
from tests.support.samples.example_prices import GIVEN

SHIPPED = tuple(
    name
    for name in shipped_names()
    if name not in ("score", "image-to-video", "upscale", "add-soundtrack", "assemble", "captions")
)
"""Those that have a page."""

PICTURES = "../images/pipelines"
"""The folder of the pictures, as the pages link it."""


def picture(name: str) -> str:
    return _example(name)[1].svg() + "\n"


def overview() -> str:
    """The table of the shipped pipelines, with their prices for larger inputs."""
    rows = [
        f"| [`{name}`](pipelines/{name}.md) | {Pipeline.shipped(name).file.description} | {of} | {price} |"
        for name, (_, price, of) in GIVEN.items()
    ]
    head = ["| Name | Makes | For | Least / expected / most |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


def page(name: str) -> str:
    files, plan = _example(name)
    inputs = sorted((EXAMPLES / name).iterdir(), key=lambda file: file.suffix, reverse=True)
    _, price, of = GIVEN[name]
    return "\n\n".join(
        [
            "## Example",
            f"`init` writes {', '.join(f'`{file}`' for file in files[:-1])} and `{files[-1]}`.",
            *(_shown(name, file) for file in inputs),
            "## Parameters",
            _parameters(name),
            "## Steps and prices",
            f"![The steps of {name}]({PICTURES}/{name}.svg)",
            (
                f"| A run of | Least / expected / most, in CNY by the catalogue of {plan.catalogue.partition('+')[0]} |"
                f"\n| --- | --- |\n| the example | {' / '.join(prices(plan.price))} |\n| {of} | {price} |"
            ),
        ]
    )


@cache
def _example(name: str) -> tuple[tuple[str, ...], Plan]:
    with tempfile.TemporaryDirectory() as folder:
        written = write_example(name, Path(folder) / f"{name}.yaml")
        pipeline = Pipeline.from_file(written[0])
        plan = pipeline.plan_now(Given(params=written[1]).arguments(pipeline))
        return tuple(file.relative_to(folder).as_posix() for file in written), plan


def _shown(name: str, file: Path) -> str:
    is_params = file.suffix == ".yaml"
    title = f"{name}.params.yaml" if is_params else f"{name}/{file.name}"
    text = file.read_text(encoding="utf-8").replace("DATA/", f"{name}/").rstrip()
    return f"`{title}`:\n\n```{'yaml' if is_params else 'text'}\n{text}\n```"


def _parameters(name: str) -> str:
    rows = [
        f"| `{param}` | {_type(one)} | {_default(one)} | {one.description or ''} |"
        for param, one in Pipeline.shipped(name).file.params.items()
    ]
    return "\n".join(["| Name | Type | Default | Meaning |", "| --- | --- | --- | --- |", *rows])


def _type(param: Param) -> str:
    match param.kind:
        case "enum":
            return ", ".join(f"`{option}`" for option in param.options)
        case "table":
            columns = (param.columns or {}).items()
            return "table: " + ", ".join(f"`{key}`{' (optional)' if one.optional else ''}" for key, one in columns)
        case "files":
            return f"files: {param.of}"
    of = " characters" if param.kind == "string" else ""
    most = [(param.max_mb, " MB"), (param.max_seconds, " s")]
    said = [f"at most {_number(limit)}{unit}" for limit, unit in most if limit is not None]
    if param.min is not None and param.max is not None:
        said.append(f"{_number(param.min)} to {_number(param.max)}{of}")
    elif param.min is not None or param.max is not None:
        word, limit = ("at least", param.min) if param.min is not None else ("at most", param.max)
        said.append(f"{word} {_number(limit or 0)}{of}")
    return ", ".join([str(param.kind), *said])


def _number(limit: float) -> str:
    return f"{limit:,.0f}" if limit == int(limit) else f"{limit:g}"


def _default(param: Param) -> str:
    if param.kind == "table" and param.default is not None:
        return f"{len(param.default)} rows"
    if isinstance(param.default, bool):
        return f"`{str(param.default).lower()}`"
    return f"`{param.default}`" if param.default is not None else "empty" if param.optional else "required"
