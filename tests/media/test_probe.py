"""What a file is, by its content, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from rh_prefect.errors import MediaError
from rh_prefect.media.edit.frames_and_thumbnails import thumbnail
from rh_prefect.media.probe import DownloadDefect, Facts, defect_of, facts_or_type, file_type, probe
from tests.support.samples import clip_samples
from tests.support.samples import media as samples


def expected(kind: Any, mime: str, extension: str, seconds: float | None = None, **facts: Any) -> Facts:
    picture: dict[str, Any] = {"width": 64, "height": 48} if kind in ("image", "video") else {}
    moving: dict[str, Any] = {"fps": 12.0, "has_audio": True} if kind == "video" else {}
    return Facts(kind, mime, extension, seconds=seconds, **picture | moving | facts)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


SAMPLES: dict[str, tuple[Callable[[Path], Path], Facts]] = {
    "png": (samples.png, expected("image", "image/png", "png")),
    "jpg": (samples.jpg, expected("image", "image/jpeg", "jpg")),
    "turned": (lambda p: samples.jpg(p, orientation=6), expected("image", "image/jpeg", "jpg", width=48, height=64)),
    "webp": (samples.webp, expected("image", "image/webp", "webp")),
    "gif": (samples.gif, expected("image", "image/gif", "gif")),
    "mp4": (samples.mp4, expected("video", "video/mp4", "mp4", 1.0)),
    "mov": (lambda p: samples.video(p, container="mov"), expected("video", "video/quicktime", "mov", 1.0)),
    "webm": (lambda p: samples.video(p, container="webm"), expected("video", "video/webm", "webm", 1.008)),
    "mkv": (lambda p: samples.video(p, container="matroska"), expected("video", "video/x-matroska", "mkv", 1.023)),
    "avi": (lambda p: samples.video(p, container="avi"), expected("video", "video/x-msvideo", "avi", 1.083)),
    "silent": (
        lambda p: samples.mp4(p, audio=False, seconds=2),
        expected("video", "video/mp4", "mp4", 2.0, has_audio=False),
    ),
    "turned film": (
        lambda p: clip_samples.turned(samples.mp4(p)),
        expected("video", "video/mp4", "mp4", 1.0, width=48, height=64),
    ),
    "sound in an mp4": (
        lambda p: written(p, samples.sound("mp4", "aac")),
        expected("audio", "audio/mp4", "m4a", 1.0),
    ),
    "sound in a webm": (
        lambda p: written(p, samples.sound("webm", "libopus")),
        expected("audio", "audio/webm", "webm", 1.0),
    ),
    "wav": (samples.wav, expected("audio", "audio/wav", "wav", 1.0)),
    "mp3": (lambda p: samples.mp3(p, seconds=2), expected("audio", "audio/mpeg", "mp3", 2.0)),
    "flac": (samples.flac, expected("audio", "audio/flac", "flac", 1.0)),
    "ogg": (samples.ogg, expected("audio", "audio/ogg", "ogg", 1.006)),
    "m4a": (samples.m4a, expected("audio", "audio/mp4", "m4a", 1.0)),
    "flv": (
        lambda p: samples.video(p, container="flv", size=(320, 240)),
        expected("video", "video/x-flv", "flv", 1.167, width=320, height=240),
    ),
    "glb": (samples.glb, expected("3d", "model/gltf-binary", "glb")),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_tells_what_it_is_whatever_its_name(name: str, tmp_path: Path) -> None:
    make, facts = SAMPLES[name]
    found = probe(make(tmp_path / "file.bin"))
    assert found.seconds == pytest.approx(facts.seconds, abs=0.05)  # encoders add one further frame
    assert replace(found, seconds=facts.seconds) == facts
    for extension in (facts.extension, "jpg"):  # a link may be wrong about the form
        assert defect_of(tmp_path / "file.bin", extension=extension) is None


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_that_was_cut_is_refused(name: str, part: float, tmp_path: Path) -> None:
    whole = SAMPLES[name][0](tmp_path / "whole").read_bytes()
    cut = written(tmp_path / "cut.bin", whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=r"cut\.bin is a damaged .*What to do: create or download it again"):
        probe(cut)
    defect = DownloadDefect(f"a broken {file_type(cut).extension}", hashlib.sha256(cut.read_bytes()).hexdigest())
    assert defect_of(cut, extension=name) == defect


def test_a_flv_that_was_cut_between_two_of_its_tags_is_refused(tmp_path: Path) -> None:
    whole = SAMPLES["flv"][0](tmp_path / "whole").read_bytes()
    ends, at = [], 13
    while at < len(whole):
        at += 11 + int.from_bytes(whole[at + 1 : at + 4]) + 4
        ends.append(at)
    assert ends.pop() == len(whole)
    for end in ends:
        with pytest.raises(MediaError, match="its end is missing"):
            probe(written(tmp_path / "cut.bin", whole[:end]))


def without_xing(song: bytes) -> bytes:
    return song.replace(b"Xing", b"    ").replace(b"Info", b"    ")


def with_field(song: bytes, at: int, value: int) -> bytes:
    """A number of a Xing header: of frames at 8, of bytes at 12."""
    start = max(song.find(b"Xing"), song.find(b"Info")) - 8 + at
    return song[: start + 8] + value.to_bytes(4, "big") + song[start + 12 :]


def with_samples(song: bytes, samples: int) -> bytes:
    """A FLAC that announces another number of samples."""
    return song[:22] + samples.to_bytes(4, "big") + song[26:]


def streamed(length: int) -> bytes:
    """A WAV from a writer that could not go back to fill in the lengths."""
    whole = samples.sound("wav", "pcm_s16le")
    data = whole.index(b"data") + 4
    unknown = length.to_bytes(4, "little")
    return whole[:4] + unknown + whole[8:data] + unknown + whole[data + 4 :]


STREAMED = (0, 0x7FFFF024, 0x7FFFFFFF, 0xFFFFFFFF)
TAG = b"TAG" + b"a title".ljust(125, b"\0")
WHOLE: dict[str, Callable[[], bytes]] = {
    "mp3 without a length": lambda: without_xing(samples.sound("mp3", "mp3", 2)),
    "mp3 that ends within a frame": lambda: without_xing(samples.sound("mp3", "mp3", 2))[:-90],
    "mp3 of MPEG 2": lambda: samples.sound("mp3", "mp3", 2, rate=22050),
    "mp3 of MPEG 2 in stereo": lambda: samples.sound("mp3", "mp3", 2, rate=22050, layout="stereo"),
    "mp3 in stereo": lambda: samples.sound("mp3", "mp3", 2, layout="stereo"),
    "mp3 with tags": lambda: b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + samples.sound("mp3", "mp3", 2) + TAG,
    "mp3 with a wrong number of bytes": lambda: with_field(samples.sound("mp3", "mp3", 2), 12, 10**6),
    "mp3 with a wrong number of frames": lambda: with_field(samples.sound("mp3", "mp3", 2), 8, 10**6),
    "two mp3 in one": lambda: samples.sound("mp3", "mp3", 2) * 2,
    "flac without a length": lambda: with_samples(samples.sound("flac", "flac"), 0),
    "flac that is longer": lambda: with_samples(samples.sound("flac", "flac"), 20_000),
    "flac with a tag": lambda: samples.sound("flac", "flac") + TAG,
    "ogg without a last page": lambda: samples.sound("ogg", "libopus").replace(b"OggS\0\4", b"OggS\0\0"),
    "ogg with a tag": lambda: samples.sound("ogg", "libopus") + TAG,
    "two ogg in one": lambda: samples.sound("ogg", "libopus") * 2,
    "flv with a wrong length": lambda: samples.film("flv").replace(b"duration\0?", b"duration\0@"),
    "flv without its last length": lambda: samples.film("flv")[:-4],
    "flv with a tag": lambda: samples.film("flv") + TAG,
    **{f"wav of a stream of {length:x}": partial(streamed, length) for length in STREAMED},
    "mp4 with a label": lambda: samples.film("mp4") + b"AIGC{label:1}",
    "mov with a label": lambda: samples.film("mov") + b"AIGC{label:1}",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_never_called_damaged(name: str, tmp_path: Path) -> None:
    assert probe(written(tmp_path / "file", WHOLE[name]())).extension in name


@pytest.mark.parametrize(
    "name", ["mp3 of MPEG 2", "mp3 of MPEG 2 in stereo", "mp3 in stereo", "mp3 with tags", "two ogg in one"]
)
@pytest.mark.parametrize("part", [0.6, 0.99])
def test_a_sound_that_was_cut_is_refused(name: str, part: float, tmp_path: Path) -> None:
    whole = WHOLE[name]().removesuffix(TAG)
    with pytest.raises(MediaError, match="its end is missing"):
        probe(written(tmp_path / "cut", whole[: int(len(whole) * part)]))


@pytest.mark.parametrize("name", ["mp4", "webm", "mkv", "png", "jpg", "gif", "webp", "flac", "wav"])
def test_a_file_of_noise_is_refused(name: str, tmp_path: Path) -> None:
    whole = bytearray(SAMPLES[name][0](tmp_path / "whole").read_bytes())
    start = 40 if name != "mp4" else 32
    whole[start:] = bytes(i * 97 % 251 for i in range(len(whole) - start))
    with pytest.raises(MediaError, match="noise is a damaged"):
        probe(written(tmp_path / "noise", bytes(whole)))


@pytest.mark.parametrize(
    ("data", "mime", "extension"),
    [
        (b"hello\n", "text/plain", "txt"),
        ("镜头 été ".encode() * 1000, "text/plain", "txt"),
        (json.dumps({"a": [1]}).encode(), "application/json", "json"),
        (json.dumps([{"a": "x" * 9000}]).encode(), "application/json", "json"),
        (b"{no json at all", "text/plain", "txt"),
        (b'{"asset": {"version": "2.0"}}', "model/gltf+json", "gltf"),
        (b"# a cube\nv 0.0 1.0 -1.5\nv 1 1 1\nf 1 2 3\n", "model/obj", "obj"),
        (b"ply\nformat ascii 1.0\n", "model/ply", "ply"),
        (b"solid x\n facet normal 0 0 1\n", "model/stl", "stl"),
        (bytes(80) + struct.pack("<I", 2) + bytes(100), "model/stl", "stl"),
        (b"Kaydara FBX Binary  \x00\x1a\x00", "application/octet-stream", "fbx"),
        (b"\x00\x01\x02\x03\xff" * 100, "application/octet-stream", "bin"),
        (b"\xe9t\xe9 in latin-1", "application/octet-stream", "bin"),
        (b"BM is only text", "text/plain", "txt"),
    ],
)
def test_tells_what_has_no_picture_and_no_sound(data: bytes, mime: str, extension: str, tmp_path: Path) -> None:
    facts = probe(written(tmp_path / "file.mp4", data))
    assert (facts.mime, facts.extension, facts.width, facts.seconds) == (mime, extension, None, None)


def test_a_zip_is_other_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")
    assert probe(path) == Facts("other", "application/zip", "zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MediaError, match="damaged zip"):
        probe(path)


def test_missing_folder_and_empty_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for name, why in (("no.png", "the file does not exist"), ("", "folder"), ("empty.png", "is empty")):
        with pytest.raises(MediaError, match=why):
            probe(tmp_path / name)
    with pytest.raises(MediaError, match="folder"):
        facts_or_type(Path("/proc"))  # its size is 0


def test_a_track_without_content_is_said(tmp_path: Path) -> None:
    header = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 48000, 96000, 2, 16) + b"data" + bytes(4)
    with pytest.raises(MediaError, match=r"empty\.wav is a damaged wav file: .*has no samples\. What to do: create"):
        probe(written(tmp_path / "empty.wav", header))


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    frame = b"\0image/jpeg\0\x03\0" + samples.picture("JPEG")
    tag = b"APIC" + struct.pack(">I", len(frame)) + b"\0\0" + frame
    length = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    song = written(tmp_path / "song.mp3", b"ID3\x03\0\0" + length + tag + samples.sound("mp3", "mp3"))
    with av.open(str(song)) as file:
        assert file.streams.video
    facts = probe(song)
    assert (facts.kind, facts.width, facts.has_audio) == ("audio", None, None)


def test_a_long_video_is_looked_at_in_little_memory(tmp_path: Path) -> None:
    """A video with a box of 300 MB of nothing (sparse on the disk): none of it is read."""
    path = samples.mp4(tmp_path / "long.mp4")
    extra = 300 * 2**20
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", extra, b"free"))
        file.truncate(path.stat().st_size + extra)
    tracemalloc.start()
    try:
        assert probe(path).width == 64
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.long
def test_a_picture_of_200_megapixels_is_whole(tmp_path: Path, form: str) -> None:
    """Upscalers make such pictures; Pillow refuses to open them, which is no sign of damage."""
    path = tmp_path / form.lower()
    Image.new("L", (20_000, 10_000)).save(path, form)
    assert (probe(path).width, probe(path).height) == (20_000, 10_000)
    assert defect_of(path, extension=form.lower()) is None
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    assert defect_of(path, extension=form.lower()) is not None


@pytest.mark.parametrize(("form", "mode"), [("BMP", "1"), ("BMP", "RGB"), ("TIFF", "1")])
def test_a_large_picture_without_checksums_that_was_cut_is_refused(tmp_path: Path, form: str, mode: str) -> None:
    path = tmp_path / form.lower()
    Image.new(mode, (5_001, 4_000)).save(path, form)
    assert probe(path).width == 5_001
    cut = written(tmp_path / "cut", path.read_bytes()[:-9])
    with pytest.raises(MediaError, match="its end is missing"):
        probe(cut)


@pytest.mark.parametrize("side", [100, 4_001])
def test_an_avif_with_damaged_content_is_refused(tmp_path: Path, side: int) -> None:
    """Pillow raises a `RuntimeError` for it, and finds nothing in a large one without decoding it."""
    path = tmp_path / "noise.avif"
    Image.linear_gradient("L").resize((side, side)).save(path, "AVIF", speed=10)
    assert defect_of(path, extension="avif") is None
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start:] = b"\xff" * (len(content) - start)
    path.write_bytes(content)
    assert defect_of(path, extension="avif") is not None
    with pytest.raises(MediaError, match=r"noise\.avif cannot be used: Failed to decode"):
        thumbnail(path)


def moving_gif(path: Path) -> Path:
    frames = [Image.effect_noise((64, 48), 40 + 9 * number).convert("P") for number in range(4)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], comment=b"x" * 300)
    return path


@pytest.mark.parametrize("part", [0.3, 0.5, 0.999])
def test_a_moving_gif_that_was_cut_is_refused(tmp_path: Path, part: float) -> None:
    whole = moving_gif(tmp_path / "whole.gif").read_bytes()
    assert probe(written(tmp_path / "tagged.gif", whole + TAG)).width == 64
    with pytest.raises(MediaError, match="its end is missing"):
        probe(written(tmp_path / "cut.gif", whole[: int(len(whole) * part)]))


def tiff_of_floats() -> bytes:
    """A picture in colour of 32-bit floats, as workflows save high dynamic range; Pillow cannot decode it."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 146)]
    tags += [(277, 3, 1, 3), (278, 4, 1, 8), (279, 4, 1, 768), (339, 3, 3, 140)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return head + struct.pack("<I3H3H", 0, 32, 32, 32, 3, 3, 3) + bytes(768)


def test_a_picture_in_a_form_that_cannot_be_decoded_is_not_damaged(tmp_path: Path) -> None:
    hdr = written(tmp_path / "hdr.tiff", tiff_of_floats())
    assert probe(hdr) == Facts("image", "image/tiff", "tiff")
    assert defect_of(hdr, extension="tiff") is None


PAGE = b"<!doctype html><html><body>Please try again later.</body></html>"


@pytest.mark.parametrize(
    ("data", "extensions"),
    [
        (PAGE, "html htm"),
        (b"[" * 1000 + b"]" * 1000, "json txt bin"),
        (b"A text about <html> and <body>.", "txt"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "svg"),
        (b'{"html": "<html></html>"}', "json"),
        (b"v 0 0 0\nv 1 0 0\n", "obj"),
        (b"; FBX 7.4.0 project file\n", "fbx"),
        (b"solid x\nendsolid x\n", "stl"),
        (b"1\n00:00:00,000 --> 00:00:01,000\n<i>hi</i>\n\n", "srt"),
        (b"\0\1" * 300, "bin"),
    ],
)
def test_a_text_is_fine_where_a_text_may_come(tmp_path: Path, data: bytes, extensions: str) -> None:
    for extension in extensions.split():
        assert defect_of(written(tmp_path / "a.part", data), extension=extension) is None


PAGES = [
    PAGE,
    b"\xef\xbb\xbf\n<!-- a login -->\n<HTML lang='en'><body></body></HTML>",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN"><html></html>',
    "<html><body>\u8bf7\u767b\u5f55</body></html>".encode("gb18030"),
    b"<!doctype html><pre>v 1 2 3\nv 1 2 3\n</pre>",
    b"<head><title>502</title></head>",
]
MESSAGE = b'{"code": 1003}'


@pytest.mark.parametrize(
    ("extensions", "contents"),
    [
        ("fbx stl obj psd srt json svg png", PAGES),
        ("fbx stl obj ply srt vtt", [MESSAGE]),
        ("png jpeg mp4 mp3 glb zip psd exr opus m4v pdf usdz", [PAGE, MESSAGE, b"busy"]),
    ],
)
def test_a_page_or_a_message_is_never_taken_for_a_file(tmp_path: Path, extensions: str, contents: list[bytes]) -> None:
    # Without a hash: however often it comes, it is not what was paid for.
    for extension in extensions.split():
        for data in contents:
            found = defect_of(written(tmp_path / "a.part", data), extension=extension)
            assert found == DownloadDefect("a web page or a message"), (extension, data)


@pytest.mark.parametrize("extension", ["", "bin", "txt", "md", "xyz"])
def test_a_page_where_the_format_is_open_is_known_again(tmp_path: Path, extension: str) -> None:
    # Should it be what the task has made, each download gives the same page.
    defect = defect_of(written(tmp_path / "a.part", PAGE), extension=extension)
    assert defect == DownloadDefect("a web page or a message", hashlib.sha256(PAGE).hexdigest())


def test_an_empty_file_is_one_only_where_it_may_be_empty(tmp_path: Path) -> None:
    empty = written(tmp_path / "a.part", b"")
    assert defect_of(empty, extension="png") == DownloadDefect("an empty file")
    assert defect_of(empty, extension="txt") == DownloadDefect("an empty file", hashlib.sha256(b"").hexdigest())
