"""Writes the parts of docs/ that are made from code: `python -m tests.support.doc_tables`.

Each lies between two comments, `<!-- name: … -->` and `<!-- end -->`; tests compare what stands there with what is
made here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from rh_prefect import errors
from tests.support import guarantees, pipeline_pages
from tests.support.samples import public_client_payloads

DOCS = Path(__file__).parents[2] / "docs"


def tree() -> str:
    """The classes of errors, each with the first line of its docstring."""
    return "\n".join(["```text", errors.RunningHubError.__name__, *_branches(errors.RunningHubError, ""), "```"])


def _branches(kind: type[errors.RunningHubError], indent: str) -> Iterator[str]:
    kinds = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    for number, one in enumerate(kinds, 1):
        corner, rule = ("└── ", "    ") if number == len(kinds) else ("├── ", "│   ")
        note = "(transient) " if issubclass(one, errors.Transient) else ""
        words = (inspect.getdoc(one) or "").partition("\n")[0]
        yield f"{indent}{corner}{one.__name__}".ljust(28) + f"{note}{words}"
        yield from _branches(one, indent + rule)


def codes() -> str:
    head = ("code", "class", "then", "meaning", "what to do", "a retry pays again")
    rows = (
        (
            f"`{code}`",
            f"`{row.error.__name__}`",
            f"`{row.retry}`",
            row.meaning,
            row.advice,
            "yes" if row.new_task else "",
        )
        for code, row in sorted(errors.CODES.items(), key=lambda item: (not item[0].isdigit(), item[0].zfill(9)))
    )
    return _table(head, rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def promises(rows: Mapping[str, list[str]]) -> str:
    """What is promised, each with its first test."""
    proofs = (
        (words, f"`{first}`" + (f" and {len(more)} more" if more else "")) for words, (first, *more) in rows.items()
    )
    return _table(("what is promised", "tests"), proofs)


def payloads() -> str:
    """Payloads as public clients make them, and what is said of each."""
    head = ("client or list", "payloads", "accepted by the emulator", "refused, and why", "sent by this package")
    return _table(head, public_client_payloads.table_rows())


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "tree": ("errors.md", tree),
    "codes": ("errors.md", codes),
    "payloads": ("coverage.md", payloads),
    "money": ("guarantees.md", partial(promises, guarantees.MONEY)),
    "security": ("../SECURITY.md", partial(promises, guarantees.SECURITY)),
    "shipped": ("pipelines.md", pipeline_pages.overview),
    **{name: (f"pipelines/{name}.md", partial(pipeline_pages.page, name)) for name in pipeline_pages.SHIPPED},
}
"""What is made: its name in the comments, its page, and how."""


def part(name: str) -> re.Pattern[str]:
    """Finds a part in its page; the group `body` is what is made."""
    return re.compile(rf"(?P<head><!-- {name}: [^\n]*-->\n)(?P<body>.*?)(?P<foot><!-- end -->)", re.DOTALL)


def _framed(body: str, found: re.Match[str]) -> str:
    return f"{found['head']}{body}{found['foot']}"


def rewrite() -> None:
    for name, (page, make) in PARTS.items():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        body = f"\n{make()}\n\n"
        path.write_text(part(name).sub(partial(_framed, body), text), encoding="utf-8")
    for name in pipeline_pages.SHIPPED:
        picture = DOCS / "pipelines" / pipeline_pages.PICTURES / f"{name}.svg"
        picture.write_text(pipeline_pages.picture(name), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
