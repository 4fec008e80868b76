"""The wheel: the machine and nothing else, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_every_module_with_its_data_and_nothing_else(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rh_prefect"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rh_prefect").rglob("*.py")}
    data = {f"rh_prefect/catalog/{name}.json" for name in ("models", "vocabulary")}
    assert {
        *modules,
        *data,
        "rh_prefect/models.pyi",
        "rh_prefect/tasks/model_tasks.pyi",
        "rh_prefect/py.typed",
    } <= names
    assert {name for name in names if "__pycache__" in name or name.endswith(".pyc")} == set()


def test_it_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import rh_prefect, rh_prefect.catalog as catalog; from rh_prefect.models import ZImageTurbo; "
        "print(rh_prefect.__file__, len(catalog.models()) >= 505, ZImageTurbo(prompt='x').prompt)"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "rh_prefect" / "__init__.py"), "True", "x"], done.stderr


def test_prefect_and_the_shell_find_it(wheel: Path, names: set[str]) -> None:
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    with ZipFile(wheel) as archive:
        said = archive.read(entry_points).decode()
    assert "[prefect.collections]\nrh_prefect = rh_prefect.collection" in said
    assert "rh-prefect = rh_prefect.cli:main" in said
