"""The README and the pages of docs/, the code blocks in them, and the pipelines in these blocks and in the package."""

from __future__ import annotations

import re
from pathlib import Path

from rh_prefect.pipelines.check.checked_file import SHIPPED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


TEXTS = {
    f"{page.name} {number}": code
    for page in PAGES
    for number, code in enumerate(blocks(page, "yaml"), 1)
    if re.search(r"^steps:", code, re.MULTILINE)
} | {file.name: file.read_text(encoding="utf-8") for file in SHIPPED.glob("*.yaml")}
"""The pipelines, by page and number, or by file."""
