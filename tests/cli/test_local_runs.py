"""`rh-prefect run` without a Prefect server, and what `jobs` and `spend` find of it in the records."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes import warm_process
from tests.support.processes.typed_commands import Terminal
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.samples import media as samples
from tests.support.samples.steps import CLIP, PICTURE, group, of_rows, steps
from tests.support.servers.emulator_env import StartEmulator

CUP = "name: cup\n" + steps(picture=PICTURE % "a cup", clip=CLIP % "$(picture)") + "outputs: {clip: $(clip)}\n"
pytestmark = pytest.mark.usefixtures("rh")


@pytest.fixture(autouse=True)
def cup(terminal: Terminal) -> None:
    Path("cup.yaml").write_text(CUP)


def run_of(terminal: Terminal) -> str:
    """The newest run that `jobs list` shows."""
    name: str = terminal.json("jobs list")["runs"][0]["name"]
    return name


def test_a_run_of_edits_needs_no_key(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RH_API_KEY", "RH_BASE_URL"):
        monkeypatch.delenv(name)
    samples.png(tmp_path / "cup.png")
    sized = "edit: resize, with: {file: $(params.cup), width: 32, height: 32}"
    Path("sized.yaml").write_text("name: sized\nparams: {cup: image}\n" + steps(sized=sized))
    assert "Steps: 1 made; paid nothing" in terminal.call(f"run sized.yaml --cup {tmp_path / 'cup.png'}")
    assert "No RunningHub API key" in terminal.call("run cup.yaml", fails=True)


def test_a_run_is_listed_and_added_up_without_a_server(terminal: Terminal) -> None:
    assert "no run is recorded" in terminal.call("jobs list")
    assert "flow runs are not included, because PREFECT_API_URL is not set" in terminal.call("jobs list")
    said = terminal.call("run cup.yaml")
    name = run_of(terminal)
    assert f"{name}: 2 job(s), estimate 1.79 CNY" in said
    listed = terminal.call("jobs list")
    assert re.search(rf"{name} +2 job\(s\)  Completed +cup", listed), listed
    header, *jobs = terminal.call(f"jobs list {name}").splitlines()
    assert header.split() == ["job", "state", "task", "what", "cost"]
    assert header.index("cost") == jobs[0].index("0.04 CNY" if "0.04" in jobs[0] else "1.75 CNY")
    assert {re.findall(r"(\w+): ", job)[-1] for job in jobs} == {"picture", "clip"}
    assert len(jobs[0].split()[0].rpartition("/")[2]) == 12
    shown = terminal.json(f"jobs show {jobs[0].split()[0]}")
    assert shown["submits"][0]["end"]["status"] == "SUCCESS"
    assert shown["result"]["outputs"][0]["sha256"]
    assert shown["job"].startswith(jobs[0].split()[0])
    for more in (0, 1, 27):
        assert "submit 1: ended" in terminal.call(f"jobs show {shown['job'][: len(jobs[0].split()[0]) + more]}")
    assert "1.79 CNY" in terminal.call("spend --by pipeline")
    assert re.search(r"CNY by flow\ncup  1\.79  █+\n", terminal.call("spend --by flow --plot"))
    assert "1.79 CNY" in terminal.call("spend --since yesterday")
    assert "no task" in terminal.call("spend --until yesterday")
    again = terminal.json("run cup.yaml")
    assert again["outputs"]["clip"]["kind"] == "video"
    assert {one["state"] for one in again["steps"]} == {"reused"}
    assert run_of(terminal) == name, "a run that makes nothing leaves no record"
    assert [one["ok"] for one in terminal.json("doctor")] == [True] * 7
    assert terminal.json("models show z-image/turbo")["params"][0]["name"] == "prompt"
    assert "'5' | '10'" in terminal.call("models show kling-v2.6-pro-image-to-video")
    assert "0..2147483647" in terminal.call("models show happyhorse-1.0/image-to-video")


CUPS = of_rows("title: string", "id: $(item.title)", p=PICTURE % "$(item.title)") + "outputs: {cups: $(each.p)}\n"


def test_a_run_with_one_invalid_row_prints_the_outputs_of_the_others(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "cups.yaml").write_text(CUPS)
    (tmp_path / "cups.csv").write_text("title\na cup\na forbidden cup\n")
    terminal.call("run cups.yaml --set rows=cups.csv", fails=True)
    said = terminal.said
    assert "content check" in said and "Traceback" not in said
    assert re.search(r"^cups\[1\]: /.*[0-9a-f]{64}\.png$", said, re.MULTILINE), said
    assert "nothing is paid for twice" not in said
    assert "After a correction, pay only for what is missing: rh-prefect run cups.yaml --set rows=cups.csv" in said
    assert re.search(r"^gallery: /.*/gallery/run-.*\.html$", said, re.MULTILINE), said
    assert "\nopen it: rh-prefect open " in said


def test_a_batch_prints_the_command_that_continues_it_unchanged(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tab that the terminal replaces, or the code of an emoji, would be another batch, which pays again."""
    Path("cups.csv").write_text("prompt,name\na cup,one\na forbidden cup,:two:\n")
    words = shlex.split("batch cups.csv --model z-image/turbo --label-column name --out")
    command = shlex.join([*words, "a\tplace :three:"])
    monkeypatch.setattr(sys, "argv", ["rh-prefect", *shlex.split(command)])
    terminal.call(command, fails=True)
    assert f"\nrun what is missing: rh-prefect {command}\n" in terminal.said
    assert "\nrow 2 (:two:): failed: " in terminal.said


