"""`rh-prefect explain`: a pipeline's parameters, steps, models, outputs and price; `run FILE --help` shows the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel
from rich.console import Console
from rich.text import Text

from rh_prefect.cli.options import GIVEN, File, Given, Json, More
from rh_prefect.cli.output import print_json, print_rows
from rh_prefect.cli.pipelines import read_pipeline
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.file_model import GroupStep, Param, Step
from rh_prefect.pipelines.parameter_descriptions import call_price, description_of, output_words
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.pipeline import Pipeline, shipped_names
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.plan.render import prices

_EXAMPLES: Mapping[str, Any] = {"string": "x", "boolean": True, "integer": 1, "number": 1}


def explain(file: File | None = None, /, *, given: Given = GIVEN, as_json: Json = False, **more: More) -> None:
    """Show a pipeline's parameters with types, limits and defaults, its steps, models and outputs, and its price.

    Without a file, list the shipped pipelines.
    """
    if file is None:
        listed = {name: Pipeline.shipped(name).file.description for name in shipped_names()}
        print_json(listed) if as_json else print_rows(listed.items())
        return
    pipeline = read_pipeline(file, as_json=as_json)
    data = explanation(pipeline, given.arguments(pipeline, more))
    if as_json:
        print_json(data)
    else:
        show(data)


def explanation(pipeline: Pipeline, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of `explain` as plain JSON data."""
    given = pipeline.file.params
    return {
        "pipeline": pipeline.name,
        "description": pipeline.file.description,
        "params": {
            name: {
                **one.model_dump(exclude_defaults=True, exclude={"description"}),
                "type": one.kind,
                "description": description_of(one),
                "required": one.needs_value,
            }
            for name, one in given.items()
        },
        "steps": list(_steps(pipeline.checked)),
        "outputs": {name: output_words(type_) for name, type_ in pipeline.checked.outputs.items()},
        "price": _price(pipeline, arguments),
    }


def _steps(checked: Checked, before: str = "") -> Iterable[dict[str, str]]:
    """Yields the steps with their models and the price of one call; the steps of a used file follow the `use:` step."""
    for at, step in checked.file.walk():
        path = before + ".".join(map(str, at[1::2]))
        yield {"path": path, **_step(step)}
        if at in checked.uses:
            yield from _steps(checked.uses[at], f"{path}.")


def _step(step: Step) -> dict[str, str]:
    if isinstance(step, GroupStep):
        items = step.get("foreach") or step.get("matrix")
        return {"calls": f"for each of {items}" if items else "a group", "price": ""}
    called = str(getattr(step, step.action))
    if step.action != "model":
        return {"calls": f"{step.action} {called}", "price": "not known" if step.is_paid else "free"}
    return {"calls": called, "price": call_price(called)}


def _price(pipeline: Pipeline, arguments: Mapping[str, Any]) -> str:
    """Describes the price of a run without earlier results; missing parameters get example values."""
    needed = {name: one for name, one in pipeline.file.params.items() if one.needs_value}
    missing = {name: one for name, one in needed.items() if name not in arguments}
    examples = {name: _example(one) for name, one in missing.items()}
    lacking = [name for name, value in examples.items() if value is None]
    if lacking:
        return f"depends on {' and '.join(lacking)}: pass --{lacking[0]}"
    plan = asyncio.run(pipeline.plan({**arguments, **examples}, known=KnownWorks()))
    if plan.problems:
        return f"not known: {plan.problems[0].message}"
    least, expected, most = prices(plan.price)
    chosen = [f"{name}={value}" for name, value in examples.items() if missing[name].kind != "string"]
    words = f" with {' '.join(chosen)}" if chosen else ""
    return f"least {least}, expected {expected}, most {most} {plan.currency}{words}"


def _example(param: Param) -> Any:
    if param.kind == "enum":
        return param.options[0]
    if param.kind == "string" and param.min:
        return "x" * int(param.min)
    return param.min if param.min is not None and param.kind in ("integer", "number") else _EXAMPLES.get(param.kind)


def show(data: Mapping[str, Any]) -> None:
    """Prints an explanation as panels, like the help of a command."""
    params, outputs, steps = data["params"], data["outputs"], data["steps"]
    name = data["pipeline"]
    panels = {
        f"Parameters of {name}, as --NAME VALUE": [
            _entry(one, text["description"], required=text["required"]) for one, text in params.items()
        ],
        f"Steps of {name}": [
            _entry(one["path"], f"{one['calls']}{one['price'] and ': '}{one['price']}") for one in steps
        ],
        f"Outputs of {name}": [_entry(one, text) for one, text in outputs.items()],
        f"Price of {name}": [_entry("one run", data["price"])],
    }
    console = Console()
    if data["description"]:
        console.print(Text(visible(data["description"])))
    for title, entries in panels.items():
        if entries:
            panel = HelpPanel(format="parameter", title=Text(visible(title)), entries=entries)
            DefaultFormatter()(console, console.options, panel)


def _entry(name: str, description: str, *, required: bool = False) -> HelpEntry:
    return HelpEntry(positive_names=(visible(name),), description=Text(visible(description)), required=required)
