from __future__ import annotations

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import InputError
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.manifest import Manifest
from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server
from tests.support.world.job_records import BASE, KEY, TASK


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "out")


def manifest(store: MediaStore, /, **facts: Any) -> Manifest:
    said: dict[str, Any] = {
        "key": KEY,
        "job": f"run/{KEY}",
        "base": BASE,
        "site": "www.runninghub.cn",
        "account": "acc",
        "model": "some/model",
        "endpoint": "some/model",
        "payload": {"prompt": "灯塔", "seed": 7},
        "seed": 7,
        "task_id": TASK,
        "submitted_at": "2026-01-01T10:00:00.000+00:00",
        "ended_at": "2026-01-01T10:01:00.000+00:00",
        "cost": Decimal("0.30"),
        "currency": "CNY",
        "run": {"flow_run": "1"},
    }
    return Manifest(**(said | facts))


def published(store: MediaStore, tmp_path: Path, name: str) -> Any:
    return store.publish(samples.png(tmp_path / "local.png", text=name), name)


def test_a_manifest_is_read_as_it_was_written(store: MediaStore, tmp_path: Path) -> None:
    written = manifest(store, outputs=(published(store, tmp_path, "1.png"),), texts=("words",), label="dawn")
    manifests.write(store, written)
    assert manifests.read(store, written.name) == written


def test_a_manifest_is_json_at_the_path_of_its_request(store: MediaStore) -> None:
    manifests.write(store, manifest(store))
    said = json.loads(store.read_bytes(f"manifests/{BASE}/{TASK}.json"))
    assert said["payload"] == {"prompt": "灯塔", "seed": 7}
    assert Decimal(said["cost"]) == Decimal("0.30")


def test_a_missing_or_invalid_manifest_is_none(store: MediaStore) -> None:
    name = manifests.manifest_name(BASE, TASK)
    assert manifests.read(store, name) is None
    for text in ("", "{", "[]", "{}"):
        store.write_bytes(name, text.encode())
        assert manifests.read(store, name) is None
    assert manifests.find(store, BASE) is None
    assert list(manifests.read_all(store)) == []


def test_the_log_names_each_damaged_manifest(store: MediaStore, caplog: pytest.LogCaptureFixture) -> None:
    manifests.write(store, manifest(store, task_id="1"))
    store.write_bytes("manifests/broken/2.json", b"{")
    store.write_bytes("manifests/pending/3-0.json", b"{}")
    assert [one.task_id for one in manifests.read_all(store)] == ["1"]
    assert [record.message.partition(" is damaged")[0] for record in caplog.records] == [
        f"The manifest {store.uri('manifests/broken/2.json')}"
    ]


def test_the_newest_equal_request_is_found(store: MediaStore) -> None:
    for day in (2, 3, 1):
        ended = f"2026-01-0{day}T10:00:00.000+00:00"
        manifests.write(store, manifest(store, task_id=str(day), ended_at=ended))
    manifests.write(store, manifest(store, base="c" * 40, task_id="9"))
    found = manifests.find(store, BASE)
    assert found is not None
    assert found.task_id == "3"


def test_a_manifest_with_a_missing_file_is_skipped(store: MediaStore, tmp_path: Path) -> None:
    files = tuple(published(store, tmp_path, f"{n}.png") for n in (1, 2))
    newer = manifest(store, task_id="2", ended_at="2026-02-01T10:00:00.000+00:00", outputs=files)
    manifests.write(store, newer)
    manifests.write(store, manifest(store, task_id="1", outputs=files[:1]))
    assert manifests.find(store, BASE) == newer
    store.delete("2.png")
    older = manifests.find(store, BASE)
    assert older is not None
    assert older.task_id == "1"
    store.delete("1.png")
    assert manifests.find(store, BASE) is None


def test_files_of_another_store_count_as_missing(store: MediaStore, tmp_path: Path) -> None:
    elsewhere = MediaStore(tmp_path / "elsewhere")
    manifests.write(store, manifest(store, outputs=(published(elsewhere, tmp_path, "1.png"),)))
    assert manifests.find(store, BASE) is None


NAME = "films/1/shot-1.png"


