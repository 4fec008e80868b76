from __future__ import annotations

import json
import pickle
from concurrent.futures import Future
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Completed
from pydantic import BaseModel, ValidationError

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.media import Media, MediaInput, as_media_input
from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server

PHOTO = Media(uri="s3://bucket/a b/фото.png", kind="image", mime="image/png", size=3, sha256="ab", width=4, height=3)


class Request(BaseModel):
    image: MediaInput
    more: list[MediaInput] = []


class HasFirstOutput:
    first_output = PHOTO


def test_is_a_frozen_value() -> None:
    with pytest.raises(ValidationError):
        PHOTO.uri = "elsewhere"  # type: ignore[misc]  # the assignment is the test
    assert PHOTO == Media.model_validate_json(PHOTO.model_dump_json()) == pickle.loads(pickle.dumps(PHOTO))
    assert hash(PHOTO) == hash(PHOTO.model_copy())


def test_says_in_one_line_what_it_is() -> None:
    clip = PHOTO.model_copy(update={"uri": "s3://b/a.mp4", "kind": "video", "width": 270, "height": 480, "seconds": 5})
    assert repr(clip.model_copy(update={"size": 123_000})) == "<Media video: s3://b/a.mp4, 270 × 480, 5.0 s, 0.12 MB>"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/a/фото 1.png", "фото 1.png"),
        ("s3://bucket/what?.png", "what?.png"),
        ("/tmp/a#b/c.png", "c.png"),
        ("https://host/a/b%20c.png?X-Amz-Signature=1", "b c.png"),
        ("http://host:port/a.png", "a.png"),
    ],
)
def test_has_a_name(uri: str, name: str) -> None:
    assert PHOTO.at(uri).name == name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PHOTO, PHOTO),
        (PHOTO.model_dump(), PHOTO),
        (HasFirstOutput(), PHOTO),
        ("photo.jpg", "photo.jpg"),
        (Path("a") / "photo.jpg", str(Path("a") / "photo.jpg")),
    ],
)
def test_accepts_what_names_a_file(given: object, expected: object) -> None:
    assert as_media_input(given) == expected
    assert Request(image=given, more=[given]).more == [expected]


UNFINISHED: tuple[object, ...] = (PrefectConcurrentFuture[None](uuid4(), Future()), Future[None](), Completed())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *[(one, "Expected a file") for one in (3, None, "", " ", b"photo.jpg", object(), ["photo.jpg"])],
        ({"uri": "x"}, "Expected a file.*kind, mime, sha256, size"),
        *[(one, rf"{type(one).__name__} .*`\.result\(\)`") for one in UNFINISHED],
        *[(name, "What to do: rename the file") for name in ("a\0b.png", "caf\udce9.png", Path("a\0b.png"))],
    ],
)
def test_refuses_what_does_not_and_says_what_to_do(given: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_media_input(given)
    with pytest.raises(ValidationError, match=rf"image\n.*{said}"):
        Request(image=given)


def test_says_what_a_call_lacks_that_was_never_awaited() -> None:
    async def generate() -> None: ...

    call = generate()
    with pytest.raises(InputError, match="What to do: put `await` before it"):
        as_media_input(call)
    call.close()


def test_does_not_hide_the_error_of_a_result_without_files() -> None:
    class Empty:
        @property
        def first_output(self) -> Media:
            raise InputError("no outputs")

    with pytest.raises(InputError, match="no outputs"):
        as_media_input(Empty())


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