def test_a_run_over_its_budget_prints_a_command_that_suffices(terminal: Terminal, rh: Emulator, tmp_path: Path) -> None:
    (tmp_path / "cups.yaml").write_text(f"budget: {{amount: 1, whole_items: true}}\n{CUPS}")
    (tmp_path / "cups.csv").write_text("title\na cup\na jug\na mug\n")
    said = terminal.call("run cups.yaml --set rows=cups.csv --budget 0.05", fails=True)
    (again,) = re.findall(r"with a sufficient budget: (rh-prefect run .*)", said)
    assert again.endswith("rows=cups.csv --budget 0.08"), "what is paid is no part of the next run's budget"
    terminal.call(again)
    assert len(rh.recorder.paid) == 3


def test_a_dry_run_shows_the_price_and_pays_nothing(terminal: Terminal, rh: Emulator, tmp_path: Path) -> None:
    assert "least 1.79, expected 1.79, most 1.79" in terminal.call("run cup.yaml --dry-run")
    assert "expected 0.04" in terminal.call("run cup.yaml --only picture --dry-run --budget 0.05")
    said = terminal.call("run cup.yaml --dry-run --budget 1", fails=True)
    assert "cup: the run costs at least 1.79 CNY, and its budget is 1" in said
    said = terminal.call("plan cup.yaml --budget 1", fails=True)
    assert "the run costs at least 1.79 CNY, and its budget is 1" in said
    assert "least 1.79" in terminal.call("plan cup.yaml --budget 2")
    assert "most 0.04" in terminal.call("run z-image/turbo --prompt kite --dry-run")
    typo = terminal.call("run z-image/turbo --prompt kite --aspect 16:9", fails=True)
    assert "has no parameter aspect; did you mean aspect_ratio?" in typo
    (tmp_path / "rows.csv").write_text("prompt\na cup\na jug\n")
    assert "most 0.08" in terminal.call("batch rows.csv --model z-image/turbo --dry-run")
    part = terminal.call("batch rows.csv --model z-image/turbo --dry-run --sample 1")
    assert "Price of the selected steps: least 0.04, expected 0.04, most 0.04 CNY." in part
    (tmp_path / "wrong.csv").write_text("prompt,title\na cup,one\na jug,two\n")
    wrong = terminal.call("batch wrong.csv --model z-image/turbo --dry-run", fails=True)
    assert "batch: 2 of 2 rows are invalid; the first reason: it has a value in the column 'title'" in wrong
    assert terminal.json("batch rows.csv --model z-image/turbo --dry-run")["price"]["most"] == 0.08
    terminal.call("run cup.yaml --only picture")
    assert "least 1.75, expected 1.75, most 1.75" in terminal.call("run cup.yaml --dry-run")
    assert len(rh.recorder.submissions) == 1
    (tmp_path / "cup.yaml").write_text(f"budget: {{amount: 1.78, all_runs: true}}\n{CUP}")
    said = " ".join(terminal.call("plan cup.yaml").split())
    assert "of a budget of 1.78, of which 0.04 was paid for these results by earlier runs" in said
    assert "note: The budget of 1.78, of which 1.74 is left, is below the minimum price" in said
    for command in ("plan cup.yaml --budget 1.78", "run cup.yaml --dry-run", "run cup.yaml"):
        assert "its budget is 1.74" in terminal.call(command, fails=True), "what a run refuses"
    (tmp_path / "cup.yaml").write_text(CUP)
    terminal.call("run cup.yaml")
    (tmp_path / "cup.yaml").write_text(f"budget: {{amount: 1.78, all_runs: true}}\n{CUP}")
    assert "below the minimum price" not in terminal.call("plan cup.yaml"), "nothing is left to make"