@pytest.mark.parametrize("move", [os.rename, os.symlink, shutil.copytree])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_store_that_was_moved_keeps_its_results(store: MediaStore, tmp_path: Path, move: Any, is_old: bool) -> None:
    """Also by manifests of earlier versions, which do not name their store."""
    media = published(store, tmp_path, NAME)
    manifests.write(store, manifest(store, outputs=(media,), **({} if is_old else {"store": store.url})))
    place = tmp_path / "moved"
    move(store.url, place)
    moved = MediaStore(place)
    found = manifests.find(moved, BASE)
    assert found is not None
    assert found.outputs == (media.model_copy(update={"uri": moved.uri(NAME)}),)
    assert found.result(moved).first_output.uri == moved.uri(NAME)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_manifest_never_names_another_file_of_another_store(store: MediaStore, tmp_path: Path, is_old: bool) -> None:
    media = published(store, tmp_path, NAME)
    other = MediaStore(tmp_path / "other")
    manifests.write(other, manifest(store, outputs=(media,), **({} if is_old else {"store": store.url})))
    assert manifests.find(other, BASE) is None
    other.write_bytes(NAME, b"x" * media.size)
    assert manifests.find(other, BASE) is None
    outside = media.model_copy(update={"uri": f"{store.url}/../secret.png"})
    manifests.write(other, manifest(store, outputs=(outside,), store=store.url))
    assert manifests.find(other, BASE) is None


class Counting(MediaStore):
    reads = 0

    def digest(self, name: str) -> str:
        self.reads += 1
        return super().digest(name)


def test_another_file_of_the_same_size_is_not_the_output(store: MediaStore, tmp_path: Path) -> None:
    media = published(store, tmp_path, NAME)
    manifests.write(store, manifests.noted(store, manifest(store, outputs=(media,))))
    assert manifests.find(store, BASE) is not None
    store.write_bytes(NAME, b"x" * media.size)
    assert manifests.find(store, BASE) is None


def test_a_file_is_read_only_if_the_storage_reports_another_state(tmp_path: Path) -> None:
    """And then once."""
    store = Counting(tmp_path / "out")
    media = published(store, tmp_path, NAME)
    manifests.write(store, manifests.noted(store, manifest(store, outputs=(media,))))
    for reads in (0, 1, 1):
        assert manifests.find(store, BASE) is not None
        assert store.reads == reads
        os.utime(media.uri, (1, 1))
    moved = Counting(Path(store.url).rename(tmp_path / "moved"))
    assert manifests.find(moved, BASE) is not None
    assert moved.reads == 0


def test_an_object_is_not_read_to_find_it(s3: S3Server, tmp_path: Path) -> None:
    store = Counting(s3.url("out"), options=s3.options)
    media = published(store, tmp_path, NAME)
    manifests.write(store, manifests.noted(store, manifest(store, outputs=(media,))))
    assert manifests.find(store, BASE) is not None
    assert store.reads == 0
    store.write_bytes(NAME, b"x" * media.size)
    assert manifests.find(store, BASE) is None


def test_the_lookup_names_a_damaged_manifest(store: MediaStore, caplog: pytest.LogCaptureFixture) -> None:
    """A request whose result is not found is paid for again."""
    name = manifests.manifest_name(BASE, TASK)
    store.write_bytes(name, b"{")
    assert manifests.find(store, BASE) is None
    assert [record.message.partition(" is damaged")[0] for record in caplog.records] == [
        f"The manifest {store.uri(name)}"
    ]


def test_all_manifests_are_read(store: MediaStore, tmp_path: Path) -> None:
    published(store, tmp_path, "1.png")
    for base, task in (("c" * 40, "1"), (BASE, "2"), (BASE, "3")):
        manifests.write(store, manifest(store, base=base, task_id=task))
    assert sorted(one.task_id for one in manifests.read_all(store)) == ["1", "2", "3"]


def test_a_result_has_the_cost_of_the_job(store: MediaStore, tmp_path: Path) -> None:
    media = published(store, tmp_path, "1.png")
    result = manifest(store, outputs=(media,), texts=("one", "two")).result(store)
    assert (result.cost, result.currency, result.reused) == (Decimal("0.30"), "CNY", False)
    assert (result.first_output, result.text) == (media, "one\n\ntwo")
    assert result.manifest == store.uri(f"manifests/{BASE}/{TASK}.json")
    assert result.job == f"run/{KEY}"


def test_a_reused_result_costs_nothing(store: MediaStore) -> None:
    result = manifest(store).result(store, reused=True)
    assert (result.cost, result.reused) == (Decimal(0), True)


def test_the_first_output_of_a_result_without_files_is_an_error(store: MediaStore) -> None:
    with pytest.raises(InputError, match=f"run/{KEY}.*made no file"):
        _ = manifest(store, texts=("words",)).result(store).first_output
