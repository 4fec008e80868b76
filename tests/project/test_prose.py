"""The words of docstrings, comments, messages and pages: plain technical English."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
AVOIDED = re.compile(
    r"\b(nobody|whoever|whatever|everybody|anew|for ever|mend(s|ed)?|strangers?|the very|br(ings?|ought) home"
    r"|also (if|when|where|though))\b|, too[.,;:]",
    re.IGNORECASE,
)
FILES = [
    *(file for folder in ("rh_prefect", "flows", "blocks") for file in sorted((ROOT / folder).rglob("*.py"))),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")),
]


def test_no_word_hides_the_subject() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if AVOIDED.search(line)
    ]
    assert found == [], "name the subject: the process, the caller; say `even if`; put `also` before the verb"
