"""Reads a file's type, size, duration and sound, and detects damaged or mistaken downloads."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image
from PIL.TiffImagePlugin import STRIPBYTECOUNTS, STRIPOFFSETS, TILEBYTECOUNTS, TILEOFFSETS, TiffImageFile

from rh_prefect.errors import MediaError
from rh_prefect.media import file_types_and_completeness as types
from rh_prefect.media.file_types_and_completeness import FileType, Kind, is_web_page, missing_bytes, sniff
from rh_prefect.media.storage_errors import as_media_error

_FULL_DECODE = 16_000_000
"""Maximum pixels of a picture that is decoded completely; more would need too much memory."""

_PROGRESSIVE_DECODE = 100_000_000
"""Maximum pixels of a progressive JPEG or an AVIF that is decoded, with up to 6 bytes of memory for each pixel."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation with swapped width and height."""

_UNDECODABLE = re.compile(r"unknown pixel mode|cannot handle \d+-bit|unsupported", re.IGNORECASE)
"""Pillow's messages about a valid picture in an unsupported form, such as a TIFF with 32-bit float colours."""

_FLAC_TOLERANCE = 0.02
"""Seconds by which a FLAC file may be shorter than its header says."""

_BY_TRACKS = {
    ("video/mp4", False): types.M4A,
    ("video/quicktime", False): types.M4A,
    ("video/webm", False): types.WEBM_SOUND,
    ("video/x-matroska", False): types.MKA,
    ("audio/ogg", True): types.OGV,
    ("audio/mp4", True): types.MP4,
}
"""The actual type of a container, by the usual MIME type and by whether there is a picture track."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The properties of a file from its content, in the units of `Media`, and its usual extension without a dot."""

    kind: Kind
    mime: str
    extension: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None
    has_audio: bool | None = None


def probe(path: Path) -> Facts:
    """Reads the properties of a file; memory use does not depend on its size.

    A picture is decoded completely, a video or audio only at its first frame. The lengths in the file show whether
    bytes are missing at the end; raw AAC, MPEG-TS and MP3 without a Xing header lack lengths. Raises `MediaError` for a
    file that is missing, a folder, empty, incomplete or broken.
    """
    found = file_type(path)
    if missing_bytes(path, found):
        raise _broken(path, found, "its end is missing")
    read = _READERS.get(found.kind)
    facts = Facts(found.kind, found.mime, found.extension)
    if read is None or found is types.HEIC:
        return facts
    try:
        return read(path, facts)
    except MediaError:
        raise
    except Exception as error:
        if facts.kind == "image" and _UNDECODABLE.search(str(error)):
            return facts
        # Decoders raise anything on bytes that make no sense.
        raise _broken(path, found, _words(error)) from error


def file_type(path: Path) -> FileType:
    """Detects a local file's type from its first bytes; raises `MediaError` for a missing or empty file or a folder."""
    with as_media_error(str(path)), path.open("rb") as file:
        head, size = file.read(types.HEAD), os.fstat(file.fileno()).st_size
    if not size:
        raise MediaError(f"The file {path} is empty. What to do: use a file with content.")
    return sniff(head, size=size)


def extension_for(mime: str, name: str) -> str:
    """Returns the extension for a MIME type; for text and unknown types, the extension in the file's name."""
    known = "" if mime.startswith(("text/", "application/")) else types.EXTENSIONS.get(mime)
    return known or Path(name).suffix.lower().removeprefix(".")


def facts_or_type(path: Path) -> Facts:
    """Returns the properties of a file, or only the type of a broken file; raises `MediaError` for a missing file."""
    try:
        return probe(path)
    except MediaError:
        with as_media_error(str(path)):
            is_empty = path.is_file() and not path.stat().st_size  # some disks give a folder the size 0
        found = types.UNKNOWN if is_empty else file_type(path)
        return Facts(found.kind, found.mime, found.extension)


def _read_picture(path: Path, facts: Facts) -> Facts:
    # Not `Image.open`, which refuses pictures of 179 megapixels and more: large ones are not decoded whole here.
    Image.preinit()  # the usual formats; all of Pillow's take 0.1 s of CPU, while many first results are stored
    suffix = f".{facts.extension}"
    read, _ = Image.OPEN[Image.EXTENSION.get(suffix) or Image.registered_extensions()[suffix]]
    with path.open("rb") as file, read(file, str(path)) as image:
        width, height = image.size
        is_held_whole = image.info.get("progressive") and width * height > _PROGRESSIVE_DECODE
        if width * height > _FULL_DECODE and (image.format != "JPEG" or is_held_whole):
            # Its checksums only; a search for an orientation would decode all of a PNG.
            image.verify()
            if isinstance(image, TiffImageFile):
                _check_end_of_tiff(image, path.stat().st_size)
            if image.format == "AVIF" and width * height <= _PROGRESSIVE_DECODE:
                # It has no checksums; FFmpeg's decoder takes less memory than Pillow's.
                with av.open(str(path)) as file_of_frames:
                    next(file_of_frames.decode(video=0))
            return replace(facts, width=width, height=height)
        if width * height > _FULL_DECODE:
            # Reads all of the file and decodes it at an eighth of its size.
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        image.load()
        turned = image.getexif().get(_ORIENTATION) in _TURNED
    return replace(facts, width=height if turned else width, height=width if turned else height)


def _check_end_of_tiff(image: TiffImageFile, size: int) -> None:
    """Raises a `ValueError` if a strip or a tile of a TIFF ends after the end of the file."""
    for starts, lengths in ((STRIPOFFSETS, STRIPBYTECOUNTS), (TILEOFFSETS, TILEBYTECOUNTS)):
        pairs = zip(image.tag_v2.get(starts, ()), image.tag_v2.get(lengths, ()))
        if any(start + length > size for start, length in pairs):
            raise ValueError("its end is missing")


