"""The page of all models: its data, from the catalogue, and its markup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.descriptions import example, limits, summary
from rh_prefect.catalog.model import Model, Param, text_of
from rh_prefect.catalog.tags import inputs_of, tags_of

PAGE = """\
# All models

Search for the name of a model, or for what it does. Click a model to see its parameters, an example, and the date of
its price. RunningHub can charge a different price.

<form class="models-form">
<input type="search" placeholder="lip sync, upscale, kling …" aria-label="Words">
<select aria-label="Makes"><option value="">makes anything</option></select>
<select aria-label="Takes"><option value="">takes anything</option></select>
<select aria-label="Order"><option>by name</option><option>by price</option></select>
</form>
<p class="models-count"></p>
<div class="models-list"></div>
<script src="assets/models-data.js"></script>
<script src="assets/models.js"></script>

[How models are called](models.md) · on the command line: `rh-prefect models search` and `rh-prefect models show`.
"""


def data() -> str:
    """All models, as a script: a page that is opened from a disk may not read a file of data."""
    models = sorted(catalog.models(), key=lambda model: model.name)
    return f"window.RH_MODELS = {json.dumps([_shown(one) for one in models], ensure_ascii=False)};\n"


def _shown(model: Model) -> dict[str, Any]:
    values = example(model)
    tags = list(tags_of(model))
    return {
        "name": model.name,
        "output": model.output,
        "inputs": sorted(inputs_of(model)),
        "price": str(model.price) if model.price else "price not published",
        "least": None if model.price is None else float(model.price.least),
        "status": model.status,
        "tags": tags,
        "about": summary(model),
        "search": " ".join([model.name, model.endpoint, model.class_name, *tags, model.output]).lower(),
        "params": [list(_param(param)) for param in model.params],
        "yaml": as_yaml(model, values),
        "python": as_python(model, values),
    }


def _param(param: Param) -> Iterator[str | bool]:
    yield param.name
    yield param.required
    yield f"list of {param.type}" if param.multiple else param.type
    yield "" if param.default is None else text_of(param.default)
    yield "; ".join(part for part in (", ".join(param.options), limits(param)) if part)


def as_yaml(model: Model, values: Mapping[str, object]) -> str:
    """A pipeline of one step with the model; its files are parameters."""
    files = {param.name: param for param in model.params if param.is_media and param.name in values}
    head = "params:\n" + "".join(f"  {name}: {{type: {one.type}}}\n" for name, one in files.items()) if files else ""
    references = {name: f"[$(params.{name})]" if one.multiple else f"$(params.{name})" for name, one in files.items()}
    texts = {name: references.get(name) or json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    given = "".join(f"\n      {name}: {text}" for name, text in texts.items())
    return f"{head}steps:\n  result:\n    model: {model.name}" + (f"\n    with:{given}" if given else "")


def as_python(model: Model, values: Mapping[str, object]) -> str:
    """A call of the model, in a flow."""
    given = "".join(f"\n    {name}={value!r}," for name, value in values.items())
    inner = f"models.{model.class_name}({given}\n)" if given else f"models.{model.class_name}()"
    return f"result = await generate({inner})"
