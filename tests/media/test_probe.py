"""What a file is, by its content, and whether it is whole."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from rh_prefect.errors import MediaError
from rh_prefect.media.probe import Facts, defect_of, probe
from tests.support.samples import media as samples

SIZE: dict[str, Any] = {"width": 64, "height": 48}
VIDEO: dict[str, Any] = {**SIZE, "fps": 12.0, "has_audio": True}

SAMPLES: dict[str, tuple[Callable[[Path], Path], Facts]] = {
    "png": (lambda p: samples.png(p), Facts("image", "image/png", "png", **SIZE)),
    "jpg": (lambda p: samples.jpg(p), Facts("image", "image/jpeg", "jpg", **SIZE)),
    "turned": (lambda p: samples.jpg(p, orientation=6), Facts("image", "image/jpeg", "jpg", width=48, height=64)),
    "webp": (lambda p: samples.webp(p), Facts("image", "image/webp", "webp", **SIZE)),
    "gif": (lambda p: samples.gif(p), Facts("image", "image/gif", "gif", **SIZE)),
    "mp4": (lambda p: samples.mp4(p), Facts("video", "video/mp4", "mp4", seconds=1.0, **VIDEO)),
    "mov": (
        lambda p: samples.video(p, container="mov"),
        Facts("video", "video/quicktime", "mov", seconds=1.0, **VIDEO),
    ),
    "webm": (
        lambda p: samples.video(p, container="webm"),
        Facts("video", "video/webm", "webm", seconds=1.008, **VIDEO),
    ),
    "mkv": (
        lambda p: samples.video(p, container="matroska"),
        Facts("video", "video/x-matroska", "mkv", seconds=1.023, **VIDEO),
    ),
    "avi": (
        lambda p: samples.video(p, container="avi"),
        Facts("video", "video/x-msvideo", "avi", seconds=1.083, **VIDEO),
    ),
    "silent": (
        lambda p: samples.mp4(p, audio=False, seconds=2),
        Facts("video", "video/mp4", "mp4", seconds=2.0, **VIDEO | {"has_audio": False}),
    ),
    "wav": (lambda p: samples.wav(p), Facts("audio", "audio/wav", "wav", seconds=1.0)),
    "mp3": (lambda p: samples.mp3(p, seconds=2), Facts("audio", "audio/mpeg", "mp3", seconds=2.0)),
    "flac": (lambda p: samples.flac(p), Facts("audio", "audio/flac", "flac", seconds=1.0)),
    "ogg": (lambda p: samples.ogg(p), Facts("audio", "audio/ogg", "ogg", seconds=1.006)),
    "m4a": (lambda p: samples.m4a(p), Facts("audio", "audio/mp4", "m4a", seconds=1.0)),
    "flv": (
        lambda p: samples.video(p, container="flv", size=(320, 240)),
        Facts("video", "video/x-flv", "flv", seconds=1.167, **VIDEO | {"width": 320, "height": 240}),
    ),
    "glb": (lambda p: samples.glb(p), Facts("3d", "model/gltf-binary", "glb")),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_tells_what_it_is_whatever_its_name(name: str, tmp_path: Path) -> None:
    make, expected = SAMPLES[name]
    facts = probe(make(tmp_path / "file.bin"))
    assert (facts.seconds is None) == (expected.seconds is None)
    if facts.seconds is not None:
        # Encoders add one further frame.
        assert facts.seconds == pytest.approx(expected.seconds, abs=0.05)
    assert {**_dict(facts), "seconds": 0} == {**_dict(expected), "seconds": 0}


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_that_was_cut_is_refused(name: str, part: float, tmp_path: Path) -> None:
    whole = SAMPLES[name][0](tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut.bin"
    cut.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=r"cut\.bin is a damaged .*What to do: create or download it again"):
        probe(cut)


def test_a_flv_that_was_cut_between_two_of_its_tags_is_refused(tmp_path: Path) -> None:
    whole = SAMPLES["flv"][0](tmp_path / "whole").read_bytes()
    ends, at = [], 13
    while at < len(whole):
        at += 11 + int.from_bytes(whole[at + 1 : at + 4]) + 4
        ends.append(at)
    assert ends.pop() == len(whole)
    for end in ends:
        cut = tmp_path / "cut.bin"
        cut.write_bytes(whole[:end])
        with pytest.raises(MediaError, match="its end is missing"):
            probe(cut)


def without_xing(song: bytes) -> bytes:
    return song.replace(b"Xing", b"    ").replace(b"Info", b"    ")


def with_field(song: bytes, at: int, value: int) -> bytes:
    """A number of a Xing header: of frames at 8, of bytes at 12."""
    start = max(song.find(b"Xing"), song.find(b"Info")) - 8 + at
    return song[: start + 8] + value.to_bytes(4, "big") + song[start + 12 :]


def with_samples(song: bytes, samples: int) -> bytes:
    """A FLAC that announces another number of samples."""
    return song[:22] + samples.to_bytes(4, "big") + song[26:]


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
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_never_called_damaged(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(WHOLE[name]())
    assert probe(tmp_path / "file").extension in name


@pytest.mark.parametrize(
    "song",
    [
        lambda: samples.sound("mp3", "mp3", 2, rate=22050),
        lambda: samples.sound("mp3", "mp3", 2, rate=22050, layout="stereo"),
        lambda: samples.sound("mp3", "mp3", 2, layout="stereo"),
        lambda: b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + samples.sound("mp3", "mp3", 2),
        lambda: samples.sound("ogg", "libopus") * 2,
    ],
    ids=["mp3 of MPEG 2", "mp3 of MPEG 2 in stereo", "mp3 in stereo", "mp3 with a tag", "two ogg in one"],
)
@pytest.mark.parametrize("part", [0.6, 0.99])
def test_a_sound_that_was_cut_is_refused(song: Callable[[], bytes], part: float, tmp_path: Path) -> None:
    whole = song()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match="its end is missing"):
        probe(tmp_path / "cut")


@pytest.mark.parametrize("name", ["mp4", "webm", "mkv", "png", "jpg", "gif", "webp", "flac", "wav"])
def test_a_file_of_noise_is_refused(name: str, tmp_path: Path) -> None:
    whole = bytearray(SAMPLES[name][0](tmp_path / "whole").read_bytes())
    start = 40 if name != "mp4" else 32
    whole[start:] = bytes(i * 97 % 251 for i in range(len(whole) - start))
    (tmp_path / "noise").write_bytes(whole)
    with pytest.raises(MediaError, match="noise is a damaged"):
        probe(tmp_path / "noise")


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
    (tmp_path / "file.mp4").write_bytes(data)
    facts = probe(tmp_path / "file.mp4")
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
    for path, why in (
        (tmp_path / "no.png", "the file does not exist"),
        (tmp_path, "folder"),
        (tmp_path / "empty.png", "is empty"),
    ):
        with pytest.raises(MediaError, match=why):
            probe(path)


def test_a_track_without_content_is_said(tmp_path: Path) -> None:
    header = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 48000, 96000, 2, 16) + b"data" + bytes(4)
    (tmp_path / "empty.wav").write_bytes(header)
    with pytest.raises(MediaError, match=r"empty\.wav is a damaged wav file: .*has no samples\. What to do: create"):
        probe(tmp_path / "empty.wav")


def test_a_video_that_is_shown_turned(tmp_path: Path) -> None:
    upright = samples.mp4(tmp_path / "a.mp4", audio=False).read_bytes()
    # The matrix of the track header: a quarter turn.
    at = upright.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(upright[:at] + matrix + upright[at + 36 :])
    facts = probe(tmp_path / "b.mp4")
    assert (facts.width, facts.height) == (48, 64)


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    cover = samples.picture("JPEG")
    frame = b"\0image/jpeg\0\x03\0" + cover
    tag = b"APIC" + struct.pack(">I", len(frame)) + b"\0\0" + frame
    length = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    song = samples.sound("mp3", "mp3")
    (tmp_path / "song.mp3").write_bytes(b"ID3\x03\0\0" + length + tag + song)
    with av.open(str(tmp_path / "song.mp3")) as file:
        assert file.streams.video
    facts = probe(tmp_path / "song.mp3")
    assert (facts.kind, facts.width, facts.has_audio) == ("audio", None, None)


def test_sound_in_a_films_container_is_sound(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(samples.sound("mp4", "aac"))
    assert (probe(tmp_path / "a.mp4").kind, probe(tmp_path / "a.mp4").extension) == ("audio", "m4a")
    (tmp_path / "a.webm").write_bytes(samples.sound("webm", "libopus"))
    assert probe(tmp_path / "a.webm").mime == "audio/webm"


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_huge_picture_is_checked_in_little_memory(form: str, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    Image.new("RGB", (8000, 6000), "teal").save(path, form, compress_level=1)
    facts = probe(path)
    assert (facts.width, facts.height) == (8000, 6000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MediaError, match="damaged"):
        probe(path)


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


def _dict(facts: Facts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in Facts.__slots__}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_picture_of_200_megapixels_is_whole(tmp_path: Path, form: str) -> None:
    """Upscalers make such pictures; Pillow refuses to open them, which is no sign of damage."""
    path = tmp_path / form.lower()
    Image.new("L", (20_000, 10_000)).save(path, form)
    assert (probe(path).width, probe(path).height) == (20_000, 10_000)
    assert defect_of(path, extension=form.lower()) is None
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    assert form == "TIFF" or defect_of(path, extension=form.lower()) is not None


def tiff_of_floats() -> bytes:
    """A picture in colour of 32-bit floats, as workflows save high dynamic range; Pillow cannot decode it."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 146)]
    tags += [(277, 3, 1, 3), (278, 4, 1, 8), (279, 4, 1, 768), (339, 3, 3, 140)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return head + struct.pack("<I3H3H", 0, 32, 32, 32, 3, 3, 3) + bytes(768)


def test_a_picture_in_a_form_that_cannot_be_decoded_is_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "hdr.tiff").write_bytes(tiff_of_floats())
    assert probe(tmp_path / "hdr.tiff") == Facts("image", "image/tiff", "tiff")
    assert defect_of(tmp_path / "hdr.tiff", extension="tiff") is None
