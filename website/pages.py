"""The pages of the site: those of docs/, and those that are made from the code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from cyclopts import App

import rh_prefect
from rh_prefect import client, errors, flows, settings, tasks
from rh_prefect.cli import app
from rh_prefect.emulator import assumptions

ROOT = Path(__file__).parents[1]

BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the repository's top, and their names on the site."""

_LONGEST_VALUE = 60
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def written_pages() -> Iterator[tuple[str, str]]:
    """Name and text of each page that a person writes, with links as the site has them."""
    for source, name in BESIDE.items():
        yield name, _with_links((ROOT / source).read_text(encoding="utf-8"), ROOT, "")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").as_posix()
        yield name, _with_links(page.read_text(encoding="utf-8"), page.parent, "../" * name.count("/"))


def _with_links(text: str, folder: Path, up: str) -> str:
    def link(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve().relative_to(ROOT).as_posix()
        if (target.startswith("docs/") and target.endswith(".md")) or target.startswith("docs/images/"):
            return f"]({up}{target.removeprefix('docs/')}{found[2] or ''})"
        if target in BESIDE:
            return f"]({up}{BESIDE[target]}{found[2] or ''})"
        raise ValueError(f"The site has no page for the link to {target}.")

    return _LINK.sub(link, text)


def with_picture(text: str, name: str, shows: str) -> str:
    """Puts a pipeline's picture below the first heading of its page."""
    title, _, rest = text.partition("\n\n")
    said = f"The outputs of the example ({shows}). The emulator made them: it draws the prompt in place of a model."
    return f"{title}\n\n![{said}](../images/pipelines/{name}.jpg)\n\n*{said}*\n\n{rest}"


def commands() -> str:
    """Every command with its options, as `--help` shows them."""
    head = "# Commands\n\n`rh-prefect COMMAND --help` shows the same texts."
    return "\n\n".join([head, *(_command(name, one) for name, one in _leaves(app, "rh-prefect"))])


def _leaves(commands: App, name: str) -> Iterator[tuple[str, App]]:
    for each in commands:
        if not each.startswith("-"):
            below = list(_leaves(commands[each], f"{name} {each}"))
            yield from below or [(f"{name} {each}", commands[each])]


def _command(name: str, one: App) -> str:
    text = one.generate_docs(recursive=False, heading_level=2, usage_name=name)
    return re.sub(r"^## .*", f"## {name.removeprefix('rh-prefect ')}", text.strip()).replace("```console", "```text")


def schema_page() -> str:
    """Where the schema of pipelines is, and what it has."""
    return (
        "# The schema of the language\n\n[pipelines.schema.json](pipelines.schema.json) is the JSON schema of a "
        "pipeline's file: all keys, models and edits. `rh-prefect schema film.yaml` writes one that also has the "
        "parameters of the models that the file uses. [Editor](pipelines.md#editor) says how an editor uses it. "
        "The meaning of each key is in the [language](pipelines.md#file).\n"
    )


def assumptions_page() -> str:
    """Every assumption of the emulator, with its value where that is short, and its evidence."""
    head = ("name", "value", "what it answers", "evidence")
    lines = [head, ("---",) * len(head), *_assumptions()]
    rows = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"# The emulator's assumptions\n\nSee [assumptions](emulator.md#assumptions).\n\n{rows}\n"


def _assumptions() -> Iterator[tuple[str, ...]]:
    """Each field with the text below it, which says what the question is and what the answer rests on."""
    (owner,) = ast.parse(inspect.getsource(assumptions.Assumptions)).body
    statements = owner.body if isinstance(owner, ast.ClassDef) else []
    for statement, words in pairwise(statements):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        said = words.value.value if isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant) else ""
        value = repr(getattr(assumptions.DEFAULT, name))
        question, _, evidence = " ".join(str(said).split()).partition(" Evidence: ")
        yield f"`{name}`", f"`{value}`" if len(value) <= _LONGEST_VALUE else "see there", question, evidence


def api_pages() -> Iterator[tuple[str, str]]:
    """The pages of the public Python names, from their docstrings."""
    public = {name: getattr(rh_prefect, name) for name in dir(rh_prefect) if name != "models"}
    yield "api/rh_prefect.md", _api("Calls and results", "Names of `rh_prefect`.", public)
    theirs = {name: getattr(tasks, name) for name in tasks.__all__ if name not in public}
    yield "api/tasks.md", _api("Platform tasks", "Names of `rh_prefect.tasks`; see [coverage](../coverage.md).", theirs)
    of_flows = {name: getattr(flows, name) for name in flows.__all__ if name not in public}
    yield "api/flows.md", _api("Flows", "Names of `rh_prefect.flows`.", of_flows)
    kinds = {name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}
    kinds = {name: one for name, one in kinds.items() if one.__module__ == errors.__name__}
    yield "api/errors.md", _api("Errors", "Names of `rh_prefect.errors`; see [errors](../errors.md).", kinds)
    of_settings = {"Settings": settings.Settings, "get_settings": settings.get_settings}
    yield "api/settings.md", _api("Settings", "See [settings](../settings.md) for the variables.", of_settings)
    of_client = {name: getattr(client, name) for name in client.__all__}
    of_client = {name: one for name, one in of_client.items() if inspect.isclass(one)}
    yield "api/client.md", _api("Client", "Names of `rh_prefect.client`: RunningHub's API without Prefect.", of_client)


def _api(title: str, words: str, names: Mapping[str, Any]) -> str:
    return "\n\n".join([f"# {title}", words, *(f"::: {_address(name, one)}" for name, one in names.items())]) + "\n"


def _address(name: str, one: Any) -> str:
    """Where a name is defined, which is where its docstring is."""
    module = getattr(getattr(one, "fn", one), "__module__", None)
    return f"{module}.{name}"


def index_of(pages: Iterable[tuple[str, str]]) -> str:
    """`llms.txt`: what the project is, and its pages, each with its first sentence."""
    lines = [
        "# rh_prefect",
        "",
        "> Paid media jobs on RunningHub as Prefect tasks, flows and YAML pipelines, never paid for twice.",
        "",
        "## Pages",
        "",
    ]
    for name, text in pages:
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", next(_paragraphs(text), ""))
        lines.append(f"- [{title[1] if title else name}]({name}): {' '.join(words.split())[:300]}")
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    return (one for one in re.split(r"\n\n+", text) if re.match(r"[A-Z`]", one))
