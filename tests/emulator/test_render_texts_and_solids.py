"""Text models answer with the prompt, facts or ids; 3D models give a valid GLB."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.emulator.render import Renderer
from rh_prefect.emulator.render.glb_cube import cube
from rh_prefect.emulator.render.texts import subject_of, write
from tests.support.samples import media as samples

Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    renderer = Renderer(tmp_path / "renders")

    def make(name: str, payload: Mapping[str, object], **inputs: Path) -> str:
        files = {key: [path] for key, path in inputs.items()}
        (output,) = renderer.render(catalog.get(name), payload, files, seed_text="seed")
        assert output.path is None
        assert output.text is not None
        return output.text

    return make


@pytest.mark.parametrize(("words", "count"), [("three shots", 3), ("5 short scenes", 5), ("two ideas", 2)])
def test_as_many_lines_as_are_asked_for(words: str, count: int) -> None:
    lines = write(f"Write {words} about a fox in the snow.").splitlines()
    assert len(lines) == count
    assert len(set(lines)) == count
    assert all("a fox in the snow" in line for line in lines)


def test_json_where_it_is_asked_for() -> None:
    shots = json.loads(write('Answer with a JSON list of 4 shots for: "the last lighthouse"'))
    assert len(shots) == 4
    assert all("the last lighthouse" in shot for shot in shots)


@pytest.mark.parametrize(
    "asked",
    [
        "Six shots about a fox as a JSON list of objects with picture and line",
        "Write 6 shots. Answer with a JSON list only. Each shot has picture and line.",
        "6 shots of a fox, a JSON list of objects that have picture, line",
        """6 shots of a fox. Answer with a JSON list, each item an object with "picture" and "line".""",
        "6 shots of a fox as a JSON list of objects with the keys `picture`, `line`",
    ],
)
def test_the_items_of_a_list_have_the_fields_that_are_asked_for(asked: str) -> None:
    shots = json.loads(write(asked))
    assert [list(shot) for shot in shots] == [["picture", "line"]] * 6
    assert all(len(shot["line"]) < 40 for shot in shots)  # a line is spoken before its shot ends


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Write three shots about a fox.", "a fox"),
        ("Expand this idea: a train at dawn", "a train at dawn"),
        ("Write 3 shots of a film about: a train at dawn\nAnswer with a JSON list only.", "a train at dawn"),
        ("Describe “the old mill” in one line", "the old mill"),
        ("海边的灯塔", "海边的灯塔"),
    ],
)
def test_subject(prompt: str, subject: str) -> None:
    assert subject_of(prompt) == subject


def test_a_picture_is_described_by_its_facts(ask: Ask, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(96, 54))
    text = ask("rhart-text-g-25-pro/image-to-text", {"prompt": "What is it?"}, imageUrl=photo)
    assert "96 x 54" in text
    assert "What is it?" in text


def test_lyrics_have_sections_and_the_theme(ask: Ask) -> None:
    text = ask("suno-lyrics", {"prompt": "a train in the mountains"})
    assert "[Chorus]" in text
    assert "a train in the mountains" in text


def test_identify_face_gives_the_ids_that_lip_sync_takes(ask: Ask, tmp_path: Path) -> None:
    clip = samples.mp4(tmp_path / "clip.mp4", seconds=2)
    answer = json.loads(ask("kling-lip-sync/identify-face", {}, videoUrl=clip))
    assert answer.keys() >= {"sessionId", "faceId"}
    assert answer["endTime"] == pytest.approx(2000, abs=100)


def chunks(data: bytes) -> dict[bytes, bytes]:
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    found, at = {}, 12
    while at < length:
        size, kind = struct.unpack_from("<I4s", data, at)
        assert size % 4 == 0
        found[kind] = data[at + 8 : at + 8 + size]
        at += 8 + size
    assert at == length
    return found


def test_a_glb_is_well_formed() -> None:
    found = chunks(cube(hue=0.3))
    assert list(found) == [b"JSON", b"BIN\0"]
    document = json.loads(found[b"JSON"])
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"][0]["byteLength"] <= len(found[b"BIN\0"])
    for view, accessor in zip(document["bufferViews"], document["accessors"], strict=True):
        bytes_each = {"VEC3": 12, "SCALAR": 2}[accessor["type"]]
        assert view["byteLength"] == accessor["count"] * bytes_each
        assert view["byteOffset"] % 4 == 0


def test_a_3d_model_gives_it(tmp_path: Path) -> None:
    (output,) = Renderer(tmp_path).render(catalog.get("meshy6/text-to-3d"), {"prompt": "x"}, {}, seed_text="x")
    assert output.extension == "glb"
    assert output.path is not None
    chunks(output.path.read_bytes())
