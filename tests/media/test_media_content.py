"""A `Media` reads, saves, links and shows its file, wherever it is stored."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from rh_prefect.errors import MediaError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server


@pytest.fixture
def picture(tmp_path: Path) -> Media:
    return MediaStore(tmp_path / "out").publish(samples.png(tmp_path / "a.png"), "a picture.png")


def test_a_file_is_read_saved_and_linked(picture: Media, tmp_path: Path) -> None:
    content = (tmp_path / "a.png").read_bytes()
    assert picture.read() == content
    with picture.open() as reader:
        assert reader.read(4) == content[:4]
    (tmp_path / "copies").mkdir()
    assert picture.save(tmp_path / "copies") == tmp_path / "copies" / "a picture.png"
    assert picture.save(tmp_path / "b.png").read_bytes() == content
    assert picture.url() == (tmp_path / "out" / "a picture.png").as_uri()


def test_a_file_that_was_changed_is_not_saved(picture: Media, tmp_path: Path) -> None:
    Path(picture.uri).write_bytes(b"another content")
    with pytest.raises(MediaError, match="was changed"):
        picture.save(tmp_path / "copy.png")
    assert not (tmp_path / "copy.png").exists()


def test_a_file_of_an_object_store_uses_the_options_of_the_environment(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = samples.png(tmp_path / "a.png")
    store = MediaStore(s3.url("media"), options=s3.options)
    picture = store.publish(local, "a/b c.png")
    monkeypatch.setenv("RH_STORAGE_URL", s3.url("media"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    assert picture.read() == local.read_bytes() == httpx.get(picture.url(seconds=60)).content
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path))
    assert picture.read(options=s3.options) == local.read_bytes()


def test_a_notebook_shows_pictures_players_and_what_is_wrong(picture: Media, tmp_path: Path) -> None:
    store = MediaStore(tmp_path / "out")
    assert '<img src="data:image/jpeg;base64,' in picture._repr_html_()
    clip = store.publish(samples.mp4(tmp_path / "a.mp4"), "<b>.mp4")
    shown = clip._repr_html_()
    assert "<video controls" in shown
    assert "&lt;b&gt;.mp4" in shown
    Path(picture.uri).unlink()
    assert "a picture.png" in picture._repr_html_()
