"""`rh-prefect models search`, as a person and a script use it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.pipelines.pipeline import shipped_names
from rh_prefect.works.journal.record_types import End
from tests.support.processes.typed_commands import Terminal
from tests.support.world.job_records import intent, ticket, write_claimed


def names(terminal: Terminal, words: str) -> list[str]:
    return [record["name"] for record in terminal.json(f"models search {words}")]


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("models search lip sync", "kling-lip-sync/identify-face"),
        ("models show seedance-2.0-fast/image-to-video", "seedance-2.0-fast/image-to-video"),
        ("explain", "3d-catalogue"),
        ("jobs list night", "job"),
    ],
)
def test_lines_fit_a_narrow_terminal(
    command: str, first: str, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": "60", "RH_STATE_DIR": str(tmp_path), "RH_STORAGE_URL": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    end = End(status="SUCCESS", task_id="1")
    asyncio.run(write_claimed("night", {"intent-1": intent(flow_run="night"), "answer-1": ticket("1"), "end-1": end}))
    lines = terminal.call(command).splitlines()
    assert lines[0] == first
    assert max(map(len, lines)) <= 60


def test_the_shipped_pipelines_are_listed(terminal: Terminal) -> None:
    listed = terminal.json("explain")
    assert list(listed) == list(shipped_names())
    assert listed["image-to-video"] == "A video from a picture."


def test_the_table_shows_names_outputs_classes_and_prices_with_their_unit(terminal: Terminal) -> None:
    lines = terminal.call("models search music").splitlines()
    assert lines[0].split("  ")[0] == "minimax/music-2.5"
    assert "audio  models.MinimaxMusic25" in lines[0]
    assert lines[0].endswith("0.80 CNY per call")
    assert any(line.endswith("price not known") for line in lines)
    assert len(lines) == 21
    assert lines[-1].startswith(f"… and {len(catalog.find('music')) - 20} more")
    assert len(terminal.call("models search music --limit 3").splitlines()) == 4
    assert "(gone)" in terminal.call("models search f-2-dev edit --all").splitlines()[0]


def test_json_is_one_array_and_notes_go_to_stderr(terminal: Terminal) -> None:
    records = terminal.json("models search lip sync")
    video = next(record for record in records if record["name"] == "kling-lip-sync/lip-sync-video")
    assert video == {
        "name": "kling-lip-sync/lip-sync-video",
        "endpoint": "kling-lip-sync/lip-sync-video",
        "class": "KlingLipSyncLipSyncVideo",
        "task": "kling_lip_sync_lip_sync_video",
        "output": "video",
        "inputs": ["audio"],
        "price": "0.35 CNY per 5 seconds",
        "price_seen": catalog.get("kling-lip-sync/lip-sync-video").price_seen,
        "status": "current",
        "tags": ["video", "audio to video", "lip sync"],
    }
    assert names(terminal, "lipsnyc") == [record["name"] for record in records]
    assert '"lipsnyc" is interpreted as "lip sync".' in terminal.said
    assert names(terminal, "zzz") == []
    assert 'No model matches "zzz"' in terminal.said
    assert 'No model matches "zzz"' in terminal.call("models search zzz")


def test_options_choose_and_sort(terminal: Terminal) -> None:
    cheap = names(terminal, "speech --max-price 0.25 --sort price")
    assert cheap == [model.name for model in catalog.find("speech", max_price=0.25, sort="price")]
    assert "no price is known" in terminal.said
    found = names(terminal, "--input audio --output video")
    assert "kling-lip-sync/lip-sync-video" in found
    assert {catalog.get(name).output for name in found} == {"video"}
    assert len(names(terminal, "speech --limit 2")) == 2
    assert len(names(terminal, "--all")) == len(catalog.models())


@pytest.mark.parametrize("wrong", ["--sort size", "--max-price -1", "--limit 0"])
def test_bad_options_are_one_message(terminal: Terminal, wrong: str) -> None:
    terminal.call(f"models search music {wrong}", fails=True)
    assert "Invalid value" in terminal.said and "Traceback" not in terminal.said
