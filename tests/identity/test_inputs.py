"""Files whose name says too little or too much: each job is paid with the content that its link or path had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.identity.harness import Form, Shape, Stage, World
from tests.support.samples import media as samples
from tests.support.servers.link_server import LinkServer, link_server
from tests.support.servers.s3 import S3Server

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.timeout(1800)]

sync_form = pytest.mark.parametrize("form", ["sync"])
"""Inputs are read by the same code for both forms; test_shapes has the rest."""

LINKS = 3


@pytest.fixture(scope="module")
def links() -> Iterator[LinkServer]:
    with link_server() as server:
        yield server


def _with_links(link_of: Callable[[str], tuple[str, str]]) -> Callable[[Stage, int], None]:
    def change(stage: Stage, number: int) -> None:
        named = [link_of(f"{stage.tag}-{name}") for name in range(LINKS)]
        assert len({source for _, source in named}) in (LINKS, 1), "each link has different content, or no fixed one"
        (stage.files / "links").write_text(json.dumps(named))

    return change


@sync_form
def test_links_that_differ_in_a_token(world: World, tmp_path: Path, links: LinkServer, form: Form) -> None:
    """Links that differ in `token=` alone are different files."""
    shape = Shape("links with token=", "links.py", 2 * LINKS, change=_with_links(links.token))
    world.check(shape, form, tmp_path)


@sync_form
def test_links_whose_bytes_differ_per_read(world: World, tmp_path: Path, links: LinkServer, form: Form) -> None:
    """A link whose host encodes anew at each read is not paid for again by a resume."""
    shape = Shape("links with other bytes per read", "links.py", 2 * LINKS, change=_with_links(links.varying))
    world.check(shape, form, tmp_path)


@sync_form
def test_links_that_refuse_head(world: World, tmp_path: Path, links: LinkServer, form: Form) -> None:
    """Links that refuse HEAD, as presigned ones do, are read with GET."""
    shape = Shape("links that refuse HEAD", "links.py", 2 * LINKS, change=_with_links(links.without_head))
    world.check(shape, form, tmp_path)


def _contents(stage: Stage, place: str, options: Mapping[str, object]) -> None:
    """Two pictures of one size in bytes, and the one place that both are put to."""
    pictures = {name: samples.picture("PNG", (64, 48), name) for name in ("before", "after")}
    assert pictures["before"] != pictures["after"]
    longest = max(map(len, pictures.values()))
    for name, content in pictures.items():
        (stage.files / f"{name}.png").write_bytes(_padded(content, longest))
    (stage.files / "place").write_text(json.dumps([place, dict(options)]))


def _padded(content: bytes, size: int) -> bytes:
    """Zeros behind the end of a PNG, which no decoder reads."""
    return content + bytes(size - len(content))


@sync_form
def test_a_file_that_is_replaced_under_its_old_time(world: World, tmp_path: Path, form: Form) -> None:
    """A file that is replaced by one of the same size and time (`touch -r`) is another file."""

    def place(stage: Stage, number: int) -> None:
        _contents(stage, str(stage.folder / "photo.png"), {})

    shape = Shape("touch -r", "overwritten.py", 4, change=place)
    world.check(shape, form, tmp_path)


@sync_form
@pytest.mark.s3
def test_an_object_that_is_overwritten(world: World, tmp_path: Path, s3: S3Server, form: Form) -> None:
    """An object that is overwritten under its name within a run is another file."""
    out = s3.url("identity")

    def place(stage: Stage, number: int) -> None:
        _contents(stage, f"{out}/photo.png", s3.options)

    def env(stage: Stage) -> dict[str, str]:
        return {"RH_STORAGE_URL": out, "RH_STORAGE_OPTIONS": json.dumps(s3.options)}

    shape = Shape("an overwritten object", "overwritten.py", 4, change=place, env=env)
    world.check(shape, form, tmp_path)
