"""The environment, as `RH_…` variables."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from rh_prefect.errors import ConfigError
from rh_prefect.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RH_{name.upper()}", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_without_a_variable_there_are_defaults(tmp_path: Path) -> None:
    settings = get_settings()
    assert settings.api_key is None
    assert settings.base_url == "https://www.runninghub.cn"
    assert settings.storage_url == "rh-output"
    assert settings.state_dir == tmp_path / ".local" / "state" / "rh-prefect"


GIVEN: dict[str, tuple[str, object]] = {
    "api_key": ("k" * 32, SecretStr("k" * 32)),
    "base_url": ("https://www.runninghub.ai", "https://www.runninghub.ai"),
    "storage_url": ("s3://bucket/prefix", "s3://bucket/prefix"),
    "storage_options": ('{"key": "a", "secret": "b"}', {"key": "a", "secret": "b"}),
    "records": ("s3://bucket/records", "s3://bucket/records"),
    "state_dir": ("/somewhere", Path("/somewhere")),
    "poll_seconds": ("0.5", 0.5),
    "grace_seconds": ("60", 60.0),
    "submit_timeout": ("5", 5.0),
    "webhook_url": ("https://hooks.example.net/rh", "https://hooks.example.net/rh"),
    "webhook_token": ("canary-token-0123456789", SecretStr("canary-token-0123456789")),
    "input_roots": ("/data, s3://bucket/inputs", ("/data", "s3://bucket/inputs")),
    "restrict_inputs": ("1", True),
    "allow_private_links": ("1", True),
    "suspend_seconds": ("60", 60.0),
    "max_budget": ("12.50", Decimal("12.50")),
}


def test_every_field_is_read_from_its_variable(bare: pytest.MonkeyPatch) -> None:
    assert set(GIVEN) == set(Settings.model_fields)
    for name, (text, _) in GIVEN.items():
        bare.setenv(f"RH_{name.upper()}", text)
    settings = get_settings()
    assert {name: getattr(settings, name) for name in GIVEN} == {name: value for name, (_, value) in GIVEN.items()}


def test_the_state_folder_follows_xdg(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert get_settings().state_dir == tmp_path / "xdg" / "rh-prefect"


@pytest.mark.parametrize(
    ("name", "value", "folder"),
    [
        ("RH_STATE_DIR", "~/rh-state", "rh-state"),
        ("RH_STATE_DIR", "", ".local/state/rh-prefect"),
        ("XDG_STATE_HOME", "state", ".local/state/rh-prefect"),
    ],
)
def test_the_state_folder_is_not_below_the_working_folder(
    bare: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, folder: str
) -> None:
    """A worker deletes the working folder of a run, and with it the ids of tasks that were not recorded yet."""
    bare.setenv(name, value)
    assert get_settings().state_dir == tmp_path / folder


@pytest.mark.parametrize("value", ["state", "./state", ".", "~nobody-of-this-name/state"])
def test_a_relative_state_folder_is_refused(bare: pytest.MonkeyPatch, value: str) -> None:
    bare.setenv("RH_STATE_DIR", value)
    with pytest.raises(ConfigError, match=r"RH_STATE_DIR: is a relative path.*use an absolute path"):
        get_settings()


def test_secrets_are_in_no_repr(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("RH_API_KEY", "canary-key-0123456789")
    bare.setenv("RH_WEBHOOK_TOKEN", "canary-token-0123456789")
    bare.setenv("RH_STORAGE_OPTIONS", '{"secret": "canary-secret"}')
    assert "canary" not in repr(get_settings())
    assert "canary" not in str(get_settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("RH_POLL_SECONDS", "0"), ("RH_SUBMIT_TIMEOUT", "-1"), ("RH_POLL_SECONDS", "canary")],
        ("RH_STORAGE_OPTIONS", '["canary-secret"]'),
    ],
)
def test_a_senseless_value_is_refused_and_not_shown(name: str, value: str, bare: pytest.MonkeyPatch) -> None:
    bare.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        get_settings()
    assert "canary" not in str(caught.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        get_settings().storage_url = "x"  # type: ignore[misc]  # the assignment is the test
