"""Stores by their URL, and what each kind of place refuses."""

from __future__ import annotations

import pickle
import subprocess
import textwrap
import traceback
from pathlib import Path

import httpx
import pytest

from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.media.store import MediaStore, link_to
from tests.support.processes import warm_process
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server


def failure(store: MediaStore) -> str:
    """What is said when nothing can be written there."""
    with pytest.raises(StoreError) as caught:
        store.check()
    said = str(caught.value)
    assert store.url in said
    assert "What to do: " in said
    # What a log would show, causes and all.
    shown = "".join(traceback.format_exception(caught.value)) + repr(pickle.loads(pickle.dumps(caught.value)))
    for value in store.options_for(store.url).values():
        assert not (isinstance(value, str) and "canary" in value and value in shown)
    return said


def test_a_folder_is_absolute_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = MediaStore("out")
    monkeypatch.chdir("/")
    assert store.url == f"{tmp_path.as_posix()}/out"
    assert store.protocol == "file"
    store.write_bytes("a.txt", b"1")
    assert (tmp_path / "out" / "a.txt").exists()


def test_spellings_of_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    urls: list[str | Path] = ["~/out", tmp_path / "out", f"file://{tmp_path}/out/", f"{tmp_path}/x/../out"]
    assert {MediaStore(url).url for url in urls} == {f"{tmp_path.as_posix()}/out"}
    assert MediaStore("~/out").name_of(f"file://{tmp_path}/out/a.txt") == "a.txt"


def test_a_folder_may_have_the_name_of_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [MediaStore(url).url for url in ("./s3:/out", "s3", "take:2")] == [
        f"{tmp_path.as_posix()}/{name}" for name in ("s3:/out", "s3", "take:2")
    ]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a storage URL"),
        ("https://example.com/out", "is read-only"),
        ("simplecache::s3://bucket", "not a storage URL"),
        ("s4://bucket", "Unknown protocol s4"),
        ("s3://", "contains no bucket"),
        ("s3:///films", "contains no bucket"),
        ("s3:/bucket/films", "// is missing"),
        ("S3:bucket", "// is missing"),
        ("gs:/bucket", "// is missing"),
        ("memory:", "// is missing"),
        # An S3 listing would not find what lies there, so that `reuse` would pay again.
        ("s3://media/a//b", "empty folder name"),
        ("s3://media//a", "empty folder name"),
        ("gs://media/a///b", "empty folder name"),
    ],
)
def test_what_cannot_be_a_store_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        MediaStore(url)


@pytest.mark.parametrize("url", ["x_y://b/?token=", "zip::s3://b/?token=", "s4://b/?x=", "s3:/b?x="])
def test_a_refused_store_shows_no_part_of_a_parameter(url: str) -> None:
    for value in ("canary", 'ab"canary', "ab canary"):
        with pytest.raises(ConfigError) as caught:
            MediaStore(url + value)
        assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        MediaStore("s3://user:canary?token=1@bucket")
    assert "canary" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert "a part of the path is a file, not a folder" in failure(MediaStore(folder))
    failure(MediaStore("/proc/rh-prefect-test"))


