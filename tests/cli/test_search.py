"""`rh-prefect models search`, as a person and a script use it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.pipelines.pipeline import shipped_names
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.record_types import End
from rh_prefect.works.journal.works_journal import default_works
from tests.support.processes.cli_process import Done, run_each
from tests.support.processes.typed_commands import Terminal
from tests.support.world.job_records import KEY, intent, ticket, write

COMMANDS: dict[str, Sequence[str]] = {
    "table": ["music"],
    "more": ["music", "--limit", "3"],
    "old": ["f-2-dev", "edit", "--all"],
    "json": ["lip", "sync", "--json"],
    "first": ["speech", "--json", "--limit", "2"],
    "typo": ["lipsnyc", "--json"],
    "none": ["zzz"],
    "none as json": ["zzz", "--json"],
    "cheap": ["speech", "--max-price", "0.25", "--sort", "price", "--json"],
    "takes": ["--input", "audio", "--output", "video", "--json"],
    "all": ["--all", "--json"],
    "bad order": ["music", "--sort", "size"],
    "bad price": ["music", "--max-price", "-1"],
    "bad limit": ["music", "--limit", "0"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder: Path = tmp_path_factory.mktemp("search")
    env = {**os.environ, "RH_STATE_DIR": str(folder)}
    commands = [["models", "search", *words] for words in COMMANDS.values()]
    return dict(zip(COMMANDS, run_each(commands, env=env, cwd=folder), strict=True))


def names(one: Done) -> list[str]:
    assert one.returncode == 0, one.stderr
    return [record["name"] for record in json.loads(one.stdout)]


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("models search lip sync", "kling-lip-sync/identify-face"),
        ("models show seedance-2.0-fast/image-to-video", "seedance-2.0-fast/image-to-video"),
        ("explain", "3d-catalogue"),
        ("jobs list night", f"night/{KEY[:12]}"),
    ],
)
def test_lines_fit_a_narrow_terminal(
    command: str, first: str, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": "60", "RH_STATE_DIR": str(tmp_path), "RH_STORAGE_URL": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    journal = default_works(get_settings()).notes_of("night")
    records = {"intent-1": intent(), "answer-1": ticket("1"), "end-1": End(status="SUCCESS", task_id="1")}
    asyncio.run(write(journal, records))
    lines = terminal.call(command).splitlines()
    assert lines[0] == first
    assert max(map(len, lines)) <= 60


def test_the_shipped_pipelines_are_listed(terminal: Terminal) -> None:
    listed = terminal.json("explain")
    assert list(listed) == list(shipped_names())
    assert listed["image-to-video"] == "A video from a picture."


def test_the_table_shows_names_outputs_classes_and_prices_with_their_unit(done: dict[str, Done]) -> None:
    lines = done["table"].stdout.splitlines()
    assert lines[0].split("  ")[0] == "minimax/music-2.5"
    assert "audio  models.MinimaxMusic25" in lines[0]
    assert lines[0].endswith("0.80 CNY per call")
    assert any(line.endswith("price not known") for line in lines)
    assert len(lines) == 21
    assert lines[-1].startswith(f"… and {len(catalog.find('music')) - 20} more")
    assert len(done["more"].stdout.splitlines()) == 4


def test_old_models_are_marked(done: dict[str, Done]) -> None:
    assert "(gone)" in done["old"].stdout.splitlines()[0]


def test_json_is_one_array_and_nothing_else_is_on_stdout(done: dict[str, Done]) -> None:
    records = json.loads(done["json"].stdout)
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
    assert len(names(done["first"])) == 2
    assert len(names(done["all"])) == len(catalog.models())


def test_notes_go_to_stderr_with_json(done: dict[str, Done]) -> None:
    assert names(done["typo"]) == names(done["json"])
    assert '"lipsnyc" is interpreted as "lip sync".' in done["typo"].stderr
    assert names(done["none as json"]) == []
    assert 'No model matches "zzz"' in done["none as json"].stderr
    assert 'No model matches "zzz"' in done["none"].stdout


def test_options_choose_and_sort(done: dict[str, Done]) -> None:
    cheap = names(done["cheap"])
    assert cheap == [model.name for model in catalog.find("speech", max_price=0.25, sort="price")]
    assert "no price is known" in done["cheap"].stderr
    assert "kling-lip-sync/lip-sync-video" in names(done["takes"])
    assert {catalog.get(name).output for name in names(done["takes"])} == {"video"}


@pytest.mark.parametrize("wrong", ["bad order", "bad price", "bad limit"])
def test_bad_options_are_one_message(done: dict[str, Done], wrong: str) -> None:
    assert done[wrong].returncode == 2
    assert "Invalid value" in done[wrong].stdout + done[wrong].stderr
    assert "Traceback" not in done[wrong].stderr
