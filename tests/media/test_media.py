from __future__ import annotations

import pickle
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Completed
from pydantic import BaseModel, ValidationError

from rh_prefect.errors import InputError
from rh_prefect.media.media import Media, MediaInput, as_media_input

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
    ],
)
def test_has_a_name(uri: str, name: str) -> None:
    assert PHOTO.model_copy(update={"uri": uri}).name == name


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


@pytest.mark.parametrize("given", [3, None, "", " ", b"photo.jpg", {"uri": "x"}, object(), ["photo.jpg"]])
def test_refuses_what_does_not(given: object) -> None:
    with pytest.raises(InputError, match="Expected a file"):
        as_media_input(given)
    with pytest.raises(ValidationError, match=r"image\n.*Expected a file"):
        Request(image=given)


def test_says_how_a_result_is_got_of_a_future() -> None:
    future: PrefectConcurrentFuture[None] = PrefectConcurrentFuture(uuid4(), Future())
    unfinished: tuple[Any, ...] = (future, Future(), Completed())
    for one in unfinished:
        with pytest.raises(InputError, match=rf"{type(one).__name__} .*`\.result\(\)`"):
            as_media_input(one)


def test_says_what_a_call_lacks_that_was_never_awaited() -> None:
    async def generate() -> None: ...

    call = generate()
    with pytest.raises(InputError, match="What to do: put `await` before it"):
        as_media_input(call)
    call.close()


@pytest.mark.parametrize("given", ["a\0b.png", "caf\udce9.png", Path("a\0b.png")])
def test_refuses_a_name_that_no_record_could_hold(given: object) -> None:
    with pytest.raises(InputError, match="What to do: rename the file"):
        as_media_input(given)


def test_says_what_a_json_form_lacks() -> None:
    with pytest.raises(InputError, match=r"kind, mime, sha256, size"):
        as_media_input({"uri": "x"})


def test_does_not_hide_the_error_of_a_result_without_files() -> None:
    class Empty:
        @property
        def first_output(self) -> Media:
            raise InputError("no outputs")

    with pytest.raises(InputError, match="no outputs"):
        as_media_input(Empty())
