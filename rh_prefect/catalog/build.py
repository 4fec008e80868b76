"""Makes the catalogue's files: the slim data file from a registry file, and from that the stubs of models and tasks.

python -m rh_prefect.catalog.build SOURCE           rewrites the data file and the stubs
python -m rh_prefect.catalog.build                  rewrites the stubs
python -m rh_prefect.catalog.build --check          fails where a stub does not fit the data file
python -m rh_prefect.catalog.build --check SOURCE   ... or the data file does not fit the source
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from rh_prefect.catalog import stub
from rh_prefect.catalog.entry import Model, ParamType, decode_model
from rh_prefect.catalog.names import class_name
from rh_prefect.catalog.notes import extra_options, pattern_of, rules_of, shape_of
from rh_prefect.catalog.price import Unit, decode_price, text_of
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.errors import InputError

STUB_FILE = SLIM_FILE.parent.parent / "models.pyi"
TASKS_FILE = SLIM_FILE.parent.parent / "tasks" / "endpoints.pyi"
_Renderer = Callable[[Iterable[Model]], str]
_COUNTS = ("imageNum", "n", "maxImages")
_KEPT = ("key", "type", "default", "min", "max", "max_length", "max_items", "accept", "max_size_mb", "note")


def slim(source: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the slim form of a registry.

    Args:
        source: The registry file's content.

    Returns:
        The slim file's content: models by name, nothing that is the usual case.

    Raises:
        InputError: It is no registry, or two models would share a Python name.
    """
    try:
        models = [_model(raw) for raw in source["models"]]
        facts = {"version": source["version"], "source": source["source"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"This is not a model registry: {error!r} while it was read. Give another file.") from error
    _refuse_twins(models)
    return {**facts, "models": sorted(models, key=lambda model: str(model["name"]).lower())}


def dumps(content: Mapping[str, Any]) -> str:
    """Writes the slim file: one model a line, so that a change shows as one line.

    Args:
        content: What `slim` made.
    """
    head = {key: value for key, value in content.items() if key != "models"}
    lines = ",\n".join(json.dumps(model, ensure_ascii=False, separators=(",", ":")) for model in content["models"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "models": [\n{lines}\n]}}\n'


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Says how two slim files differ.

    Args:
        old: One content.
        new: The other.

    Returns:
        A line for each model that came (+), went (-) or changed (~, with what).
    """
    before = {model["name"]: model for model in old["models"]}
    after = {model["name"]: model for model in new["models"]}
    lines = [f"- {name}" for name in before if name not in after] + [
        f"+ {name}" for name in after if name not in before
    ]
    for name in sorted(before.keys() & after.keys()):
        what = _difference(before[name], after[name])
        lines.extend([f"~ {name}: {', '.join(what)}"] if what else [])
    return lines


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
    parser.add_argument(
        "source", nargs="?", type=Path, help="a registry file (models.json as the vendor's tools have it)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    parser.add_argument("--stub", type=Path, default=STUB_FILE, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=Path, default=TASKS_FILE, help=argparse.SUPPRESS)
    parser.add_argument("--slim", type=Path, default=SLIM_FILE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        stubs: dict[_Renderer, Path] = {stub.render: options.stub, stub.render_tasks: options.tasks}
        return _run(options.source, check=options.check, slim_file=options.slim, stubs=stubs)
    except (OSError, ValueError, InputError) as error:
        sys.stderr.write(f"{options.source or options.slim}: {error}\n")
        return 2


def _run(source: Path | None, *, check: bool, slim_file: Path, stubs: Mapping[_Renderer, Path]) -> int:
    content = json.loads(slim_file.read_bytes()) if source is None or (check and slim_file.exists()) else {"models": []}
    wanted = slim(json.loads(source.read_bytes())) if source else content
    models = decoded(content if check else wanted)
    files = {file: render(models) for render, file in stubs.items()}
    if check:
        return _check(changes(content, wanted), files)
    if source:
        slim_file.write_text(dumps(wanted), encoding="utf-8")
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(wanted['models'])} models written\n")
    return 0


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
    sys.stderr.write(f"The stub does not fit the data file:\n{_first(drift)}")
    return True


def _first(lines: Iterable[str], limit: int = 20) -> str:
    return "".join(f"  {line[:160]}\n" for line in islice(lines, limit))


def decoded(content: Mapping[str, Any]) -> list[Model]:
    """Reads all models of a slim file.

    Args:
        content: What `slim` made.
    """
    return [decode_model(raw) for raw in content["models"]]


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names the fields and parameters of a model that differ, and says how the price does."""
    fields = [key for key in sorted(old.keys() | new.keys()) if key != "params" and old.get(key) != new.get(key)]
    fields = [f"price ({_price_of(old)} -> {_price_of(new)})" if key == "price" else key for key in fields]
    before = {param["key"]: param for param in old.get("params", ())}
    after = {param["key"]: param for param in new.get("params", ())}
    signs = {key: "+" if key not in before else "-" if key not in after else "~" for key in {**before, **after}}
    return fields + [f"{sign}{key}" for key, sign in signs.items() if before.get(key) != after.get(key)]


def _price_of(model: Mapping[str, Any]) -> str:
    return str((decode_price(model["price"]) if model.get("price") else None) or "none")


def _refuse_twins(models: list[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        name = class_name(model["name"])
        if name in seen:
            raise InputError(f"The models {seen[name]!r} and {model['name']!r} would both be called {name} in Python.")
        seen[name] = model["name"]


def _model(raw: Mapping[str, Any]) -> dict[str, Any]:
    flags = {key: raw[key] for key in ("groups", "in_docs", "deprecated", "replaced_by", "incomplete") if raw.get(key)}
    provenance = {} if raw["provenance"] == "official-registry" else {"provenance": raw["provenance"]}
    made = {key: raw[key] for key in ("name", "endpoint", "output", "family")} | flags | provenance
    made["params"] = [_param(param) for param in raw["params"]]
    parts = {"rules": rules_of(raw["params"]), "price": _price(raw)}
    return made | {key: part for key, part in parts.items() if part}


def _param(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw["type"] not in get_args(ParamType):
        raise InputError(
            f"The parameter {raw['key']!r} has the type {raw['type']!r}, which this version does not know."
        )
    made = {key: raw[key] for key in _KEPT if key in raw}
    options = [*raw.get("options", ()), *extra_options(raw)]
    parts = {
        "required": raw["required"],
        "options": options,
        "multiple": raw.get("multiple", False),
        "step": raw.get("step") if raw.get("step") != 1 else None,
        "shape": shape_of(raw),
        "pattern": pattern_of(raw),
    }
    return made | {key: part for key, part in parts.items() if part}


def _price(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    price = raw.get("price")
    if not price:
        return None
    if price["unit"] not in get_args(Unit):
        raise InputError(f"{raw['name']} is priced per {price['unit']!r}, which this version does not know.")
    currency = {} if price["currency"] == "CNY" else {"currency": price["currency"]}
    amounts = {"fixed": price["fixed"]} if "fixed" in price else _rows(price["rules"])
    return {"unit": price["unit"], **_quantity(price["unit"], raw["params"]), **amounts, **currency}


def _rows(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by = list(rules[0]["when"])
    if any(rule["when"].keys() != set(by) for rule in rules):
        raise InputError(f"A price depends now on {', '.join(by)}, now on others; this version cannot read that.")
    return {"by": by, "rows": [[*(text_of(rule["when"][key]) for key in by), rule["price"]] for rule in rules]}


def _quantity(unit: str, params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which parameter says how many units a call takes."""
    keys = [param["key"] for param in params]
    if unit in ("second", "second, from", "5 seconds"):
        return {"per": "duration"} if "duration" in keys else {}
    if unit == "1000 characters":
        return {"per": next(key for key in ("text", "prompt") if key in keys)}
    counts = [key for key in _COUNTS if key in keys]
    if unit != "image" or not counts:
        return {}
    # A series is made only on demand; without it `maxImages` counts for nothing.
    series = {"per_when": {"sequentialImageGeneration": "auto"}} if "sequentialImageGeneration" in keys else {}
    return {"per": counts[0], **series}


if __name__ == "__main__":
    sys.exit(main())
