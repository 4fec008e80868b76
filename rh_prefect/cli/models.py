"""`rh-prefect models`: what RunningHub can make."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from rh_prefect import catalog


def search(
    *words: str,
    output: Annotated[Literal["image", "video", "audio", "3d", "text"] | None, Parameter(help="Only these.")] = None,
    limit: Annotated[int, Parameter(help="How many to show.")] = 20,
) -> None:
    """Find models by words.

    Args:
        words: As in `kling image to video`; none lists all.
        output: Only models that make this.
        limit: How many to show.
    """
    found = catalog.find(" ".join(words), output=output)
    width = max((len(model.name) for model in found[:limit]), default=0)
    for model in found[:limit]:
        print(f"{model.name:{width}}  {model.output:5}  models.{model.class_name}  {_price(model)}".rstrip())
    if len(found) > limit:
        print(f"… and {len(found) - limit} more; narrow it down, or --limit {len(found)}")
    if not found:
        print("no model matches; try fewer words")


def show(model: str) -> None:
    """Show a model's parameters, limits and price.

    Args:
        model: Any of its names: `kling-v2.6-pro-image-to-video`, its endpoint, or its class.
    """
    entry = catalog.get(model)
    print(f"{entry.name}\n{catalog.summary(entry)}\n\nmodels.{entry.class_name}(")
    for param in entry.params:
        note = catalog.describe(param)
        print(f"    {param.name}: {_type(param)}{_default(param)}" + (f"  # {note}" if note else ""))
    print(")")


def _price(model: catalog.Model) -> str:
    return str(model.price) if model.price else ""


def _type(param: catalog.Param) -> str:
    if param.options:
        one = " | ".join(repr(option) for option in param.options)
    elif param.min is not None or param.max is not None:
        least, most = ("" if bound is None else f"{bound:g}" for bound in (param.min, param.max))
        one = f"{param.type} {least}..{most}"
    else:
        one = param.type
    return f"list[{one}]" if param.multiple else one


def _default(param: catalog.Param) -> str:
    if param.default is not None:
        return f" = {param.default!r}"
    return "" if param.required else " (optional)"
