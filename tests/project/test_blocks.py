"""`blocks/dev.py` and `blocks/production.py`, run as a person runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool
from tests.support.processes import warm_process
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import ADMIN, READER, S3Server

pytestmark = pytest.mark.prefect

ROOT = Path(__file__).parents[2]
KEY = "canary0123456789abcdef0123456789"
DESK = {"RH_API_KEY": KEY, "RH_BASE_URL": "http://127.0.0.1:8765"}


def run(name: str, server: PrefectServer, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = warm_process.run([f"blocks/{name}.py", *arguments], env={**server.env, **env}, cwd=ROOT)
    assert not any(secret in done.stdout + done.stderr for secret in (KEY, *ADMIN, *READER, "Traceback"))
    return done


async def test_dev_saves_the_blocks_and_saves_them_again(prefect_server: PrefectServer, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        done = run("dev", prefect_server, **DESK, RH_STORAGE_URL=str(tmp_path / folder))
        assert done.returncode == 0, done.stderr
        credentials: RunningHubCredentials = await RunningHubCredentials.aload("runninghub")
        storage: MediaStorage = await MediaStorage.aload("media")
        assert credentials.api_key.get_secret_value() == KEY
        assert (credentials.base_url, storage.url) == (DESK["RH_BASE_URL"], str(tmp_path / folder))


async def test_dev_saves_a_relative_folder_as_a_whole_path(prefect_server: PrefectServer) -> None:
    assert run("dev", prefect_server, **DESK, RH_STORAGE_URL="rh-output").returncode == 0
    storage: MediaStorage = await MediaStorage.aload("media")
    assert storage.url == str(ROOT / "rh-output")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "what `rh-prefect emulator` prints"),
        ({"RH_API_KEY": KEY}, "what `rh-prefect emulator` prints"),
        ({"RH_API_KEY": KEY, "RH_BASE_URL": "https://www.runninghub.cn"}, "costs money"),
    ],
)
def test_dev_refuses_what_is_no_emulator(prefect_server: PrefectServer, env: dict[str, str], said: str) -> None:
    done = run("dev", prefect_server, **env)
    assert done.returncode == 1
    assert said in done.stderr


async def test_production_saves_the_account_and_the_bucket(prefect_server: PrefectServer, s3: S3Server) -> None:
    env = {"RH_API_KEY": KEY, "RH_STORAGE_URL": s3.url("films"), "RH_STORAGE_OPTIONS": json.dumps(s3.options)}
    done = run("production", prefect_server, **env)
    assert done.returncode == 0, done.stderr
    credentials: RunningHubCredentials = await RunningHubCredentials.aload("runninghub")
    storage: MediaStorage = await MediaStorage.aload("media")
    assert (credentials.base_url, storage.url) == ("https://www.runninghub.cn", env["RH_STORAGE_URL"])
    storage.get_store().check()


def test_production_refuses_a_site_without_a_scheme(prefect_server: PrefectServer) -> None:
    env = {"RH_API_KEY": KEY, "RH_BASE_URL": "www.runninghub.cn", "RH_STORAGE_URL": "s3://bucket/films"}
    done = run("production", prefect_server, **env)
    assert done.returncode == 1
    assert "RH_BASE_URL: the site must be a URL that starts with https://" in done.stderr


@pytest.mark.long
async def test_production_puts_accounts_into_a_pool(prefect_server: PrefectServer, s3: S3Server) -> None:
    env = {"RH_STORAGE_URL": s3.url("films"), "RH_STORAGE_OPTIONS": json.dumps(s3.options)}
    keys = {"studio": KEY, "spare": KEY[::-1]}
    for name in ("studio", "spare", "studio"):
        done = run("production", prefect_server, name, RH_API_KEY=keys[name], **env)
        assert done.returncode == 0, done.stderr
        assert "doctor --credentials runninghub-pool" in done.stdout
    pool: RunningHubPool = await RunningHubPool.aload("runninghub-pool")
    assert pool.credentials == ["studio", "spare"]
    for name, key in keys.items():
        account: RunningHubCredentials = await RunningHubCredentials.aload(name)
        assert account.api_key.get_secret_value() == key


def test_production_says_all_that_is_missing(prefect_server: PrefectServer) -> None:
    done = run("production", prefect_server)
    assert done.returncode == 1
    assert "RH_API_KEY is missing" in done.stderr
    assert "RH_STORAGE_URL is 'rh-output'" in done.stderr


def test_production_refuses_a_url_with_a_password(prefect_server: PrefectServer) -> None:
    done = run("production", prefect_server, RH_API_KEY=KEY, RH_STORAGE_URL="s3://user:hunter2@bucket/films")
    assert done.returncode == 1
    assert "nothing was saved, because the URL contains a password; put it in the storage options" in done.stderr
    assert "What to do: correct RH_STORAGE_URL or RH_STORAGE_OPTIONS, and run again." in done.stderr
    assert "hunter2" not in done.stderr


def test_production_refuses_a_bucket_that_takes_nothing(prefect_server: PrefectServer, s3: S3Server) -> None:
    env = {"RH_API_KEY": KEY, "RH_STORAGE_URL": s3.url(), "RH_STORAGE_OPTIONS": json.dumps(s3.reader_options)}
    done = run("production", prefect_server, **env)
    assert done.returncode == 1
    assert "nothing was saved" in done.stderr
