from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.errors import ConfigError, InputError
from rh_prefect.media.file_names import DEFAULT_TEMPLATE, check_name, check_template, safe
from rh_prefect.media.store import MediaStore

FIELDS: dict[str, Any] = {"run": "calm-fox", "flow": "film", "model": "kling", "key": "ab12", "index": 1, "ext": "mp4"}


def test_names_a_file_by_the_template() -> None:
    store = MediaStore("out", template="{model}/{task}_{index:03d}.{ext}")
    assert store.name_for(**FIELDS, task="77") == "kling/77_001.mp4"


def test_a_label_stands_before_the_model() -> None:
    store = MediaStore("out")
    assert store.name_for(**FIELDS) == "film/calm-fox/kling-ab12-1.mp4"
    assert store.name_for(**FIELDS, label="shot 1") == "film/calm-fox/shot 1-ab12-1.mp4"


def test_an_extension_may_have_its_dot_and_may_be_missing() -> None:
    store = MediaStore("out")
    assert store.name_for(**FIELDS | {"ext": ".png"}).endswith("-1.png")
    assert store.name_for(**FIELDS | {"ext": ""}).endswith("-1.bin")


@pytest.mark.parametrize(
    "label", ["../../etc/passwd", "a/b", "a\\b", "..", "x\n", "\0", "a:b*?", "{key}", "镜头" * 60, "é" * 300, "/"]
)
def test_a_field_adds_no_folder_and_fits_every_file_system(label: str) -> None:
    name = MediaStore("out").name_for(**FIELDS, label=label)
    assert name.startswith("film/calm-fox/")
    assert name.count("/") == 2
    assert len(name.rpartition("/")[2].encode()) < 200
    assert name.endswith("-ab12-1.mp4")


def test_any_script_is_kept() -> None:
    assert safe("镜头 1 – été") == "镜头 1 – été"


@pytest.mark.parametrize("template", [DEFAULT_TEMPLATE, "{task}-{index}", "{run}/{key}/{index}.{ext}"])
def test_a_template_that_tells_files_apart_is_taken(template: str) -> None:
    assert check_template(template) == template


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
        ("{task}-{index:q}", "formats the field 'index'"),
    ],
)
def test_any_other_is_refused(template: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        MediaStore("out", template=template)
    assert "{flow}/{run}/" in str(caught.value)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "a\nb", "a\0b"])
def test_a_name_stays_in_the_store(name: str) -> None:
    with pytest.raises(InputError, match="not a valid file name"):
        check_name(name)


@pytest.mark.parametrize(
    "template",
    [
        "{run}/{key:.1}-{index}",
        "{run}/{key!r}-{index}",
        "{run}/{key:>20}-{index}",
        "{run:x}/{key}-{index}",
        "{task}-{index:{run}}",
        "{task}-{index:{index}}",
        "{task}-{index:>3000000000}",
        "{task}-{index:3000000000d}",
        "{task}-{index:010d}",
        "{task}-{index:00d}",
        "{task}-{index:+d}",
        "{task}-{index:d}",
        "{task}-{index!s}",
        "{task}-{index}.{ext:.0}",
    ],
)
def test_a_template_that_formats_a_field_is_refused(template: str) -> None:
    """Of formats only {index:0Nd} is allowed; others fold names, fail late or take all the memory."""
    with pytest.raises(ConfigError, match="formats the field"):
        MediaStore("out", template=template)


@pytest.mark.parametrize("template", ["{task}{index}", "{index}{task}", "{run}{index}-{key}", "{key}-{run}{index:02d}"])
def test_an_index_beside_another_field_is_refused(template: str) -> None:
    """Task 1 with file 11 and task 11 with file 1 would share a name."""
    with pytest.raises(ConfigError, match=r"between \{index\} and"):
        MediaStore("out", template=template)


@pytest.mark.parametrize("width", range(1, 10))
def test_an_index_may_have_leading_zeros(width: int) -> None:
    store = MediaStore("out", template=f"{{task}}_{{index:0{width}d}}.{{ext}}")
    assert store.name_for(**FIELDS, task="77") == f"77_{1:0{width}d}.mp4"


def _names(runs: list[str]) -> set[str]:
    return {MediaStore("out").name_for(**FIELDS | {"run": run}) for run in runs}


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
    assert len(_names(runs)) == len(runs)


def test_a_name_that_can_stay_as_it_is_stays() -> None:
    assert safe("job-1") == "job-1"
    assert safe("x" * 60) == "x" * 60
    assert len(safe("x" * 500)) == 60


@pytest.mark.parametrize("ext", ["../x", "a/b", "p g", "x" * 17, "é"])
def test_what_cannot_be_an_extension_is_bin(ext: str) -> None:
    """An extension that RunningHub names is letters and digits."""
    assert MediaStore("out").name_for(**FIELDS | {"ext": ext}).endswith("-1.bin")
