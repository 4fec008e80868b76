"""What RunningHub sends as an id or a file type becomes a part of file names only if it is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rh_prefect import models
from rh_prefect.client import Client, RemoteOutput, is_task_id, read_delivery
from rh_prefect.client.wire.task import read_outputs
from rh_prefect.errors import ResponseLost, SubmissionUnknown
from rh_prefect.tasks import generate
from rh_prefect.works.store_checks_and_download_folder import part_file, remove
from tests.support.servers.scripted_server import Asked, Step, WireServer, reply, task

KEY = "canary0123456789abcdef0123456789"
MODEL = "alibaba/wan-2.6/text-to-video"
BAD = [
    *("../../victim/x", "..", "/etc/passwd", "proxy.../x", "proxy.", "proxy.a/b", "proxy.0." + "a" * 200, "*"),
    *("NaN", "-5", -5, 1.5, 2.0e18, "1e5", "0x10", "12 34", "12\n34", "١٢٣", "9" * 41, "\x1b[2J"),
]
BAD_PROMPTS = ["../../victim/x", "a/b", "-a", "a b", "a.b", "a" * 200, "*", "é"]


@pytest.mark.parametrize("bad", BAD)
async def test_a_task_id_that_is_not_valid_leaves_the_outcome_unknown(bad: object) -> None:
    async with WireServer() as wire, Client(KEY, base_url=wire.url) as client:
        wire.plays(reply(task(bad)), reply(task(bad, errorCode="1007", errorMessage="no")))
        for _ in range(2):
            with pytest.raises(ResponseLost, match=r"invalid task id.*may exist and be paid for") as caught:
                await client.submit(MODEL, {})
            assert "\n" not in caught.value.message
            assert "\x1b" not in caught.value.message
        assert len(wire.asked) == 2


@pytest.mark.parametrize("bad", BAD_PROMPTS)
async def test_a_prompt_id_that_is_not_valid_leaves_the_outcome_unknown(bad: str) -> None:
    async with WireServer() as wire, Client(KEY, base_url=wire.url) as client:
        wire.plays(reply({"prompt_id": bad, "number": 1, "node_errors": {}}))
        with pytest.raises(ResponseLost, match="invalid prompt id"):
            await client.submit("/proxy", {"prompt": {"1": {"class_type": "x", "inputs": {}}}})


def _answers(task_id: str) -> Step:
    """RunningHub with one path for submits; the rest answers that all is well."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        is_submit = asked.path.startswith("/openapi/v2/rhart-image/")
        body = task(task_id) if is_submit else {"code": 0, "msg": "success", "data": {"remainMoney": "5"}}
        return await reply(body)(reader, writer, asked)

    return play


async def test_a_job_whose_task_id_is_a_path_is_unknown_and_touches_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim" / "x-0.png"
    victim.parent.mkdir()
    victim.write_bytes(b"mine")
    async with WireServer(always=_answers("../../victim/x")) as wire:
        folders = {"RH_STORAGE_URL": str(tmp_path / "out"), "RH_STATE_DIR": str(tmp_path / "state")}
        for name, value in {"RH_API_KEY": KEY, "RH_BASE_URL": wire.url, **folders}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SubmissionUnknown):
            await generate.fn(models.ZImageTurbo(prompt="x"), scope="ids")
        submits = [path for path in wire.paths if path.startswith("/openapi/v2/rhart-image/")]
    assert len(submits) == 1
    assert [path.name for path in victim.parent.iterdir()] == ["x-0.png"]
    assert victim.read_bytes() == b"mine"


def test_a_download_in_progress_stays_in_its_folder(tmp_path: Path) -> None:
    folder, victim = tmp_path / "parts", tmp_path / "victim-0.png"
    victim.write_bytes(b"mine")
    with part_file(folder, "../victim-0") as part:
        assert part.parent == folder
        part.write_bytes(b"x")
        remove(part)
    assert victim.read_bytes() == b"mine"
    assert list(folder.iterdir()) == []


def test_a_pattern_in_a_name_removes_nothing_else(tmp_path: Path) -> None:
    with part_file(tmp_path, "a-1") as other, part_file(tmp_path, "[a]-1") as part:
        other.write_bytes(b"other")
        remove(part)
        assert other.exists()


@pytest.mark.parametrize("kind", ["../x", "a/b", "x" * 17, "p\x00g", "é"])
def test_a_file_type_that_is_not_an_extension_is_not_read(kind: str) -> None:
    link = "https://files.example/a.PNG"
    [output] = read_outputs([{"url": link, "outputType": kind}])
    assert output == RemoteOutput(url=link, type="png")


@pytest.mark.parametrize("read", [is_task_id, lambda text: read_delivery(f'{{"taskId": "{text}"}}') is not None])
def test_what_an_id_is(read: Callable[[str], bool]) -> None:
    """RunningHub's ids are up to 40 digits; a webhook is held to the same rule."""
    assert read("2031112223334445057")
    assert read("9" * 40)
    for bad in ("", "0", "000", "9" * 41, "-5", "NaN", "1.5", "1/2", "12a", "proxy.", "proxy.a b"):
        assert not read(bad)
    prompts = ("proxy.8f1c2ab1-0000", "proxy-plus.8f1c2ab1-0000", "proxy-ultra.8f1c2ab1-0000")
    assert [is_task_id(prompt) for prompt in prompts] == [True, True, False]


async def test_a_query_about_another_task_shows_its_id_escaped() -> None:
    async with WireServer() as wire, Client(KEY, base_url=wire.url) as client:
        wire.plays(reply(task("\x1b[2J\n9")))
        with pytest.raises(ResponseLost, match="another task") as caught:
            await client.query("5")
        assert "\x1b" not in caught.value.message
