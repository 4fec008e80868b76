"""A user's own, newer models: taken from a registry file, preferred from then on, and given up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.catalog import refresh, registry
from rh_prefect.catalog.registry import SLIM_FILE, is_older
from rh_prefect.errors import InputError
from tests.support.registry import registry as written

OWN = json.loads(SLIM_FILE.read_bytes())["version"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, which is not there yet."""
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "state"))
    assert registry.user_file() == tmp_path / "state" / "models.json"
    return registry.user_file()


def changed(models: dict[str, Any]) -> None:
    turbo = models["z-image/turbo"]
    turbo["price"]["fixed"] = 0.05
    turbo["params"][0]["max_length"] = 7
    turbo["params"].append({"key": "styleName", "type": "string", "required": False})
    models["z-image/ultra"] = {**turbo, "name": "z-image/ultra", "endpoint": "z/ultra"}
    del models["suno-lyrics"]


def new_process(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


SHOW = "from rh_prefect import catalog; m = catalog.get('z-image/turbo'); print(len(catalog.models()), m.price)"


def test_the_difference_is_told_and_the_next_process_has_it(file: Path, tmp_path: Path) -> None:
    refresh.refresh(written(tmp_path / "first.json"))
    lines = refresh.refresh(written(tmp_path / "second.json", version="2099-01-02", change=changed))
    assert lines == [
        "- suno-lyrics",
        "+ z-image/ultra",
        "~ z-image/turbo: price (0.04 CNY per call -> 0.05 CNY per call), ~prompt, +styleName",
    ]
    code = (
        "from rh_prefect import models\nfrom rh_prefect.tasks import endpoints\n"
        "assert models.ZImageUltra(prompt='a', style_name='b').params() == {'prompt': 'a', 'style_name': 'b'}\n"
        "assert endpoints.z_image_ultra.name == 'z-image/ultra'\n"
    )
    done = new_process(code)
    assert done.returncode == 0, done.stderr
    assert "0.05 CNY" in new_process(SHOW).stdout
    assert refresh.reset()
    assert not refresh.reset()
    assert new_process(SHOW).stdout == "331 0.04 CNY per call\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "no registry of models"),
        ("[]", "no registry of models"),
        ('{"version": "2099-01-01", "source": "x", "models": []}', "names no model"),
        ('{"version": "2099-01-01", "source": "x", "models": [{"name": "a"}]}', "no registry of models"),
        ("", "no registry of models"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_all_as_it_was(
    file: Path, tmp_path: Path, content: str | None, reason: str
) -> None:
    refresh.refresh(written(tmp_path / "first.json"))
    before = file.read_bytes()
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        refresh.refresh(tmp_path / "bad.json")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["models.json"]


def test_an_older_file_than_the_packages_own_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="newer"):
        refresh.refresh(written(tmp_path / "old.json", version="2020-01-01"))
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "cannot be read"), ('{"version": "2020-01-01", "models": []}', "newer ones")],
)
def test_a_users_file_that_cannot_be_used_is_left_aside_with_a_warning(file: Path, content: str, said: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    done = new_process(SHOW)
    assert done.stdout == "331 0.04 CNY per call\n"
    assert said in done.stderr
    assert "models refresh" in done.stderr


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [
        ("2026-04-29", "2026-04-29+1", True),
        ("2026-04-29+9", "2026-04-29+10", True),
        ("2026-04-29+1", "2026-04-29+1", False),
        ("2026-05-01", "2026-04-29+1", False),
        ("mine", "2026-04-29+1", False),
    ],
)
def test_versions_are_compared_where_they_can_be(one: str, other: str, older: bool) -> None:
    assert is_older(one, other) is older


def test_the_packages_own_version_can_be_compared() -> None:
    assert is_older("2020-01-01", OWN)