def test_a_folder_in_the_way_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4" / "x").mkdir(parents=True)
    with pytest.raises(StoreError, match="there is a folder where a file was expected"):
        MediaStore(tmp_path).write_bytes("a.mp4", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        local = tmp_path / "big.bin"
        local.write_bytes(bytes(2_000_000))
        with pytest.raises(StoreError, match=r"the disk is full\..*What to do: free some space") as caught:
            MediaStore(disk / "out").publish(local, "big.bin")
        assert str(disk) in str(caught.value)
        assert [path for path in disk.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.s3
def test_a_key_that_may_only_read(s3: S3Server, tmp_path: Path) -> None:
    url = s3.url("locked")
    MediaStore(url, options=s3.options).write_bytes("a.txt", b"1")
    reader = MediaStore(url, options=s3.reader_options)
    assert reader.read_bytes("a.txt") == b"1"
    assert "does not have permission for this" in failure(reader)
    photo = samples.png(tmp_path / "a.png")
    for change in (lambda: reader.publish(photo, "b.png"), lambda: reader.delete("a.txt")):
        with pytest.raises(StoreError, match="does not have permission for this"):
            change()
    assert reader.list() == ["a.txt"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("url", "wrong", "why"),
    [
        ("{}", {"secret": "canary-of-a-wrong-secret"}, "the secret does not belong to the key"),
        ("{}", {"key": "canary-of-an-unknown-key"}, "the key is unknown"),
        ("s3://no-such-bucket/out", {}, "the bucket does not exist"),
    ],
)
def test_wrong_credentials_and_a_wrong_bucket(s3: S3Server, url: str, wrong: dict[str, str], why: str) -> None:
    store = MediaStore(url.format(s3.url()), options={**s3.options, **wrong})
    assert why in failure(store)
    with pytest.raises(StoreError, match=why):
        store.list()


@pytest.mark.s3
def test_no_credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    # Or botocore would ask the network for an instance's role.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = MediaStore(s3.url(), options={"endpoint_url": s3.endpoint})
    assert "no credentials were found" in failure(store)


def test_a_wrong_endpoint_and_an_unknown_option() -> None:
    options = {"key": "canary-key", "secret": "canary-secret", "endpoint_url": "http://127.0.0.1:9"}
    # botocore's own retries would take ten seconds.
    store = MediaStore("s3://bucket/out", options={**options, "config_kwargs": {"retries": {"max_attempts": 0}}})
    assert "no server answers at this address" in failure(store)
    said = failure(MediaStore("s3://bucket", options={"pass": "canary-word"}))
    assert "a storage option is not accepted" in said and "'pass'" in said


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/out", {"key": "canary-key", "client_kwargs": {"aws_session_token": "canary-token"}}),
        ("sftp://me:canary-password@host/out", {}),
    ],
)
def test_secrets_are_not_shown(url: str, options: dict[str, object]) -> None:
    store = MediaStore(url, options=options)
    assert "canary" not in repr(store) + str(store) + store.url + store.uri("a")
    with pytest.raises(TypeError, match="name of its block"):
        pickle.dumps(store)


def test_a_store_without_secrets_pickles(tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(MediaStore(tmp_path, signed_inputs=True, template="{task}-{index}")))
    assert (store.url, store.signed_inputs, store.template) == (tmp_path.as_posix(), True, "{task}-{index}")


def test_options_go_to_their_own_kind_of_place_only() -> None:
    store = MediaStore("s3://bucket/out", options={"key": "canary"})
    assert store.options_for("s3://other/photo.png") == {"key": "canary"}
    assert store.options_for("photo.png") == {}
    assert store.options_for("https://example.com/photo.png") == {}


@pytest.mark.s3
def test_a_public_place_signs_links(s3: S3Server) -> None:
    store = MediaStore(s3.url("public"), options=s3.options, signed_inputs=True)
    store.write_bytes("镜头 1.txt", b"hello")
    link, lasting = store.signed_url("镜头 1.txt", seconds=60), link_to(store.uri("镜头 1.txt"), store)
    assert link is not None
    assert httpx.get(link).content == httpx.get(lasting).content == b"hello"
    assert httpx.get(link.partition("?")[0]).status_code == 403
    assert "X-Amz-Signature" in link
    assert s3.options["secret"] not in link
    assert "X-Amz-Expires=604800" in lasting, "the longest time that S3 allows"
    assert link_to("s3://elsewhere/a.txt", store) == link_to("s3://elsewhere/a.txt", None) == ""
    assert link_to("/out/镜头 1.txt", None) == "file:///out/%E9%95%9C%E5%A4%B4%201.txt"


@pytest.mark.s3
def test_a_file_in_s3_has_its_type(s3: S3Server, tmp_path: Path) -> None:
    store = MediaStore(s3.url(), options=s3.options)
    store.publish(samples.png(tmp_path / "photo"), "photo")
    assert s3.filesystem().info(store.uri("photo"))["ContentType"] == "image/png"


@pytest.mark.s3
def test_a_forked_process_goes_on_and_does_not_disturb_its_parent(s3: S3Server) -> None:
    """In a separate process, since pytest's threads do not survive a fork."""
    # A connection that was taken from the parent would hang for ever.
    options = {**s3.options, "config_kwargs": {"read_timeout": 3600}}
    script = f"""
        import gc
        from rh_prefect.media.store import MediaStore
        from tests.support.processes.in_fork import in_fork
        store = MediaStore({s3.url("fork")!r}, options={options!r})
        store.write_bytes("a.txt", b"1")
        in_fork(lambda: (store.write_bytes("b.txt", store.read_bytes("a.txt")), gc.collect()))
        assert store.list() == ["a.txt", "b.txt"]
    """
    done = warm_process.run(["-c", textwrap.dedent(script)])
    assert done.returncode == 0, done.stderr