def test_quotes_give_unlisted_prices_and_refuse_wrong_requests(terminal: Terminal, rh: Emulator) -> None:
    clip = "model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: a turn}"
    quoted = steps(
        one="model: Dola-Seedream-5.0-pro/text-to-image, with: {prompt: a cup}",
        each=group("foreach: [a cup, a jug]", picture=PICTURE % "$(item)", clip=clip),
    )
    Path("quoted.yaml").write_text(quoted)
    assert "expected >= 7.08" in terminal.call("plan quoted.yaml")
    said = terminal.call("plan quoted.yaml --quote --out quoted.json")
    assert "least 8.08, expected 8.08, most 8.08" in said
    assert "RunningHub has quoted prices for 3 requests" in said
    assert not rh.recorder.submissions
    assert "needs a budget" in terminal.call("run quoted.yaml --only one", fails=True)
    terminal.call("run quoted.yaml --only one --plan quoted.json --dry-run")
    said = terminal.call("run quoted.yaml --only one --budget 0.5", fails=True)
    assert said.strip().endswith("run quoted.yaml --only one --budget AMOUNT"), "its price is not known"
    Path("assumed.yaml").write_text(quoted.replace("a cup}}", "a cup}, assume: {price: 7}}", 1))
    said = terminal.call("run assumed.yaml --only one --budget 0.5", fails=True)
    assert said.strip().endswith("run assumed.yaml --only one --budget 7.00")
    assert not rh.recorder.submissions
    terminal.call("run quoted.yaml --only one --plan quoted.json")
    assert [one.charged for one in rh.recorder.paid] == [1]
    Path("wrong.yaml").write_text(quoted.replace("a cup}}", "a cup, unchecked: {resolution: 9k}}}", 1))
    problem = terminal.call("plan wrong.yaml --quote", fails=True)
    assert "wrong.yaml:2:" in problem and "RunningHub refuses the request of one" in problem
    assert len(rh.recorder.submissions) == 1


def test_a_quote_replaces_a_price_that_can_be_higher_but_never_lowers_it(terminal: Terminal, rh: Emulator) -> None:
    picture = "model: gpt-image-2/text-to-image-official-stable, with: {prompt: a, resolution: 1k, quality: low}"
    clip = "model: rhart-video/minimax-h3-oss/fl2va, with: {prompt: a turn, duration: 5}"
    Path("dear.yaml").write_text(steps(picture=picture, clip=clip))
    said = " ".join(terminal.call("plan dear.yaml").split())
    assert "least 1.04, expected >= 1.04, most >= 1.04" in said
    assert said.count("can be higher") == 2
    said = " ".join(terminal.call("plan dear.yaml --quote").split())
    assert "least 1.04, expected >= 1.04, most >= 1.04" in said, "this preview quotes one second of the clip"
    assert said.count("can be higher") == said.count("clip: the price of rhart-video/minimax-h3-oss/fl2va can be") == 1
    Path("dear.yaml").write_text(steps(picture=picture))
    assert "most 0.29" in terminal.call("plan dear.yaml --quote")


def test_the_notice_about_an_old_model_is_one_line(terminal: Terminal) -> None:
    command = [*RH, "run", "gpt-image-1.5/text-to-image-channel-low-price", "--prompt", "a cup"]
    done = warm_process.run(command, env=os.environ)
    notice = "Deprecated; use rhart-image-g-2/text-to-image."
    assert done.stderr.strip() == f"note: gpt-image-1.5/text-to-image-channel-low-price: {notice}"


def test_the_tasks_of_a_running_run_are_cancelled_by_its_name(terminal: Terminal, start_rh: StartEmulator) -> None:
    rh = start_rh(clock="polls", polls=100_000)
    with WarmProcess([*RH, "run", "cup.yaml"], env=os.environ) as process:
        while "submitted" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        run = run_of(terminal)
        assert "Running" in terminal.call("jobs list")
        said = terminal.call(f"jobs cancel {run}")
        process.communicate(timeout=600)
    assert process.returncode == 1
    assert f"cancelled: task {rh.recorder.paid[0].task_id}" in said
    assert len(rh.recorder.paid) == 1, "a cancelled run submits no more"
    assert re.search(rf"{run} +1 job\(s\)  Failed +cup", terminal.call("jobs list"))


def test_a_block_is_refused_where_no_api_has_it(terminal: Terminal, rh: Emulator) -> None:
    for command in ("run cup.yaml --storage shelf", "plan cup.yaml --storage shelf", "run cup.yaml --credentials shop"):
        said = terminal.call(command, fails=True)
        assert "because blocks are stored in a Prefect API and PREFECT_API_URL is not set" in said
    assert not rh.recorder.submissions
