"""Equal requests give different results, as real models do, unless a seed or the test says otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from rh_prefect import catalog
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json, node


def made(rh: Caller, name: str, asked: Mapping[str, object]) -> bytes:
    """What a request gives: the content of its first result."""
    model = catalog.get(name)
    body = catalog.validate(model, {**catalog.example(model), **asked})
    (first, *_) = rh.query(rh.submit(model.endpoint, dict(body))["taskId"])["results"]
    return first["text"].encode() if first["text"] else rh.http.get(first["url"]).content


KINDS = ("picture", "edited", "motion", "larger", "speech", "music", "solid", "text", "texts")


def requests(rh: Caller, folder: Path) -> dict[str, tuple[str, dict[str, object]]]:
    """One request for each kind of result, and for each way to make one."""
    photo = rh.link(samples.png(folder / "photo.png"))
    clip = rh.link(samples.mp4(folder / "clip.mp4"))
    return {
        "picture": ("z-image/turbo", {"prompt": "a hill"}),
        "edited": ("qwen-image/edit-2511", {"prompt": "snow", "image_url": photo}),
        "motion": ("kling-v2.6-pro-image-to-video", {"image_url": photo, "prompt": "waves"}),
        "larger": ("rh-video-upscaler", {"video_url": clip, "target_resolution": "1080p"}),
        "speech": ("minimax/speech-2.6-hd", {"text": "A light."}),
        "music": ("suno-single-v5.5", {"description": "calm, 2 seconds"}),
        "solid": ("meshy6/text-to-3d", {"prompt": "a boat"}),
        "text": ("rhart-text-g-3-flash-preview/text-to-text", {"prompt": "Name a colour"}),
        "texts": ("rhart-text-g-3-flash-preview/text-to-text", {"prompt": "Write 3 shots as JSON"}),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_equal_requests_give_equal_results_only_of_a_deterministic_emulator(
    emulate: Emulate, tmp_path: Path, kind: str
) -> None:
    for deterministic, results in ((False, 3), (True, 1)):
        rh = emulate(deterministic=deterministic)
        asked = requests(rh, tmp_path)[kind]
        assert len({made(rh, *asked) for _ in range(3)}) == results


def test_the_same_random_seed_gives_the_same_results_again(emulate: Emulate) -> None:
    first = emulate()
    again = emulate(random_seed=first.rh.random_seed)
    asked = {"prompt": "a hill"}
    there, here = ([made(rh, "z-image/turbo", asked) for _ in range(3)] for rh in (first, again))
    assert there == here
    assert str(first.rh.random_seed) in repr(first.rh)
    assert first.http.get("/_emulator").json()["random_seed"] == first.rh.random_seed
    assert made(emulate(), "z-image/turbo", asked) not in there


def test_a_workflow_draws_its_seeds_and_keeps_those_that_are_set(emulate: Emulate) -> None:
    rh = emulate()

    def run(*nodes: Json) -> bytes:
        task_id = rh.started(nodeInfoList=list(nodes))
        rh.query(task_id)
        return rh.http.get(rh.outputs(task_id)["data"][0]["fileUrl"]).content

    assert run() != run()
    assert run(node("3", "seed", 7)) == run(node("3", "seed", 7))


def test_the_books_say_which_files_a_request_brought(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate()
    photo = samples.png(tmp_path / "photo.png")
    model = catalog.get("z-image-turbo/image-to-image")
    first = rh.result()
    for link in (rh.link(photo), first):
        rh.submit(model.endpoint, dict(catalog.validate(model, {"prompt": "snow", "image_url": link})))
    contents = [photo.read_bytes(), rh.http.get(first).content]
    brought = [entry.inputs["imageUrl"] for entry in rh.rh.recorder.paid[1:]]
    assert brought == [(hashlib.sha256(content).hexdigest(),) for content in contents]
