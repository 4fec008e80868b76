"""`Media`: a file that is identified by its content, as a frozen value; and the types accepted in its place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, BinaryIO
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rh_prefect.display_texts import size_text
from rh_prefect.errors import InputError, MediaError, StoreError
from rh_prefect.json_snapshot import is_text
from rh_prefect.local_files import atomic_path
from rh_prefect.media.file_types_and_completeness import Kind
from rh_prefect.media.storage_errors import as_media_error, as_store_error, guarded, pieces_of
from rh_prefect.media.storage_urls import open_filesystem, open_link, protocol_of, shown_url, signed_link, split_url
from rh_prefect.media.writers import Tally
from rh_prefect.settings import get_settings


class Media(BaseModel):
    """One file in a store: its location, its type, and the hash of its content.

    The outputs of a result are values of this class. Pass them wherever a call takes media:

        picture = await generate(models.ZImageTurboLora(prompt="a lighthouse"))
        await generate(models.KlingV26ProImageToVideo(image_url=picture.first_output, prompt="waves", duration="5"))

    Attributes:
        uri: The location: a path or an fsspec URI, without credentials.
        kind: The kind of file, from its content.
        mime: The MIME type, from its content.
        size: The size in bytes.
        sha256: The hash of the content, as hex digits.
        width: The width in pixels as shown, after any rotation that the file specifies.
        height: The height in pixels as shown.
        seconds: The duration of a video or audio, in seconds.
        fps: The frames per second of a video.
        has_audio: Whether a video has a sound track.
        defect: The defect, as in "a broken png", if the file was damaged in every download.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    kind: Kind
    mime: str
    size: int = Field(ge=0)
    sha256: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None
    has_audio: bool | None = None
    defect: str | None = None

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        parts = split_url(self.uri)
        if len(parts.scheme) > 1:
            path = unquote(parts.path) if parts.scheme in ("file", "http", "https") else self.uri
            return PurePosixPath(path).name
        return PurePath(self.uri).name

    @property
    def facts(self) -> str:
        """The properties of the file in readable form, as in `270 × 480, 5.0 s, 0.2 MB`."""
        shape = f"{self.width} × {self.height}" if self.width else ""
        length = f"{self.seconds:.1f} s" if self.seconds is not None else ""
        return ", ".join(filter(None, (shape, length, size_text(self.size), self.defect)))

    def __repr__(self) -> str:
        """Returns the kind, the properties and the location of the file."""
        return f"<Media {self.kind}: {self.uri}, {self.facts}>"

    __str__ = __repr__

    def at(self, uri: str) -> Media:
        """Returns the same file at another address."""
        moved = self.model_copy(update={"uri": uri})
        # A copy has a set of 700 bytes of its own, and a run of thousands of jobs keeps all its files
        object.__setattr__(moved, "__pydantic_fields_set__", _FIELDS)
        return moved

    @contextmanager
    def open(self, *, options: Mapping[str, object] | None = None) -> Iterator[BinaryIO]:
        """Opens the file for reading, with constant memory use.

        Args:
            options: fsspec's options for the file's storage; by default those in `RH_STORAGE_OPTIONS`, if the storage
                is of the same kind as `RH_STORAGE_URL`.

        Yields:
            A binary reader.

        Raises:
            MediaError: The file cannot be read.
        """
        options = _options_for(self.uri) if options is None else options
        error_guard = partial(as_media_error, shown_url(self.uri), options=options)
        with ExitStack() as stack:
            with error_guard():
                fs, path = open_filesystem(self.uri, options)
                reader = stack.enter_context(fs.open(path, "rb"))
            yield guarded(pieces_of(reader.read), error_guard)

    def read(self, *, options: Mapping[str, object] | None = None) -> bytes:
        """Returns the content of the file; for `options` and errors see `open`."""
        with self.open(options=options) as reader:
            return reader.read()

    def save(self, path: str | os.PathLike[str], *, options: Mapping[str, object] | None = None) -> Path:
        """Copies the file to this machine, with constant memory use; the copy is complete or does not exist.

        Args:
            path: A file, which is replaced, or a folder, in which the copy keeps the file's name.
            options: See `open`.

        Returns:
            The path of the copy.

        Raises:
            MediaError: The file cannot be read, or was changed after the `Media` was made.
            OSError: The copy cannot be written.
        """
        to = Path(path)
        to = to / self.name if to.is_dir() else to
        tally = Tally()
        with self.open(options=options) as reader, atomic_path(to, durable=False) as part:
            with part.open("wb") as writer:
                writer.writelines(tally.chunks(reader))
            if tally.digest.hexdigest() != self.sha256:
                raise MediaError(
                    f"{self.uri} was changed after it was made. It was not copied. What to do: put the original file "
                    "back."
                )
        return to

    def url(self, *, seconds: int = 86400, options: Mapping[str, object] | None = None) -> str:
        """Returns a link that a browser can open: `file://` for a local file, otherwise a signed link, which expires.

        Args:
            seconds: The validity of a signed link; S3 allows at most 7 days.
            options: See `open`.

        Raises:
            StoreError: The storage cannot sign links.
        """
        if link := open_link(self.uri):
            return link
        options = _options_for(self.uri) if options is None else options
        with as_store_error("sign a link to the file", shown_url(self.uri), options=options):
            link = signed_link(*open_filesystem(self.uri, options), seconds)
        if link is None:
            raise StoreError(
                f"{self.uri} has no link: its storage cannot sign links. What to do: use the method `save` or "
                "`read` of the Media."
            )
        return link

    def _repr_html_(self) -> str:
        """Shows the file in a notebook."""
        from rh_prefect.media.notebook_view import as_html

        return as_html(self)


