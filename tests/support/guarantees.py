"""The guarantees since version 0.1.0: each has a row in the docs and tests that name it.

A test names the rows that it proves at the beginning of its docstring, as in `A11, A12: …`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
_NAMED = re.compile(r"((?:[ANB]\d+(?:, )?)+):")

MONEY: dict[str, str] = {
    "A1": "Equal calls keep their own results on every resume, so that no later step is paid for again",
    "A2": "A call in a named scope is paid for once, after every kind of retry",
    "A3": "Links that differ in any part are read each by itself; rows and manifests are compared as written",
    "A4": "A file, object or link that was overwritten under its name is another input",
    "A5": "Scopes and runs with similar names never share an output's file name",
    "A6": "What the caller hands over is copied at the call",
    "A7": "Whether a name is a file of the caller's or one at RunningHub is decided once",
    "A8": "A resumed run names the runs of deployments that it has started and that pay for themselves",
    "A9": "A run whose records were restored from an older backup pays for nothing before it is recovered",
    "A10": "A deliberate rerun has fresh attempts; used-up attempts fail at once",
    "A11": "A file host's refusal of a link is waited out for minutes",
    "A12": "A damaged file is never done and feeds no paid step",
    "A13": "A success without files is not done and is asked for again",
    "A14": "Limits are waited out in every call but a submit",
    "A15": "A single odd answer to a poll ends no job",
    "A16": "Odd outputs and links are collected, or named in a clear error",
    "A17": "A naming template that could give two files one name is refused before anything is paid",
    "A18": "A listener that fails stops no paid job",
    "A19": "Text is sent as text, of any length and form",
    "A20": "A budget holds for all calls of a run; a price that is not known is not zero",
    "A21": "What is shown as spent is what was charged, and currencies are never added",
    "A22": "A reused result was made with the graph as it is now",
    "A23": "A link to an upload is not used after its life, also where the machine has slept",
    "A24": "A run of 8,000 jobs is read in seconds and cancelled as it is read",
    "A25": "A long-lived process keeps no memory of each flow run",
    "A26": "A ticket on its way to the journal survives a power failure",
    "A27": "Tasks of models work under python -OO",
    "A28": "A native graph that is cancelled while it waits is cancelled, not lost",
    "A29": "A cancellation is noticed within seconds, with webhooks too",
    "N1": "A call that Prefect serves from a persisted result gives its number to no other call",
    "N2": "The jobs of a child flow in a process pool belong to the root run",
    "N3": "A processing instruction in a link names another file",
    "N4": "A changed default of the catalogue makes no other job",
}
"""Row -> what is promised about money and results."""

SECURITY: dict[str, str] = {
    "B1": "Ids and file types that RunningHub sends become parts of file names only if they are valid. A submit that "
    "is answered with an invalid id is `SubmissionUnknown`; it is not sent again.",
    "B2": "The API key is in no log, error, repr, record or output, and in no local variable of a traceback's frames.",
    "B3": "Passwords in URLs are masked in messages, reprs and causes, in chained URLs, too. URLs of buckets with "
    "credentials are refused.",
    "B4": "Connections that send no request do not keep a delivery from `rh-prefect webhook serve`.",
    "B5": "Inputs that are not regular files, and values that are too large or cannot be encoded, are clear errors "
    "before anything is paid.",
    "B6": "Cells of `report.csv` hold no spreadsheet formulas.",
    "B7": "Local journals, tickets and unfinished downloads are files of mode 0600 in folders of mode 0700, under "
    "any umask.",
    "B8": "A batch's state lies only where two processes cannot both create it; else the batch is refused before a row "
    "is read.",
    "B9": "A deployment reads inputs only below its table, its place for outputs and `RH_INPUT_ROOTS`, and from https "
    "links to public addresses, redirects included. Elsewhere links to private addresses are read with "
    "`RH_ALLOW_PRIVATE_LINKS=1` only.",
}
"""Row -> what is promised about security."""


@cache
def proofs() -> dict[str, list[str]]:
    """Row -> the tests that name it, as `tests/….py::name`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, doc in _tests(ast.parse(path.read_text(encoding="utf-8"))):
            named = _NAMED.match(doc)
            for row in named[1].split(", ") if named else ():
                found[row].append(f"tests/{path.relative_to(TESTS).as_posix()}::{name}")
    return dict(found)


def _tests(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""
