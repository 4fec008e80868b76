from __future__ import annotations

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.journal.identity import graph_base
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.stored_result import StoredResult
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server
from tests.support.world.job_records import BASE, KEY, TASK, intent


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "out")


def result(store: MediaStore, /, **facts: Any) -> StoredResult:
    said: dict[str, Any] = {
        **intent(payload={"prompt": "灯塔", "seed": 7}).requested,
        "job": f"run/{KEY}",
        "base": BASE,
        "task_id": TASK,
        "submitted_at": "2026-01-01T10:00:00.000+00:00",
        "ended_at": "2026-01-01T10:01:00.000+00:00",
        "cost": Decimal("0.30"),
        "currency": "CNY",
    }
    made = StoredResult(**(said | facts))
    return stored_result.stamped(store, made) if "states" not in facts else made


def published(store: MediaStore, tmp_path: Path, name: str) -> Media:
    """A file as a result names it: by its name in the store."""
    return store.publish(samples.png(tmp_path / "local.png", text=name), name).at(name)


def test_a_stored_result_is_read_as_it_was_written(store: MediaStore, tmp_path: Path) -> None:
    written = result(store, outputs=(published(store, tmp_path, "1.png"),), texts=("words",), label="dawn")
    stored_result.write(store, written)
    assert stored_result.read(store, stored_result.name_of(written)) == written
    said = json.loads(store.read_bytes(f"results/{BASE}/{TASK}.json"))
    assert (said["payload"], said["cost"], "coins" in said) == ({"prompt": "灯塔", "seed": 7}, "0.30", False)
    assert b'\n "cost": "0.30",\n' in store.read_bytes(f"results/{BASE}/{TASK}.json"), "people read it"


