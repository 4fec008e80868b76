from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.errors import ConfigError, InputError
from rh_prefect.media.file_name_templates import DEFAULT_TEMPLATE, check_name, safe, wrong_part
from rh_prefect.media.store import MediaStore

FIELDS: dict[str, Any] = {"run": "calm-fox", "flow": "film", "model": "kling", "key": "ab12", "index": 1, "ext": "mp4"}


@pytest.mark.parametrize(
    ("template", "more", "name"),
    [
        (DEFAULT_TEMPLATE, {}, "film/calm-fox/kling-ab12-1.mp4"),
        (DEFAULT_TEMPLATE, {"label": "shot 1"}, "film/calm-fox/shot 1-ab12-1.mp4"),
        (DEFAULT_TEMPLATE, {"ext": ".png"}, "film/calm-fox/kling-ab12-1.png"),
        *[(DEFAULT_TEMPLATE, {"ext": ext}, "film/calm-fox/kling-ab12-1.bin") for ext in ("", "../x", "p g", "é")],
        (DEFAULT_TEMPLATE, {"ext": "x" * 17}, "film/calm-fox/kling-ab12-1.bin"),
        ("{model}/{task}_{index:03d}.{ext}", {"task": "77"}, "kling/77_001.mp4"),
        ("{task}_{index:09d}.{ext}", {"task": "77"}, "77_000000001.mp4"),
        ("{task}-{index}", {"task": "77"}, "77-1"),
        ("{run}/{key}/{index}.{ext}", {}, "calm-fox/ab12/1.mp4"),
    ],
)
def test_a_file_is_named_by_the_template(template: str, more: dict[str, Any], name: str) -> None:
    assert MediaStore("out", template=template).name_for(**FIELDS | more) == name


@pytest.mark.parametrize(
    "label", ["../../etc/passwd", "a/b", "a\\b", "..", "x\n", "\0", "a:b*?", "{key}", "镜头" * 60, "é" * 300, "/"]
)
def test_a_field_adds_no_folder_and_fits_every_file_system(label: str) -> None:
    name = MediaStore("out").name_for(**FIELDS, label=label)
    assert name.startswith("film/calm-fox/")
    assert name.count("/") == 2
    assert len(name.rpartition("/")[2].encode()) < 200
    assert name.endswith("-ab12-1.mp4")


FORMATTED = (
    "{run}/{key:.1}-{index}",
    "{run}/{key!r}-{index}",
    "{run:x}/{key}-{index}",
    "{task}-{index:{run}}",
    "{task}-{index:>3000000000}",
    "{task}-{index:010d}",
    "{task}-{index:00d}",
    "{task}-{index:q}",
    "{task}-{index!s}",
    "{task}-{index}.{ext:.0}",
)
"""Of formats only {index:0Nd} is allowed; others fold names, fail late or take all the memory."""
JOINED = ("{task}{index}", "{index}{task}", "{run}{index}-{key}", "{key}-{run}{index:02d}")
"""Task 1 with file 11 and task 11 with file 1 would share a name."""


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{task}.{ext}", "could give two files the same name"),
        ("{key}-{index}", "could give two files the same name"),
        ("{run}-{index}", "could give two files the same name"),
        ("{task}-{index}-{seed}", "unknown field 'seed'"),
        ("{task.__class__}-{index}", "unknown field"),
        ("{task}-{index", "cannot be read"),
        ("{}{task}-{index}", "unknown field"),
        ("/{task}-{index}", "no usable names"),
        ("../{task}-{index}", "no usable names"),
        *[(template, "formats the field") for template in FORMATTED],
        *[(template, r"between \{index\} and") for template in JOINED],
    ],
)
def test_any_other_template_is_refused(template: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        MediaStore("out", template=template)
    assert "{flow}/{run}/" in str(caught.value)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "a\nb", "a\0b", "a::b"])
def test_a_name_stays_in_the_store(name: str) -> None:
    with pytest.raises(InputError, match="not a valid file name"):
        check_name(name)


@pytest.mark.parametrize(
    "runs",
    [
        ["job-1", "job-1-", "job-1--", "job-1.", " job-1"],
        ["x" * 60, "x" * 61, "x" * 60 + "y"],
        ["nightly-import-of-the-whole-catalogue-into-the-bucket-of-team-" + team for team in "ab"],
        ["镜头" * 30 + "1", "镜头" * 30 + "2"],
        ["a/b", "a-b", "a:b", "a\\b"],
        ["-", "--", "x", "."],
    ],
)
def test_each_scope_has_file_names_of_its_own(runs: list[str]) -> None:
    """Names that were cut or cleaned to the same text carry a hash of the whole."""
    assert len({MediaStore("out").name_for(**FIELDS | {"run": run}) for run in runs}) == len(runs)


def test_two_colons_are_no_part_of_a_name() -> None:
    """In an address, fsspec takes them for a chain of locations."""
    assert wrong_part("Act 1: dawn") == ""
    assert wrong_part("Act 1:: dawn") == "it must be one part of a name, without ::"


def test_a_name_that_can_stay_as_it_is_stays() -> None:
    for name in ("job-1", "x" * 60, "镜头 1 – été"):
        assert safe(name) == name
    assert len(safe("x" * 500)) == 60
