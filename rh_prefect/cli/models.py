"""`rh-prefect models`: searches and shows the catalogue's models."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from rh_prefect import catalog
from rh_prefect.catalog.model import Output
from rh_prefect.catalog.search import Found, Sort
from rh_prefect.catalog.tags import Input, inputs_of, tags_of
from rh_prefect.cli.options import Json
from rh_prefect.cli.output import print_json, print_rows, print_wrapped
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.catalog.user_catalog_merge import Refreshed

_SHOWN = 20
"""Default number of models in the table."""


def search(
    *words: str,
    output: Output | None = None,
    takes: Annotated[Input | None, Parameter(name="--input")] = None,
    max_price: NonNegativeFloat | None = None,
    sort: Sort = "relevance",
    with_old: Annotated[bool, Parameter(name="--all")] = False,
    limit: PositiveInt | None = None,
    as_json: Json = False,
) -> None:
    """Find models by what they do.

    Args:
        words: Search words, such as `lip sync`. Without words, all models are listed.
        output: Only models with this output type.
        takes: Only models that accept this input type, required or optional.
        max_price: Only models whose lowest price for one unit (a call, a second, ...) is at most this.
        sort: Sort order.
        with_old: Include deprecated models and models that are no longer listed.
        limit: How many to show; default 20; with --json, all.
    """
    found = catalog.find(" ".join(words), output=output, takes=takes, with_old=with_old, max_price=max_price, sort=sort)
    for note in found.notes:
        print(note, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print_json([_record(model) for model in found[:limit]])
    else:
        _show_table(found, limit or _SHOWN)


def show(model: str, *, as_json: Json = False) -> None:
    """Show a model's parameters, limits and price.

    Args:
        model: Any of its names: `kling-v2.6-pro-image-to-video`, its endpoint, or its class.
    """
    entry = catalog.get(model)
    if as_json:
        params = [
            {name: value for name, value in asdict(one).items() if value not in (None, "", (), False)}
            for one in entry.params
        ]
        print_json({**_record(entry), "summary": catalog.summary(entry), "params": params})
        return
    print(entry.name)
    print_wrapped(catalog.summary(entry), more="")
    print(f"\nmodels.{entry.class_name}(")
    for param in entry.params:
        note = catalog.describe(param)
        print_wrapped(f"{param.name}: {_type(param)}{_default(param)}" + (f"  # {note}" if note else ""), indent="    ")
    print(")")


def _record(model: catalog.Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "endpoint": model.endpoint,
        "class": model.class_name,
        "task": model.snake_name,
        "output": model.output,
        "inputs": inputs_of(model),
        "price": str(model.price) if model.price else None,
        "price_seen": model.price_seen or None,
        "status": model.status,
        "tags": tags_of(model),
    }


def _show_table(found: Found, limit: int) -> None:
    print_rows((model.name, model.output, f"models.{model.class_name}", _about(model)) for model in found[:limit])
    if len(found) > limit:
        print(f"… and {len(found) - limit} more; add search words, or use --limit {len(found)}")


def _about(model: catalog.Model) -> str:
    """Returns the price of a model, and its status unless the model is current."""
    price = str(model.price) if model.price else "price not known"
    return price if model.status == "current" else f"{price} ({model.status})"


def _type(param: catalog.Param) -> str:
    if param.options:
        one = " | ".join(repr(option) for option in param.options)
    elif param.min is not None or param.max is not None:
        least, most = ("" if bound is None else f"{bound:.12g}" for bound in (param.min, param.max))
        one = f"{param.type} {least}..{most}"
    else:
        one = param.type
    return f"list[{one}]" if param.multiple else one


def _default(param: catalog.Param) -> str:
    if param.default is not None:
        return f" = {param.default!r}"
    return "" if param.required else " (optional)"


_LARGEST_LIST = 16 * 2**20
"""Maximum bytes of a list; RunningHub's lists have about one million."""

_FORMATS = {
    "registry": "the registry of RunningHub's ComfyUI nodes",
    "capabilities": "the capabilities of RunningHub's tools",
    "prices": "RunningHub's price file",
    "catalogue": "rh_prefect's own format",
}


def refresh(file: str | None = None, *, date: str | None = None, reset: bool = False) -> None:
    """Update this user's models or prices from a public file, and show what changed.

    Args:
        file: Path or URL of a public list of models or prices.
        date: Date of the file (YYYY-MM-DD); default: its `version` field.
        reset: Restore the package's models.
    """
    from rh_prefect.catalog.registry import user_file
    from rh_prefect.catalog.user_catalog_merge import refresh as refresh_catalogue
    from rh_prefect.catalog.user_catalog_merge import reset as reset_catalogue
    from rh_prefect.media.input_files import open_input, shown

    if (file is None) is not reset:
        raise InputError(
            "models refresh takes either a file or `--reset`. Nothing was changed. What to do: pass one of them."
        )
    if file is None:
        there = reset_catalogue()
        print("the package's own models are used again" if there else "the package's own models are in use already")
        return
    with open_input(file) as reader:
        data = reader.read(_LARGEST_LIST + 1)
    if len(data) > _LARGEST_LIST:
        raise InputError(
            f"{shown(file)} is larger than {_LARGEST_LIST // 2**20} MiB. Nothing was changed. What to do: pass a "
            "smaller list of models or prices."
        )
    done = refresh_catalogue(data, shown(file), date=date)
    print("\n".join(_report(done)))
    print(str(done.changes))
    if user_file().exists():
        print(f"{user_file()} is used from now on; `rh-prefect models refresh --reset` undoes this.")


def _report(done: Refreshed) -> list[str]:
    from_when = f"of {done.date}" if done.date else "without a date"
    lines = [f"{_FORMATS[done.format]}, {from_when}: {done.entries} entries"]
    if done.is_addition:
        why = "It is older than the models in use" if done.date else "It has no date"
        remedy = "" if done.date else " If it is newer than the models in use, set its date with `--date YYYY-MM-DD`."
        lines.append(f"{why}: only missing models and prices are added; nothing else is changed.{remedy}")
    lines += done.changes
    if done.flaws:
        lines += ["not used:", *(f"  {flaw}" for flaw in done.flaws)]
    return lines
