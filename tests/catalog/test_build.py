from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import build
from rh_prefect.catalog.data_file import dumps, slim
from rh_prefect.catalog.model import decode_model
from rh_prefect.catalog.refresh import changes
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.errors import InputError

MARK = "<!-- Written by `python -m rh_prefect.catalog.build`. -->"


def param(key: str, type_: str = "string", **more: object) -> dict[str, Any]:
    return {"key": key, "type": type_, "required": False, **more}


def source(*models: dict[str, Any]) -> dict[str, Any]:
    base = {
        "output": "video",
        "family": "f",
        "groups": [],
        "in_docs": True,
        "provenance": "official-registry",
        "deprecated": False,
    }
    return {
        "version": "1",
        "source": "a test",
        "models": [{"endpoint": model["name"], "params": [], **base, **model} for model in models],
    }


def built(**model: object) -> catalog.Model:
    (raw,) = slim(source({"name": "a/b", **model}))["models"]
    return decode_model(json.loads(json.dumps(raw)))


def test_the_usual_case_takes_no_room() -> None:
    (raw,) = slim(source({"name": "a/b", "params": [param("prompt", step=1)]}))["models"]
    assert raw == {
        "name": "a/b",
        "endpoint": "a/b",
        "output": "video",
        "family": "f",
        "in_docs": True,
        "params": [{"key": "prompt", "type": "string"}],
    }


def test_nothing_that_matters_is_lost() -> None:
    given = param(
        "imageUrls",
        "image",
        multiple=True,
        max_items=3,
        accept=["jpg", "png"],
        max_size_mb=10,
        note="sides at least 300 px",
    )
    number = param("strength", "float", default=0.5, min=0, max=1, step=0.01)
    model = built(params=[{**given, "required": True}, number], status="deprecated", replaced_by="c/d", incomplete=True)
    files, strength = model.params
    assert (files.name, files.required, files.multiple, files.max_items) == ("image_urls", True, True, 3)
    assert (files.accept, files.max_size_mb, files.note) == (("jpg", "png"), 10, "sides at least 300 px")
    assert (strength.default, strength.min, strength.max, strength.step) == (0.5, 0, 1, 0.01)
    assert (model.status, model.replaced_by, model.incomplete) == ("deprecated", "c/d", True)


@pytest.mark.parametrize(
    ("unit", "params", "per"),
    [
        ("second", [param("duration", "int")], "duration"),
        ("second", [param("videoUrl", "video")], None),
        ("1000 characters", [param("prompt"), param("text")], "text"),
        ("image", [param("n", "int")], "n"),
        ("call", [param("duration", "int")], None),
    ],
)
def test_what_says_how_many_units_a_call_takes(unit: str, params: list[dict[str, Any]], per: str | None) -> None:
    model = built(params=params, price={"currency": "CNY", "unit": unit, "fixed": 1})
    assert model.price is not None
    assert model.price.per == per


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ([param("a", note="either a or b; 2-60 s"), param("b")], {"kind": "one", "params": ["a", "b"]}),
        ([param("a", note="a or b, not both"), param("b")], {"kind": "one", "params": ["a", "b"]}),
        ([param("a", note="list of x; a or b required"), param("b")], {"kind": "any", "params": ["a", "b"]}),
        (
            [param("a", note="required when b is true"), param("b", "bool")],
            {"kind": "needed", "params": ["a"], "when": {"b": True}},
        ),
        (
            [param("a", note="used when b is custom; API spelling"), param("b")],
            {"kind": "used", "params": ["a"], "when": {"b": "custom"}},
        ),
        ([param("a", note="only with b"), param("b")], {"kind": "only", "params": ["a"], "given": ["b"]}),
        (
            [param("s", "audio", note="needs an image or video; 2 s"), param("i", "image"), param("v", "video")],
            {"kind": "only", "params": ["s"], "given": ["i", "v"]},
        ),
        (
            [param("a", note="at most 5 references over a and b together"), param("b")],
            {"kind": "most", "params": ["a", "b"], "limit": 5},
        ),
        (
            [param("duration", note="10 s not available at 1080p"), param("resolution")],
            {"kind": "never", "when": {"duration": "10", "resolution": "1080p"}},
        ),
    ],
)
def test_a_note_that_states_a_rule(params: list[dict[str, Any]], rule: dict[str, Any]) -> None:
    (raw,) = slim(source({"name": "a", "params": params}))["models"]
    assert raw["rules"] == [rule]


