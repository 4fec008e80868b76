"""Draws the README's picture of a terminal: `python -m website.terminal_picture`.

It is the real output of the commands; only names of files that are made of a hash are cut.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from rh_prefect.emulator import Emulator
from website.pages import ROOT

PICTURE = ROOT / "docs" / "images" / "plan-run-nothing-new.svg"
COMMANDS = ("plan", "run", "run")
_WIDTH = 84
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")


def main() -> None:
    """Runs the README's pipeline on an emulator, and writes the picture."""
    pipeline = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )[0]
    with tempfile.TemporaryDirectory() as folder, Emulator(long_side=96, fps=6) as rh:
        (Path(folder) / "product.yaml").write_text(pipeline, encoding="utf-8")
        text = "\n".join(_said(command, Path(folder), rh) for command in COMMANDS)
    console = Console(record=True, width=_WIDTH, file=StringIO())
    console.print(Text(text.rstrip()))
    PICTURE.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="", code_format=SVG_FORMAT, unique_id="terminal")
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def _said(command: str, folder: Path, rh: Emulator) -> str:
    """A prompt with a command, and what the command prints."""
    line = f'rh-prefect {command} product.yaml --set title="a blue mug"'
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RH_", "PREFECT_"))}
    env |= {"RH_BASE_URL": rh.url, "RH_API_KEY": rh.key, "RH_STORAGE_URL": "rh-output", "RH_STATE_DIR": str(folder)}
    env |= {"RH_ALLOW_PRIVATE_LINKS": "1", "RH_POLL_SECONDS": "0.2", "COLUMNS": str(_WIDTH), "HOME": str(folder)}
    words = [sys.executable, "-m", "rh_prefect.cli", *shlex.split(line)[1:]]
    done = subprocess.run(words, cwd=folder, env=env, check=True, text=True, capture_output=True)
    said = re.sub(r"\b([0-9a-f]{6})[0-9a-f]{58}\b", r"\1…", done.stdout.replace(str(folder), "~/shop"))
    return f"$ {line}\n{said}"


if __name__ == "__main__":
    main()
