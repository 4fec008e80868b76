from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.catalog import generated_files
from rh_prefect.catalog.data_file import dumps, read
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.catalog.user_catalog_merge import changes
from rh_prefect.errors import InputError

MARK = "<!-- Written by `python -m rh_prefect.catalog.generated_files`. -->"


def data(*models: dict[str, Any]) -> dict[str, Any]:
    base = {"output": "video", "family": "f", "params": []}
    return {
        "version": "1",
        "source": "a test",
        "models": [{"endpoint": model["name"], **base, **model} for model in models],
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "not a model data file"),
        ([], "not a model data file"),
        (data({"name": "a", "params": [{"key": "p", "type": "colour"}]}), "params.0.type: Input should be 'string'"),
        (data({"name": "a", "price": {"unit": "moon", "fixed": 1}}), "price.unit: Input should be 'call'"),
        (data({"name": "a-b"}, {"name": "a/b", "endpoint": "c"}), "both be called AB"),
    ],
)
def test_data_that_cannot_be_used(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(content)


def test_the_checked_in_stubs_fit_the_checked_in_data() -> None:
    assert generated_files.main(["--check"]) == 0


def test_a_model_that_is_added_by_hand_is_put_in_order(root: Path) -> None:
    """CONTRIBUTING.md, "A new model": nothing else is edited by hand."""
    content = json.loads(SLIM_FILE.read_text(encoding="utf-8"))
    turbo = next(raw for raw in content["models"] if raw["name"] == "z-image/turbo")
    new = {**turbo, "name": "a-first/model", "endpoint": "a-first/model"}
    write(root, {**content, "models": [*content["models"], new]})
    assert generated_files.main(["--root", str(root)]) == 0
    assert written(root)["models"] == [new, *content["models"]]
    write(root, {**content, "models": [*content["models"], turbo]})
    assert generated_files.main(["--root", str(root)]) == 2


def write(root: Path, content: Mapping[str, Any]) -> None:
    (root / "rh_prefect" / "catalog" / "models.json").write_text(dumps(content), encoding="utf-8")


def written(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "rh_prefect" / "catalog" / "models.json").read_bytes())
    return content


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one model."""
    for folder in ("rh_prefect/catalog", "rh_prefect/tasks", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, data({"name": "a/b", "params": [{"key": "prompt", "type": "string"}]}))
    (tmp_path / "docs" / "models.md").write_text(f"# Models\n\n{MARK}\nolder\n\nThe rest.\n", encoding="utf-8")
    return tmp_path


def test_a_build_a_check_and_a_drift(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generated_files.main(["--root", str(root), "--check"]) == 1
    assert generated_files.main(["--root", str(root)]) == 0
    assert generated_files.main(["--root", str(root), "--check"]) == 0
    for name, text in (("models.pyi", "prompt: str | None = None"), ("tasks/model_tasks.pyi", "a_b = _task(_AB)")):
        stub = root / "rh_prefect" / name
        stub.write_text(stub.read_text(encoding="utf-8").replace(text, ""), encoding="utf-8")
        capsys.readouterr()
        assert generated_files.main(["--root", str(root), "--check"]) == 1
        assert f"{name} does not match the data" in capsys.readouterr().err
        assert generated_files.main(["--root", str(root)]) == 0


def test_the_data_of_a_users_refresh_is_taken_and_no_call_becomes_another(root: Path, tmp_path: Path) -> None:
    later = data({"name": "a/b", "params": [{"key": "Prompt", "type": "string"}]}, {"name": "c"})
    (tmp_path / "user.json").write_text(json.dumps(later))
    assert generated_files.main(["--root", str(root), str(tmp_path / "user.json")]) == 0
    first, second = written(root)["models"]
    assert first["params"] == [{"key": "Prompt", "type": "string", "frozen": {"key": "prompt"}}]
    assert second["name"] == "c"
    assert generated_files.main(["--root", str(root), "--check"]) == 0


def test_the_count_in_the_docs_is_written_and_checked(root: Path) -> None:
    page = root / "docs" / "models.md"
    assert generated_files.main(["--root", str(root)]) == 0
    counted = page.read_text(encoding="utf-8")
    assert counted.startswith(f"# Models\n\n{MARK}\n1 models are known as of 1: 1 current, 0 deprecated and 0 that ")
    assert counted.endswith("\n\nThe rest.\n")
    page.write_text(counted.replace("1 current", "2 current"), encoding="utf-8")
    assert generated_files.main(["--root", str(root), "--check"]) == 1


def test_a_change_of_price_is_told_with_both_prices() -> None:
    first, second = (data({"name": "a/b", "price": {"unit": "call", "fixed": amount}}) for amount in (1, 2))
    assert list(changes(first, second).lines()) == ["$ a/b: 1.00 CNY per call -> 2.00 CNY per call"]
    assert list(changes(second, data({"name": "a/b"})).lines()) == ["$ a/b: 2.00 CNY per call -> unknown"]


def test_a_source_that_is_not_there_or_is_no_json(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(root)
    assert generated_files.main(["--root", str(root), str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    assert generated_files.main(["--root", str(root), str(tmp_path / "broken.json")]) == 2
    assert written(root) == before