def test_a_missing_or_invalid_stored_result_is_none_and_the_log_names_each_one(
    store: MediaStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A request whose result is not found is paid for again."""
    name = f"results/{BASE}/{TASK}.json"
    assert stored_result.read(store, name) is None
    stored_result.write(store, result(store, base="c" * 40, task_id="1"))
    for text in ("", "[]", "{}", "{"):
        store.write_bytes(name, text.encode())
        assert stored_result.read(store, name) is None
    caplog.clear()
    assert stored_result.find(store, BASE) is None
    assert [one.task_id for one in stored_result.read_all(store)] == ["1"]
    named = [record.message.partition(" is damaged")[0] for record in caplog.records]
    assert named == [f"The stored result {store.uri(name)}"] * 2


def test_the_newest_equal_request_is_found(store: MediaStore) -> None:
    for day in (2, 3, 1):
        ended = f"2026-01-0{day}T10:00:00.000+00:00"
        stored_result.write(store, result(store, task_id=str(day), ended_at=ended))
    later, graph = "2026-02-01T10:00:00.000+00:00", "f" * 40
    stored_result.write(store, result(store, base="c" * 40, task_id="9"))
    stored_result.write(store, result(store, take=2, task_id="8", ended_at=later))
    stored_result.write(store, result(store, graph=graph, task_id="7", ended_at=later))
    stored_result.write(store, result(store, base=graph_base(BASE, graph), graph=graph, task_id="6"))
    sought: list[Any] = [("", 1), ("", 2), (graph, 1), ("e" * 40, 1)]
    found = [stored_result.find(store, BASE, seen, take=take) for seen, take in sought]
    assert [one and one.task_id for one in found] == ["3", "8", "7", None]


def test_a_result_with_a_missing_file_is_skipped(store: MediaStore, tmp_path: Path) -> None:
    files = tuple(published(store, tmp_path, f"{n}.png") for n in (1, 2))
    newer = result(store, task_id="2", ended_at="2026-02-01T10:00:00.000+00:00", outputs=files)
    stored_result.write(store, newer)
    stored_result.write(store, result(store, task_id="1", outputs=files[:1]))
    assert stored_result.find(store, BASE) == newer
    store.delete("2.png")
    older = stored_result.find(store, BASE)
    assert older is not None
    assert older.task_id == "1"
    store.delete("1.png")
    assert stored_result.find(store, BASE) is None


NAME = "films/1/shot-1.png"


@pytest.mark.parametrize("move", [os.rename, os.symlink, shutil.copytree])
def test_a_store_that_was_moved_keeps_its_results(store: MediaStore, tmp_path: Path, move: Any) -> None:
    media = published(store, tmp_path, NAME)
    stored_result.write(store, result(store, outputs=(media,)))
    place = tmp_path / "moved"
    move(store.url, place)
    moved = MediaStore(place)
    found = stored_result.find(moved, BASE)
    assert found is not None
    assert found.result(moved).outputs == (media.at(moved.uri(NAME)),)


def test_a_stored_result_never_names_another_file_of_another_store(store: MediaStore, tmp_path: Path) -> None:
    media = published(store, tmp_path, NAME)
    other = MediaStore(tmp_path / "other")
    stored_result.write(other, result(store, outputs=(media,)))
    assert stored_result.find(other, BASE) is None
    other.write_bytes(NAME, b"x" * media.size)
    assert stored_result.find(other, BASE) is None
    outside = media.at("../secret.png")
    stored_result.write(other, result(store, outputs=(outside,), states=("any",)))
    assert stored_result.find(other, BASE) is None


class Counting(MediaStore):
    reads = 0

    def digest(self, name: str) -> str:
        self.reads += 1
        return super().digest(name)


def test_a_file_is_read_only_if_the_storage_reports_another_state(tmp_path: Path) -> None:
    """And then once."""
    store = Counting(tmp_path / "out")
    media, other = published(store, tmp_path, NAME), published(store, tmp_path, "2.png")
    stored_result.write(store, result(store, outputs=(media, other)))
    for reads in (0, 1, 1):
        assert stored_result.find(store, BASE) is not None
        assert store.reads == reads
        os.utime(store.uri(NAME), (1, 1))
    moved = Counting(Path(store.url).rename(tmp_path / "moved"))
    assert stored_result.find(moved, BASE) is not None
    assert moved.reads == 0


def test_an_object_is_not_read_to_find_it(s3: S3Server, tmp_path: Path) -> None:
    store = Counting(s3.url("out"), options=s3.options)
    media = published(store, tmp_path, NAME)
    stored_result.write(store, result(store, outputs=(media,)))
    assert stored_result.find(store, BASE) is not None
    assert store.reads == 0
    store.write_bytes(NAME, b"x" * media.size)
    assert stored_result.find(store, BASE) is None


def test_a_result_has_the_cost_of_the_job(store: MediaStore, tmp_path: Path) -> None:
    media = published(store, tmp_path, "1.png")
    made = result(store, outputs=(media,), texts=("one", "two")).result(store)
    assert (made.cost, made.currency, made.reused) == (Decimal("0.30"), "CNY", False)
    assert (made.first_output.uri, made.text) == (store.uri("1.png"), "one\n\ntwo")
    assert made.record == store.uri(f"results/{BASE}/{TASK}.json")
    assert (made.job, made.key) == (f"run/{KEY}", KEY)


def recorded(store: MediaStore, *outputs: Media, **facts: Any) -> ResultRecord:
    record = ResultRecord(task_id=TASK, base=BASE, outputs=outputs, **facts)
    return stored_result.stamped(store, record)


def test_the_record_describes_its_files_while_they_are_whole(tmp_path: Path) -> None:
    store = Counting(tmp_path / "out")
    record = recorded(store, published(store, tmp_path, NAME))
    assert stored_result.whole(store, record) is record
    os.utime(store.uri(NAME), (1, 1))
    assert stored_result.whole(store, record) is record
    assert store.reads == 1
    assert stored_result.whole_files(store, [record]) == {0: record.outputs[0]}
    assert not store.exists(stored_result.name_of(record)), "only a stored result is written again"
    assert stored_result.whole(store, recorded(store, texts=("words",))) is not None


def test_the_stored_result_describes_files_that_were_downloaded_again(store: MediaStore, tmp_path: Path) -> None:
    record = recorded(store, published(store, tmp_path, NAME))
    newer = store.publish(samples.png(tmp_path / "again.png", text="encoded again"), NAME)
    assert stored_result.whole(store, record) is None
    stored = result(store, outputs=(newer.at(NAME),))
    stored_result.write(store, stored)
    assert stored_result.whole(store, record) == stored


@pytest.mark.parametrize("how", ["deleted", "cut", "replaced", "a folder"])
def test_a_file_that_is_not_whole_is_never_returned(store: MediaStore, tmp_path: Path, how: str) -> None:
    media = published(store, tmp_path, NAME)
    record = recorded(store, media)
    stored_result.write(store, result(store, outputs=(media,)))
    data = store.read_bytes(NAME)
    store.delete(NAME)
    if how == "a folder":
        store.write_bytes(f"{NAME}/x", data)
    elif how != "deleted":
        store.write_bytes(NAME, data[:-1] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    assert stored_result.whole(store, record) is None
    assert stored_result.whole_files(store, [record]) == {}


def test_a_result_is_copied_from_the_storage_that_has_it(
    store: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where inputs are restricted, too: the files are outputs."""
    monkeypatch.setenv("RH_RESTRICT_INPUTS", "true")
    other = MediaStore(tmp_path / "other")
    record = recorded(store, published(store, tmp_path, NAME))
    assert stored_result.copy_from_its_place(other, record.model_copy(update={"store": str(tmp_path / "no")})) is None
    assert stored_result.copy_from_its_place(other, record) == record
    assert other.read_bytes(NAME) == store.read_bytes(NAME)
    assert list(stored_result.read_all(other)) == [], "there is none to copy"
    stored_result.write(store, result(store, outputs=record.outputs))
    assert stored_result.copy_from_its_place(other, record) == record
    (copied,) = stored_result.read_all(other)
    assert (copied.store, stored_result.is_whole(other, copied)) == (other.url, True)
    damaged = record.outputs[0].model_copy(update={"defect": "half a png"})
    assert stored_result.copy_from_its_place(other, recorded(store, damaged)) is None


def test_a_copied_stored_result_describes_the_files_that_were_copied(store: MediaStore, tmp_path: Path) -> None:
    """It described a second download of a file, but the original file was put back."""
    other, record = MediaStore(tmp_path / "other"), recorded(store, published(store, tmp_path, NAME))
    original = store.read_bytes(NAME)
    newer = store.publish(samples.png(tmp_path / "again.png", text="encoded again"), NAME).at(NAME)
    stored_result.write(store, result(store, outputs=(newer,)))
    store.write_bytes(NAME, original)
    assert stored_result.copy_from_its_place(other, record) == record
    (copied,) = stored_result.read_all(other)
    assert copied.outputs == record.outputs


def test_a_damaged_file_is_not_whole(store: MediaStore, tmp_path: Path) -> None:
    damaged = published(store, tmp_path, NAME).model_copy(update={"defect": "a broken png"})
    stored = result(store, outputs=(damaged, published(store, tmp_path, "2.png")))
    stored_result.write(store, stored)
    assert stored_result.find(store, BASE) is None
    assert stored_result.has_all_files(store, stored)
    assert set(stored_result.whole_files(store, [stored])) == {1}
