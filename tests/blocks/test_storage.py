from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import ValidationError

from rh_prefect.blocks import MediaStorage
from rh_prefect.errors import ConfigError
from tests.support.servers.s3 import S3Server

SECRET = "canary-secret"


def test_a_local_folder_is_a_store(tmp_path: Path) -> None:
    store = MediaStorage(url=f" {tmp_path} ", template="{run}-{key}-{index}.{ext}").get_store()
    store.write_bytes("a/b.txt", b"hello")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"hello"
    assert store.template == "{run}-{key}-{index}.{ext}"
    assert not store.signed_inputs


def test_a_relative_folder_that_a_worker_deletes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process worker runs each flow in a temporary folder, which it deletes, with all outputs that are in it."""
    temporary = tmp_path / "temporary"
    (temporary / "tmp123prefect").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(temporary / "tmp123prefect")
    assert MediaStorage(url="films").get_store().url.endswith("/tmp123prefect/films"), "a script's own folder stays"
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    for relative in ("films", "./films", "file://films"):
        with pytest.raises(ConfigError, match="Nothing was paid"):
            MediaStorage(url=relative).get_store()
    assert MediaStorage(url=str(temporary / "films")).get_store().url == f"{temporary}/films"
    assert MediaStorage(url="~/films").get_store().url == str(Path("~/films").expanduser())
    monkeypatch.chdir(tmp_path)
    assert MediaStorage(url="films").get_store().url == f"{tmp_path}/films", "a folder that is kept"


def test_options_are_never_shown() -> None:
    block = MediaStorage(url="s3://bucket", options={"secret": SECRET})
    assert SECRET not in f"{block!r} {block} {block.model_dump()} {block.model_dump_json()} {block.get_store()!r}"
    with pytest.raises(ValidationError) as error:
        MediaStorage(url="s3://bucket", options=SECRET)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "  ", f"sftp://me:{SECRET}@host/path", f"abfs://c@a.dfs.core.windows.net/x?sv=1&sig={SECRET}"]
)
def test_a_url_without_secrets_is_needed(url: str) -> None:
    with pytest.raises(ValidationError) as error:
        MediaStorage(url=url)
    assert SECRET not in str(error.value)


def made(credentials: Any, folder: str = "") -> tuple[str, dict[str, Any]]:
    storage = MediaStorage.from_s3_bucket(S3Bucket(bucket_name="media", bucket_folder=folder, credentials=credentials))
    return storage.url, storage.options.get_secret_value()


AWS = {"aws_access_key_id": "id", "aws_secret_access_key": SECRET, "aws_session_token": "t", "region_name": "eu-west-1"}
MINIO = {
    "endpoint_url": "http://minio:9000",
    "use_ssl": False,
    "verify": False,
    "config": {"s3": {"addressing_style": "path"}, "signature_version": "unsigned"},
}


def test_a_bucket_with_aws_credentials() -> None:
    url, options = made(AwsCredentials(**AWS), "films/2026/")
    assert url == "s3://media/films/2026"
    assert options == {"key": "id", "secret": SECRET, "token": "t", "client_kwargs": {"region_name": "eu-west-1"}}
    assert made(AwsCredentials()) == ("s3://media", {}), "the environment's credentials"
    assert made(AwsCredentials(profile_name="studio"))[1] == {"profile": "studio"}
    with pytest.raises(ConfigError, match=r"arn:aws:iam::1:role/studio.*profile"):  # a role cannot be copied
        made(AwsCredentials(assume_role_arn="arn:aws:iam::1:role/studio"))


def test_a_bucket_with_minio_credentials_and_client_parameters() -> None:
    parameters = AwsClientParameters(**MINIO)
    credentials = MinIOCredentials(minio_root_user="root", minio_root_password=SECRET, aws_client_parameters=parameters)
    assert made(credentials)[1] == {
        "key": "root",
        "secret": SECRET,
        "endpoint_url": "http://minio:9000",
        "use_ssl": False,
        "anon": True,
        "client_kwargs": {"verify": False},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


@pytest.mark.s3
def test_the_store_of_a_bucket_reads_and_writes(s3: S3Server) -> None:
    bucket, _, folder = s3.url("bucket-block").removeprefix("s3://").partition("/")
    options = s3.options
    credentials = MinIOCredentials(
        minio_root_user=options["key"],
        minio_root_password=options["secret"],
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.endpoint),
    )
    block = S3Bucket(bucket_name=bucket, bucket_folder=folder, credentials=credentials)
    store = MediaStorage.from_s3_bucket(block, signed_inputs=True).get_store()
    store.write_bytes("a/b.txt", b"hello")
    # Prefect's own block sees the file where it would have put it itself.
    assert block.read_path("a/b.txt", _sync=True) == b"hello"  # type: ignore[call-arg]  # of Prefect's own decorator
    assert store.signed_inputs
