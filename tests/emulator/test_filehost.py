"""Results: ranges, ETag, expiry, downloads that go wrong, and padding that decoders do not see."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import av
import httpx
import pytest

from rh_prefect.emulator import DEFAULT, Fault
from rh_prefect.emulator.faults import Kind
from rh_prefect.emulator.render.metadata_and_padding import pad
from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller


@pytest.fixture
def link(rh: Caller) -> str:
    return rh.result()


def get(link: str, **headers: str) -> httpx.Response:
    return httpx.get(link, headers={name.replace("_", "-"): value for name, value in headers.items()})


def received(link: str) -> tuple[int, bytes, type[Exception] | None]:
    """What came through before the connection broke."""
    body = bytearray()
    with httpx.stream("GET", link) as response:
        try:
            for chunk in response.iter_raw():
                body += chunk
        except httpx.TransportError as error:
            return response.status_code, bytes(body), type(error)
    return response.status_code, bytes(body), None


def test_a_result_can_be_fetched_without_a_key(link: str) -> None:
    whole = get(link)
    length = str(len(whole.content))
    headers = {"content-type": "image/png", "content-length": length, "accept-ranges": "bytes"}
    assert (whole.status_code, {name: whole.headers[name] for name in headers}) == (200, headers)
    assert httpx.head(link).headers["content-length"] == length


def test_ranges_and_their_conditions(link: str) -> None:
    whole = get(link)
    size = len(whole.content)
    part = get(link, Range="bytes=10-")
    assert (part.status_code, part.content) == (206, whole.content[10:])
    assert part.headers["content-range"] == f"bytes 10-{size - 1}/{size}"
    assert get(link, Range="bytes=10-19").content == whole.content[10:20]
    past = get(link, Range=f"bytes={size}-")
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{size}")
    assert get(link, Range="bytes=10-", If_Range=whole.headers["etag"]).status_code == 206
    assert get(link, Range="bytes=10-", If_Range='"other"').status_code == 200


@pytest.mark.parametrize("status", [404, 403])
def test_a_result_is_gone_after_a_day_or_when_a_fault_says_so(emulate: Emulate, status: int) -> None:
    link = (rh := emulate(assumptions=replace(DEFAULT, expired_result_status=status))).result()
    rh.rh.faults.add(Fault("download", times=2, kind="expired"))
    assert [get(link).status_code for _ in range(3)] == [status, status, 200]
    rh.rh.clock.advance(86_500)
    assert [get(one).status_code for one in (link, link.replace(".png", ".jpg"))] == [status, 404]


def test_the_books_count_what_was_served(rh: Caller, link: str) -> None:
    whole = get(link)
    get(link, Range="bytes=10-19")
    task_id = rh.rh.recorder.paid[0].task_id
    assert [(entry.status, entry.sent) for entry in rh.rh.recorder.downloads] == [(200, len(whole.content)), (206, 10)]
    assert rh.rh.recorder.served(task_id) == len(whole.content) + 10


def test_a_cut_download_can_be_resumed(rh: Caller, link: str) -> None:
    whole = get(link)
    rh.rh.faults.add(Fault("download", 1, "cut", at=0.25))
    status, body, error = received(link)
    assert (status, body, error) == (200, whole.content[: len(whole.content) // 4], httpx.RemoteProtocolError)
    rest = get(link, Range=f"bytes={len(body)}-", If_Range=whole.headers["etag"])
    assert body + rest.content == whole.content


def test_half_of_a_large_download_is_its_first_half(emulate: Emulate) -> None:
    rh = emulate(long_side=1024)
    link = rh.result()
    whole = get(link).content
    assert len(whole) > 600_000  # several chunks
    rh.rh.faults.add(Fault("download", 1, "half"))
    assert received(link) == (200, whole[: len(whole) // 2], httpx.RemoteProtocolError)
    assert rh.rh.recorder.downloads[-1].sent == len(whole) // 2


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
    assert (answer.status_code, answer.headers["etag"] == etag) == (200, False)


def test_answers_that_are_no_file(rh: Caller, link: str) -> None:
    kinds: tuple[Kind, ...] = ("html", "503", "429", "empty")
    rh.rh.faults.add(*(Fault("download", number, kind) for number, kind in enumerate(kinds, 1)))
    answers = [get(link) for _ in kinds]
    assert [answer.status_code for answer in answers] == [200, 503, 429, 200]
    assert ("<html>" in answers[0].text, answers[3].content) == (True, b"")


def test_a_stalled_download(rh: Caller, link: str) -> None:
    whole = get(link).content
    for seconds in (0, 0.2):
        rh.rh.faults.add(Fault("download", 1, "stall", seconds=seconds))
        assert received(link) == (200, whole[: len(whole) // 2], httpx.RemoteProtocolError)
    rh.rh.faults.add(Fault("download", 1, "stall"))
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(link, timeout=httpx.Timeout(300, read=1))


def test_results_are_padded(emulate: Emulate) -> None:
    assert len(get(emulate(least_bytes=2_000_000).result()).content) == 2_000_000


LEAST = 1_000_001


def decoded(path: Path) -> tuple[list[float], str]:
    """When each frame is shown or heard and what is in all of them, by a decoder that lets no fault pass."""
    digest, times = hashlib.sha256(), []
    with av.open(str(path), options={"err_detect": "explode+crccheck+bitstream"}) as container:
        for stream in container.streams:
            stream.codec_context.options = {"err_detect": "explode"}
        for frame in container.decode():
            digest.update(frame.to_ndarray().tobytes())
            times.append(float(frame.time or 0))
        assert container.duration is None or container.duration < 10 * av.time_base
    return times, digest.hexdigest()


@pytest.mark.parametrize("kind", ["mp3", "wav", "flac", "mp4", "png", "jpg", "webp"])
def test_a_padded_file_shows_what_it_showed(tmp_path: Path, kind: str) -> None:
    made = getattr(samples, kind)(tmp_path / f"a.{kind}")
    before, facts = decoded(made), probe(made)
    padded = pad(made, least_bytes=LEAST)
    assert LEAST <= padded.stat().st_size <= LEAST + 4
    assert padded.stat().st_blocks * 512 < LEAST / 2, "zeros take no room"
    assert decoded(padded) == before
    assert probe(padded) == facts


def test_a_text_stays_a_text(tmp_path: Path) -> None:
    made = tmp_path / "a.txt"
    made.write_text("a lighthouse", encoding="utf-8")
    assert pad(made, least_bytes=100).read_text(encoding="utf-8").strip() == "a lighthouse"