def pictures_of(file: InputContainer) -> list[VideoStream]:
    """Returns the video streams of a file, without cover pictures."""
    return [one for one in file.streams.video if not one.disposition & av.stream.Disposition.attached_pic]


def _read_stream(path: Path, facts: Facts) -> Facts:
    with av.open(str(path)) as file:
        pictures, sound = pictures_of(file), bool(file.streams.audio)
        if not pictures and not sound:
            raise MediaError(f"The file {path} has neither a picture nor a sound track. What to do: give another file.")
        found = _BY_TRACKS.get((facts.mime, bool(pictures))) or facts
        known = Facts(found.kind, found.mime, found.extension, seconds=_seconds(file))
        if pictures:
            return _read_video(file, pictures[0], known, sound)
        if next(file.decode(file.streams.audio[0]), None) is None:
            raise ValueError("its sound track has no samples")
        if facts.mime == types.FLAC.mime:
            _check_end_of_flac(file)
        return known


def _check_end_of_flac(file: InputContainer) -> None:
    """Raises a `ValueError` if a FLAC file has fewer samples than its header says."""
    stream = file.streams.audio[0]
    announced = stream.duration or 0  # its time base is a sample
    least = announced - stream.rate * _FLAC_TOLERANCE
    # If the last second is not found, the index of the file may be wrong, so all of it is decoded.
    if announced and all(_end_of_sound(file, stream, start) < least for start in (announced - stream.rate, 0)):
        raise ValueError("its end is missing")


def _end_of_sound(file: InputContainer, stream: AudioStream, start: int) -> int:
    """Decodes a sound from the sample `start` on, and returns the number of the sound's samples up to its end."""
    end = 0
    with suppress(av.FFmpegError):
        file.seek(max(0, start), stream=stream)
        for frame in file.decode(stream):
            end = (frame.pts or 0) + frame.samples
    return end


def _read_video(file: InputContainer, stream: VideoStream, facts: Facts, sound: bool) -> Facts:
    # One thread: each would hold its own frames, which for 4K is much memory.
    stream.codec_context.thread_count = 1
    frame = next(file.decode(stream), None)
    if frame is None:
        raise ValueError("its picture track has no frames")
    turned = frame.rotation % 180 == 90
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    fps = round(float(rate), 3) if rate else None
    return replace(facts, width=width, height=height, fps=fps, has_audio=sound)


def _seconds(file: InputContainer) -> float | None:
    if file.duration is not None:
        return round(file.duration / av.time_base, 3)
    for stream in file.streams:
        if stream.duration is not None and stream.time_base is not None:
            return round(float(stream.duration * stream.time_base), 3)
    return None


def _words(error: Exception) -> str:
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return message or type(error).__name__


def _broken(path: Path, found: FileType, why: str) -> MediaError:
    return MediaError(
        f"The file {path} is a damaged {found.extension} file: {why}. What to do: create or download it again, then "
        "use the new file."
    )


_READERS: dict[Kind, Callable[[Path, Facts], Facts]] = {
    "image": _read_picture,
    "video": _read_stream,
    "audio": _read_stream,
}


_NO_TEXT: Final = (
    set(_READERS)
    | {found.extension for found in vars(types).values() if isinstance(found, FileType) and found.kind in _READERS}
    | {"jpeg", "jpe", "jfif", "tif", "heif", "psd", "psb", "exr", "ico", "jxl"}
    | {"m4v", "mpg", "mpeg", "ts", "m2ts", "wmv"}
    | {"oga", "opus", "aif", "aiff", "wma", "amr"}
    | {"glb", "usdz", "3mf", "blend", "zip", "7z", "rar", "gz", "tar", "pdf", "npy", "npz", "safetensors"}
)
"""Extensions and kinds of files that are never text."""

_OTHER_TEXT: Final = {"fbx", "stl", "obj", "mtl", "ply", "usda", "dae", "srt", "vtt", "ass", "ssa", "lrc"}
"""Extensions of text files that are neither JSON nor a web page."""

_NO_PAGE: Final = _NO_TEXT | _OTHER_TEXT | {"json", "gltf", "svg", "csv", "yaml", "yml"}
_PAGES: Final = {"html", "htm", "xhtml"}


@dataclass(frozen=True, slots=True)
class DownloadDefect:
    """A defect of a downloaded file, as in "a web page", and the hash of the received content.

    If the file is damaged at RunningHub, a second download has the same hash. The hash is empty if the defect arose
    during the download.
    """

    what: str
    sha256: str = ""


def defect_of(path: Path, *, extension: str) -> DownloadDefect | None:
    """Checks a file that has just been downloaded, and returns its defect, if any."""
    if not path.stat().st_size:
        return DownloadDefect("an empty file", "" if extension in _NO_TEXT else _hash(path))
    found = file_type(path)
    if _is_message(path, found, extension):
        # A text, or a file of unknown format, may be a web page after all: then each download gives the same one.
        return DownloadDefect("a web page or a message", "" if extension in _NO_PAGE else _hash(path))
    try:
        probe(path)
    except MediaError:
        return DownloadDefect(f"a broken {found.extension}", _hash(path))
    return None


def _is_message(path: Path, found: FileType, extension: str) -> bool:
    """Returns whether a server has sent a page or a message in place of the file."""
    if found.kind == "text" and (extension in _NO_TEXT or (found is types.JSON and extension in _OTHER_TEXT)):
        return True
    with path.open("rb") as file:
        return extension not in _PAGES and is_web_page(file.read(types.HEAD))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
