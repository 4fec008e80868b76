"""Builds the site into build/site: `python -m website.build`, or `make docs`, which installs what it needs.

`--no-pictures` leaves out the pictures of the shipped pipelines, which take most of the time.

A page loads nothing from a network: the fonts are those of the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from website import models, pages
from website.pictures import make_pictures

BUILD = pages.ROOT / "build"
HERE = Path(__file__).parent

_FOREIGN = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def main() -> None:
    """Writes the pages, and builds the site from them."""
    source, site = BUILD / "pages", BUILD / "site"
    for old in (source, site):
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="rh-site-") as folder:
        os.environ["RH_STATE_DIR"] = folder  # not the models that this user has refreshed
        shipped = sorted(page.stem for page in (pages.ROOT / "docs" / "pipelines").glob("*.md"))
        names = () if "--no-pictures" in sys.argv else tuple(shipped)
        shows = make_pictures(names, Path(folder), source / "images/pipelines")
        write_pages(source, shows)
    config = BUILD / "zensical.toml"
    text = (HERE / "zensical.toml").read_text(encoding="utf-8")
    folders = f'docs_dir = "{source.relative_to(BUILD)}"\nsite_dir = "{site.relative_to(BUILD)}"\n'
    config.write_text(text.replace("[project]\n", f"[project]\n{folders}", 1), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(config)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(pages.ROOT)})
    _check_sources(site)
    for name, text in source_pages({}):
        (site / name).write_text(text, encoding="utf-8")
    print(f"The site is in {site}: open {site / 'index.html'}")


def write_pages(source: Path, shows: dict[str, str]) -> None:
    """Writes what the site is built from.

    Args:
        source: The folder.
        shows: What is on the pictures of the pipelines that have one.
    """
    assets = source / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    for name in ("site.css", "models.js"):
        shutil.copy(HERE / name, assets / name)
    (assets / "models-data.js").write_text(models.data(), encoding="utf-8")
    if (images := pages.ROOT / "docs" / "images").exists():
        shutil.copytree(images, source / "images", dirs_exist_ok=True)
    everything = source_pages(shows)
    for name, text in everything:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    (source / "llms.txt").write_text(pages.index_of(everything), encoding="utf-8")
    (source / "pipelines.schema.json").write_text(_schema(), encoding="utf-8")


def source_pages(shows: dict[str, str]) -> list[tuple[str, str]]:
    """Name and text of all pages; `shows` says what is on the pictures of pipelines."""
    made = []
    for name, text in pages.written_pages():
        folder, _, stem = name.removesuffix(".md").rpartition("/")
        picture = shows.get(stem) if folder == "pipelines" else None
        made.append((name, pages.with_picture(text, stem, picture) if picture else text))
    made += [("cli.md", pages.commands()), ("schema.md", pages.schema_page()), ("models-browser.md", models.PAGE)]
    made.append(("assumptions.md", pages.assumptions_page()))
    return [*made, *pages.api_pages()]


def _schema() -> str:
    from rh_prefect.cli.pipelines import schema_

    with redirect_stdout(StringIO()) as out:
        schema_()
    return out.getvalue()


def _check_sources(site: Path) -> None:
    """Raises an error if a page would load a script, a style or a picture from a network."""
    for page in site.rglob("*.html"):
        if found := _FOREIGN.search(page.read_text(encoding="utf-8")):
            raise ValueError(f"{page.relative_to(site)} loads something from a network: {found[0]}")


if __name__ == "__main__":
    main()
