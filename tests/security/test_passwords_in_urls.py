"""A password in a URL stands in no message, no repr and no cause."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rh_prefect.blocks import MediaStorage
from rh_prefect.errors import ConfigError, JournalError, MediaError, RunningHubError, StoreError
from rh_prefect.media.input_files import open_input, shown
from rh_prefect.media.storage_errors import masked
from rh_prefect.media.storage_urls import masked_url, protocol_of, without_user
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch_pipeline import Batch, write_batch
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.plan import KnownWorks, Plan
from rh_prefect.redaction import mask
from rh_prefect.works.journal.journal import FolderJournal

SECRETS = ("pa55", "w0rd", "w@rd", "5ec", "r3t")
URLS = [
    "ftp://user:pa55w0rd@127.0.0.1:9/a.png",
    "simplecache::ftp://user:pa55w0rd@127.0.0.1:9/a.png",
    "filecache::simplecache::ftp://user:pa55w0rd@127.0.0.1:9/a.png",
    "zip://a.png::ftp://user:pa55w0rd@127.0.0.1:9/a.zip",
    "ftp://user:pa55/w0rd@127.0.0.1:9/a.png",
    "ftp://user:pa55@w0rd@127.0.0.1:9/a.png",
    "ftp://user:pa55@ss/w0rd@127.0.0.1:9/a.png",
    "ftp://user:pa55/w@rd/5ecr3t@127.0.0.1:9/a.png",
    "ftp://user:pa55:w0rd@127.0.0.1:9/a.png",
    "s3://key:5ecr3t@bucket/a.png",
    "s3://key:5ec/r3t+pa55/w0rd@bucket/a.png",
    "s4://user:pa55w0rd@host/a.png",
    "1ftp://user:pa55w0rd@host/a.png",
    "https://user:pa55w0rd@127.0.0.1:9/a.png",
    "https://user:pa55/w0rd@127.0.0.1:9/a.png",
    "https://:pa55w0rd@127.0.0.1:9/a.png",
]


TOKENS = [
    "simplecache::https://127.0.0.1:9/a.png?token=5ecr3t",
    "zip://a.png::https://127.0.0.1:9/a.zip?X-Amz-Credential=5ecr3t&x-amz-signature=w0rd",
    "zip://a.png::simplecache::http://127.0.0.1:9/a.zip?access_token=5ecr3t&x=1",
    "abfs://films@account.dfs.core.windows.net/a.png?sig=5ecr3t",
    "abfs://films@account.dfs.core.windows.net/a.png?sp=r&%73ig=5ecr3t",
    "simplecache::abfs://films@account.dfs.core.windows.net/a.png?sv=2024&sig=5ecr3t%2Bw0rd",
    "s3://bucket/a.png?versionId=1&api_key=5ecr3t",
    "https://127.0.0.1:9/a.png?sig=5ecr3t",
]


def has_secret(text: str) -> bool:
    return any(secret in text for secret in SECRETS)


def told(error: BaseException) -> str:
    """What a log shows of an error, with all that is behind it."""
    return "".join(traceback.format_exception(type(error), error, None)) + repr(error)


@pytest.mark.parametrize("url", URLS)
def test_an_input_that_cannot_be_read_tells_no_password(url: str) -> None:
    assert not has_secret(shown(url))
    with pytest.raises(MediaError) as caught, open_input(url):
        pass
    assert not has_secret(told(caught.value))


@pytest.mark.parametrize("allowed", ["0", "1"])
@pytest.mark.parametrize("url", TOKENS)
def test_an_input_that_cannot_be_read_tells_no_token(url: str, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_ALLOW_PRIVATE_LINKS", allowed)
    assert not has_secret(shown(url))
    assert not has_secret(masked(f"it said: '{url}', and more"))
    with pytest.raises(MediaError) as caught, open_input(url):
        pass
    assert not has_secret(told(caught.value))


@pytest.mark.parametrize("place", ["*.png", "a.csv", "folder/"])
@pytest.mark.parametrize("url", TOKENS)
async def test_rows_that_cannot_be_read_tell_no_token(url: str, place: str, tmp_path: Path) -> None:
    named = url.replace("a.png", place).replace("a.zip", place)
    with pytest.raises(RunningHubError) as caught:
        await write(named, tmp_path)
    assert not has_secret(told(caught.value))


@pytest.mark.parametrize("url", [url.replace("a.png", "out") for url in URLS])
def test_a_place_that_cannot_be_used_tells_no_password(url: str) -> None:
    with pytest.raises((ConfigError, StoreError)) as caught:
        store = MediaStore(url)
        assert not has_secret(repr(store))
        store.check()
    if not url.startswith("1ftp"):  # a folder of that name can be made
        assert not has_secret(told(caught.value))


@pytest.mark.parametrize("url", [url for url in URLS if url.startswith(("ftp", "s4", "s3"))])
def test_a_journal_that_cannot_be_used_tells_no_password(url: str) -> None:
    try:
        said = repr(FolderJournal(url, scope="x"))
    except JournalError as error:
        said = told(error)
    assert not has_secret(said)


@pytest.mark.parametrize("url", ["s3://key:5ecr3t@bucket/out", "s3://key:5ec/r3t@bucket", "gs://a:5ecr3t@bucket/x"])
def test_credentials_in_the_url_of_a_bucket_are_refused_with_what_to_do(url: str) -> None:
    """These places read no credentials from a URL; they are refused before anything is sent."""
    with pytest.raises(ConfigError, match="storage options") as caught:
        MediaStore(url)
    assert not has_secret(str(caught.value))
    with pytest.raises(ValueError, match="password"):
        MediaStorage(url=url)


@pytest.mark.parametrize("query", ["sv=2024&sig=5ecr3t", "%73ig=5ecr3t", "X-Amz-Signature=5ecr3t", "token=5ecr3t"])
def test_a_signature_in_the_url_of_a_place_is_refused_with_what_to_do(query: str) -> None:
    """The URL of a place is shown and recorded."""
    url = f"abfs://films@account.dfs.core.windows.net/out?{query}"
    with pytest.raises(ConfigError, match="storage option") as of_store:
        MediaStore(url)
    with pytest.raises(ConfigError, match="storage option") as of_journal:
        FolderJournal(url, scope="x")
    assert not has_secret(told(of_store.value) + told(of_journal.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('Invalid bucket name "key:sec/ret@bucket": Bucket', 'Invalid bucket name "***@bucket": Bucket'),
        ("no connection to ftp://u:p@h/x and ftp://v:q@h/y", "no connection to ftp://***@h/x and ftp://***@h/y"),
        ("see https://host.example:8080/a@2x.png", "see https://host.example:8080/a@2x.png"),
        ("see https://host.example/@me/a.png", "see https://host.example/@me/a.png"),
        ("s3://bucket/a@2x.png", "s3://bucket/a@2x.png"),
        ("mail: me@example.com", "mail: me@example.com"),
        ("simplecache::ftp://u:p@h/x", "simplecache::ftp://***@h/x"),
    ],
)
def test_a_librarys_words_are_masked(text: str, said: str) -> None:
    assert masked(text) == said


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("ftp://u:p@h/x", "ftp://h/x"),
        ("ftp://u:p@q@h/x", "ftp://h/x"),
        ("ftp://u:p/q@h/x", "ftp://h/x"),
        ("simplecache::ftp://u:p@h/x", "simplecache::ftp://h/x"),
        ("zip://a@b::ftp://u:p@h/x", "zip://b::ftp://h/x"),
        ("https://h:80/a@b", "https://h:80/a@b"),
        ("https://h/u:v@b", "https://h/u:v@b"),
        ("s3://bucket/a@2x.png", "s3://bucket/a@2x.png"),
        ("abfs://container@account.example/x", "abfs://container@account.example/x"),
    ],
)
def test_a_url_without_its_user(url: str, bare: str) -> None:
    """What is left names the same file, and no two files become one."""
    assert without_user(url) == bare


def test_a_chain_is_not_a_local_file() -> None:
    assert protocol_of("simplecache::ftp://u:p@h/x") == "simplecache"
    assert protocol_of("a::b.png") == "file"
    for kept in ("http://127.0.0.1:80/a@b", "http://[::1]:80/a@b"):  # a port, and an at sign in a path
        assert masked_url(kept) == kept


def test_a_chain_is_read() -> None:
    """A chain that begins without `://` is opened by fsspec."""
    fsspec.filesystem("memory").pipe_file("/chained.txt", b"content")
    with open_input("simplecache::memory://chained.txt") as reader:
        assert reader.read() == b"content"
    MemoryFileSystem.store.clear()


def test_the_clients_mask_hides_passwords_and_control_characters() -> None:
    assert mask("at https://u:p@h/x \x1b[2J\x00!\n") == "at https://***@h/x  [2J !\n"


@pytest.mark.parametrize("auth", [["user", "ListSecret8888"], {"inner": ("user", {"pw": "ListSecret8888"})}])
def test_the_values_of_nested_options_are_masked(auth: object) -> None:
    assert masked("login user/ListSecret8888 refused", {"auth": auth}) == "login ***/*** refused"


@pytest.mark.parametrize("chain", ["simplecache::", "zip://a.png::", "file::", "::"])
async def test_a_chain_in_a_row_is_no_path_and_tells_no_password(tmp_path: Path, chain: str) -> None:
    address = f"{chain}http://user:hidden-word@127.0.0.1/a.png?token=hidden-word"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image_url": address}))
    (row,) = (await write(str(tmp_path / "rows.jsonl"), tmp_path / "out")).instances
    assert row.problems
    assert "hidden-word" not in " ".join(row.problems)


async def write(rows: str, out: Path) -> Plan:
    asked = Batch(rows, model="kling-v2.6-pro-image-to-video", values={"prompt": "x"})
    batch = await write_batch(asked, "site", MediaStore(out))
    plan = await batch.plan(KnownWorks())
    if plan.problems:
        raise PipelineError(plan.problems)
    return plan
