"""Results: ranges, ETag, expiry, and downloads that go wrong."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator import Fault
from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate
from tests.support.servers.caller import CLIP, Caller


@pytest.fixture
def link(rh: Caller) -> str:
    return rh.result()


def get(link: str, **headers: str) -> httpx.Response:
    return httpx.get(link, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_result_can_be_fetched_without_a_key(link: str) -> None:
    whole = get(link)
    assert whole.status_code == 200
    assert whole.headers["content-type"] == "image/png"
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert httpx.head(link).headers["content-length"] == whole.headers["content-length"]


def test_ranges(link: str) -> None:
    whole = get(link)
    part = get(link, Range="bytes=10-")
    assert (part.status_code, part.content) == (206, whole.content[10:])
    assert part.headers["content-range"] == f"bytes 10-{len(whole.content) - 1}/{len(whole.content)}"
    assert get(link, Range="bytes=10-19").content == whole.content[10:20]
    past = get(link, Range=f"bytes={len(whole.content)}-")
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")


def test_if_range(link: str) -> None:
    whole = get(link)
    assert get(link, Range="bytes=10-", If_Range=whole.headers["etag"]).status_code == 206
    assert get(link, Range="bytes=10-", If_Range='"other"').status_code == 200


def test_a_result_is_gone_after_a_day(rh: Caller, link: str) -> None:
    rh.rh.clock.advance(86_500)
    assert get(link).status_code == 404
    assert get(link.replace(".png", ".jpg")).status_code == 404


def test_the_books_count_what_was_served(rh: Caller, link: str) -> None:
    whole = get(link)
    get(link, Range="bytes=10-19")
    task_id = rh.rh.recorder.paid[0].task_id
    assert [(entry.status, entry.sent) for entry in rh.rh.recorder.downloads] == [(200, len(whole.content)), (206, 10)]
    assert rh.rh.recorder.served(task_id) == len(whole.content) + 10


def received(link: str, **headers: str) -> tuple[int, bytes, type[Exception] | None]:
    """What came through before the connection broke."""
    body = bytearray()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.stream("GET", link, headers=named) as response:
        try:
            for chunk in response.iter_raw():
                body += chunk
        except httpx.TransportError as error:
            return response.status_code, bytes(body), type(error)
    return response.status_code, bytes(body), None


def test_a_cut_download_can_be_resumed(rh: Caller, link: str) -> None:
    whole = get(link)
    rh.rh.faults.add(Fault("download", 1, "cut", at=0.25))
    status, body, error = received(link)
    assert (status, body, error) == (200, whole.content[: len(whole.content) // 4], httpx.RemoteProtocolError)
    rest = get(link, Range=f"bytes={len(body)}-", If_Range=whole.headers["etag"])
    assert body + rest.content == whole.content


def test_a_wrong_length(rh: Caller, link: str) -> None:
    whole = get(link).content
    rh.rh.faults.add(Fault("download", 1, "wrong-length"))
    with httpx.stream("GET", link) as response:
        assert int(response.headers["content-length"]) > len(whole)
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()


def test_a_changed_file_gives_no_range(rh: Caller, link: str) -> None:
    etag = get(link).headers["etag"]
    rh.rh.faults.add(Fault("download", 1, "changed"))
    answer = get(link, Range="bytes=10-", If_Range=etag)
    assert answer.status_code == 200
    assert answer.headers["etag"] != etag


def test_an_expired_link(rh: Caller, link: str) -> None:
    rh.rh.faults.add(Fault("download", kind="expired"))
    assert [get(link).status_code for _ in range(2)] == [404, 404]
    rh.rh.faults.clear()
    assert get(link).status_code == 200


def test_answers_that_are_no_file(rh: Caller, link: str) -> None:
    rh.rh.faults.add(
        Fault("download", 1, "html"),
        Fault("download", 2, "503"),
        Fault("download", 3, "429"),
        Fault("download", 4, "empty"),
    )
    answers = [get(link) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 503, 429, 200]
    assert "<html>" in answers[0].text
    assert answers[3].content == b""


def test_a_stalled_download(rh: Caller, link: str) -> None:
    whole = get(link).content
    rh.rh.faults.add(Fault("download", 1, "stall", seconds=0.2))
    assert received(link) == (200, whole[: len(whole) // 2], httpx.RemoteProtocolError)
    rh.rh.faults.add(Fault("download", 1, "stall"))
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(link, timeout=httpx.Timeout(300, read=1))


def test_padded_results_are_still_what_they_were(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate(least_bytes=2_000_000)
    picture = tmp_path / "a.png"
    picture.write_bytes(get(rh.result()).content)
    body = {"prompt": "waves", "sound": "false", "duration": "5", "imageUrl": rh.link(picture)}
    clip = tmp_path / "a.mp4"
    clip.write_bytes(get(rh.result(CLIP, body)).content)
    assert (picture.stat().st_size, clip.stat().st_size) == (2_000_000, 2_000_000)
    assert (probe(picture).kind, probe(clip).kind, probe(clip).seconds) == ("image", "video", 1.0)