_FIELDS = set(Media.model_fields)


def _options_for(uri: str) -> Mapping[str, object]:
    """Returns the environment's storage options if a file is in the same kind of storage."""
    settings = get_settings()
    return settings.storage_options if protocol_of(uri) == protocol_of(settings.storage_url) else {}


def as_media_input(value: object) -> Media | str:
    """Returns a file as a `Media`, or the path or URI unchanged; reads nothing.

    The value is a `Media`, a path, a URI, the JSON form of a `Media`, or an object with a `Media` as `first_output`,
    such as the result of a job. Raises `InputError` for any other value, and for a damaged `Media`.
    """
    if isinstance(value, Media):
        return _whole(value)
    if isinstance(value, str | os.PathLike):
        return _as_text(value)
    if isinstance(value, Mapping):
        return _whole(_from_json(value))
    media = getattr(value, "first_output", None)
    if isinstance(media, Media):
        return _whole(media)
    raise _no_file(value)


def without_mark(value: object) -> object:
    """Returns the file in `{"file": …}`, and other values unchanged; for parameters that take files."""
    if isinstance(value, list):
        return [without_mark(one) for one in value]
    return value["file"] if isinstance(value, Mapping) and value.keys() == {"file"} else value


def _whole(media: Media) -> Media:
    """Raises an error for a damaged file, because a job with this file would be paid for in vain."""
    if media.defect is not None:
        raise InputError(
            f"{media.uri} is damaged ({media.defect}): the file was damaged in every download from RunningHub. "
            "Nothing was sent. What to do: rerun the job that made the file, which downloads it again at no cost; or "
            "use another file."
        )
    return media


def _no_file(value: object) -> InputError:
    """Returns the error for another value; for a coroutine or a future, it explains how to get the result."""
    what = type(value).__name__
    advice = "pass a path, a URI such as s3://bucket/photo.jpg, an http(s) URL, a Media, or the result of another job"
    if callable(getattr(value, "result", None)):
        what = f"a {what} whose result is not available yet"
        advice = "pass the return value of its `.result()`; in an async flow, await the call instead of submitting it"
    elif inspect.isawaitable(value):
        what, advice = f"a {what} that was never awaited", "put `await` before it"
    return InputError(f"Expected a file, not {what}. What to do: {advice}.")


def _as_text(value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            "Expected a file, not an empty path. What to do: pass a path, a URI or the result of another job."
        )
    if "\0" in text or not is_text(text):
        raise InputError(
            f"The file name {text!a} is not UTF-8, or contains a NUL byte, and cannot be recorded. What to do: rename "
            "the file."
        )
    return text


def _from_json(value: Mapping[str, object]) -> Media:
    try:
        return Media.model_validate(value)
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()}))
        raise InputError(
            f"Expected a file, but the given object is not a Media (wrong or missing: {wrong}). What to do: "
            "pass a path, a URI, or the JSON form of a Media, which has at least uri, kind, mime, size and "
            "sha256."
        ) from None


def _validate(value: object) -> Media | str:
    """Converts an `InputError` to a `ValueError`, so that pydantic reports the error with the name of the field."""
    try:
        return as_media_input(value)
    except InputError as error:
        raise ValueError(error.message) from None


MediaInput = Annotated[Media | str, BeforeValidator(_validate)]
"""The type of a parameter that takes a file; see `as_media_input`."""