@pytest.mark.parametrize("note", ["only with something", "either c or d", "only without a reference video", "2-10 s"])
def test_a_note_without_a_rule_stays_a_description(note: str) -> None:
    model = built(params=[param("a", note=note), param("b")])
    assert model.rules == ()
    assert model.params[0].note == note


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "not a model registry"),
        ([], "not a model registry"),
        (source({"name": "a", "params": [param("p", "colour")]}), "type 'colour'"),
        (source({"name": "a", "price": {"currency": "CNY", "unit": "moon", "fixed": 1}}), "priced per 'moon'"),
        (source({"name": "a-b"}, {"name": "a/b", "endpoint": "c"}), "both be called AB"),
    ],
)
def test_a_source_that_cannot_be_used(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        slim(content)


def test_the_checked_in_stub_fits_the_checked_in_data() -> None:
    assert build.main(["--check"]) == 0


def test_the_checked_in_data_is_as_the_builder_writes_it() -> None:
    text = SLIM_FILE.read_text(encoding="utf-8")
    assert dumps(json.loads(text)) == text


def test_a_data_file_with_one_model_more_is_a_source() -> None:
    """CONTRIBUTING.md, "A new model": nothing else is edited by hand."""
    content = json.loads(SLIM_FILE.read_text(encoding="utf-8"))
    turbo = next(raw for raw in content["models"] if raw["name"] == "z-image/turbo")
    new = {**turbo, "name": "z-image/another", "endpoint": "z-image/another"}
    built = slim({**content, "models": [*content["models"], new]})
    assert [raw for raw in built["models"] if raw != new] == content["models"]
    assert new in built["models"]
    with pytest.raises(InputError, match="both be called ZImageTurbo"):
        slim({**content, "models": [*content["models"], turbo]})


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "source.json").write_text(
        json.dumps(source({"name": "a/b", "params": [param("prompt")]})), encoding="utf-8"
    )
    (tmp_path / "page.md").write_text(f"# Models\n\n{MARK}\nolder\n\nThe rest.\n", encoding="utf-8")
    names = {"--slim": "slim.json", "--stub": "stub.pyi", "--tasks": "tasks.pyi", "--page": "page.md"}
    return [word for option, name in names.items() for word in (option, str(tmp_path / name))]


def test_a_build_a_check_and_a_drift(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "source.json"
    assert build.main([str(registry), "--check", *files]) == 1
    assert build.main([str(registry), *files]) == 0
    assert build.main([str(registry), "--check", *files]) == 0
    capsys.readouterr()

    changed = source({"name": "a/b", "params": [param("prompt", max_length=5), param("seed", "int")]}, {"name": "c"})
    registry.write_text(json.dumps(changed), encoding="utf-8")
    assert build.main(["--check", *files]) == 0
    assert build.main([str(registry), "--check", *files]) == 1
    said = capsys.readouterr().err
    assert "+ c" in said
    assert "~ a/b: ~prompt (max_length), +seed" in said

    for name, written in (("stub.pyi", "prompt: str | None = None"), ("tasks.pyi", "a_b = _task(_AB)")):
        stub = tmp_path / name
        text = stub.read_text(encoding="utf-8")
        assert written in text
        stub.write_text(text.replace(written, ""), encoding="utf-8")
        assert build.main(["--check", *files]) == 1
        said = capsys.readouterr().err
        assert "does not match the data file" in said
        assert name in said
        assert build.main(files) == 0
        assert build.main(["--check", *files]) == 0


def test_the_count_in_the_docs_is_written_and_checked(files: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert build.main([str(tmp_path / "source.json"), *files]) == 0
    counted = page.read_text(encoding="utf-8")
    assert counted.startswith(f"# Models\n\n{MARK}\n1 models are known as of 1: 1 current, 0 deprecated and 0 that ")
    assert counted.endswith("\n\nThe rest.\n")
    page.write_text(counted.replace("1 current", "2 current"), encoding="utf-8")
    assert build.main(["--check", *files]) == 1


def test_a_change_of_price_is_told_with_both_prices() -> None:
    prices = ({"currency": "CNY", "unit": "call", "fixed": 1}, {"currency": "CNY", "unit": "call", "fixed": 2}, None)
    first, second, none = (slim(source({"name": "a/b", **({"price": one} if one else {})})) for one in prices)
    assert list(changes(first, second).lines()) == ["$ a/b: 1.00 CNY per call -> 2.00 CNY per call"]
    assert list(changes(second, none).lines()) == ["$ a/b: 2.00 CNY per call -> unknown"]


def test_a_source_that_is_not_there_or_is_no_json(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main([str(tmp_path / "none.json"), *files]) == 2
    assert "none.json" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    assert build.main([str(tmp_path / "broken.json"), *files]) == 2
    assert not (tmp_path / "slim.json").exists()
