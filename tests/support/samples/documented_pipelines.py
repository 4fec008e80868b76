"""The pipelines of README, docs and the package, as text."""

from __future__ import annotations

import re

from rh_prefect.pipelines.check import SHIPPED
from tests.support.doc_pages import ROOT

BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEXTS = {
    f"{page.name} {number}": code
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1)
    if re.search(r"^steps:", code, re.MULTILINE)
} | {file.name: file.read_text(encoding="utf-8") for file in SHIPPED.glob("*.yaml")}
"""By page and number, or by file."""
