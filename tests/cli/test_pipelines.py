"""`rh-prefect init`, `check`, `explain`, `plan` and `schema`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from rh_prefect.cli import app, main
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.works.journal.job_records import JobRecords
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.journal.works_journal import WorksJournal
from tests.support.samples.documented_pipelines import BLOCK

ROOT = Path(__file__).parents[2]


def call(*words: str) -> int:
    try:
        main(lambda: app(list(words)))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_an_example_to_its_price(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--example", "film") == 0
    assert call("check", "film.yaml") == 0
    assert call("plan", "film.yaml", "--set", "prompt=a lighthouse") == 0
    said = capsys.readouterr().out
    assert "1 file checked: no problems" in said
    assert "least 3.58, expected 18.39, most 20.18 of a budget of 60" in said


def test_check_says_what_is_worth_knowing_of_a_right_file(capsys: pytest.CaptureFixture[str]) -> None:
    step = "mug: {model: z-image/turbo, reuse: never, with: {prompt: a mug}}"
    Path("mug.yaml").write_text(f"budget: {{amount: 1, all_runs: true}}\nsteps:\n  {step}\n")
    assert call("check", "mug.yaml") == 0
    assert "note: mug.yaml:1: all_runs does not limit what all rounds cost together" in capsys.readouterr().out


def test_a_file_is_not_overwritten_and_a_wrong_example_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--example", "film") == 0
    assert call("init", "--example", "film") == 1
    assert "film.yaml exists, and nothing was written" in capsys.readouterr().err
    assert call("init", "--example", "flim") == 1
    assert "did you mean film?" in capsys.readouterr().err


@pytest.mark.parametrize("to", [".", "folder", "film", "file/film.yaml"])
def test_init_says_that_a_name_is_of_no_use(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It ended with a traceback; without an extension, the inputs' folder had the name of the pipeline's file."""
    Path("folder").mkdir()
    Path("file").touch()
    assert call("init", "--example", "dub", "--to", to) == 1
    assert "--to" in capsys.readouterr().err
    assert not Path("film").exists()


@pytest.mark.parametrize("name", ["film", "score"])  # tests/test_docs.py plans those that have a page with theirs
def test_an_example_is_planned_with_its_own_inputs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--example", name, "--to", f"below/{name}.yaml") == 0
    assert call("plan", f"below/{name}.yaml", "--params", f"below/{name}.params.yaml") == 0
    assert "least " in capsys.readouterr().out


def test_all_problems_of_all_files_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("steps: {a: {modle: x}}\n")
    Path("b.yaml").write_text("steps: {b: {edit: rezise}}\n")
    assert call("check", "a.yaml", "b.yaml") == 1
    said = capsys.readouterr().out
    assert "a.yaml:1:13: modle is not a key of a step; did you mean model?" in said
    assert "b.yaml:1:19: there is no edit rezise; did you mean resize?" in said
    assert call("check", "a.yaml", "--json") == 1
    assert json.loads(capsys.readouterr().out)[0]["line"] == 1


def test_a_wrong_value_is_a_problem_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    call("init", "--example", "film")
    assert call("plan", "film.yaml", "--set", "prompt=x", "--set", "shots=40") == 1
    assert "film.yaml:5:3: shots takes a whole number up to 12, and 40 is more" in capsys.readouterr().err
    assert call("plan", "film.yaml", "--set", "promt=x") == 1
    assert "film has no parameter promt; did you mean prompt?" in capsys.readouterr().err


def test_a_step_without_a_known_price_is_something_to_pay() -> None:
    assume = "assume: {kind: image}"
    Path("own.yaml").write_text(f"steps: {{picture: {{graph: graph.json, with: {{2.text: a mug}}, {assume}}}}}\n")
    Path("graph.json").write_text('{"2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cup"}}}')
    assert call("plan", "own.yaml", "--exit-code") == 2


def test_a_plan_is_written_for_its_owner_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    call("init", "--example", "film")
    assert call("plan", "film.yaml", "--set", "prompt=x", "--out", "p.json", "--exit-code") == 2
    assert stat.S_IMODE(Path("p.json").stat().st_mode) == 0o600
    capsys.readouterr()
    assert call("plan", "film.yaml", "--set", "prompt=y", "--compare", "p.json") == 0
    assert "~ script  prompt:" in capsys.readouterr().out
    plan = json.loads(Path("p.json").read_text())
    damaged = {"price: least": {**plan, "price": {"least": "x"}}, "steps[0]": {**plan, "steps": ["script"]}}
    texts = {name: json.dumps(one) for name, one in damaged.items()} | {"is not a plan": "[" * 100_000}
    for name, text in texts.items():
        Path("p.json").write_text(text)
        assert call("plan", "film.yaml", "--set", "prompt=y", "--compare", "p.json") == 1
        assert name.partition(":")[0] in capsys.readouterr().err


def git(*words: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
    subprocess.run(command, check=True, capture_output=True)


def test_the_recipes_for_pull_requests_show_the_difference_in_price(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [one for one in BLOCK.findall((ROOT / "docs/recipes.md").read_text()) if "--markdown" in one]
    assert [yaml.safe_load(one).keys() for one in recipes] == [{True, "permissions", "jobs"}, {"price"}]
    git("init", "--initial-branch", "main")
    call("init", "--example", "film", "--to", "pipelines/film.yaml")
    Path("pipelines/elsewhere").symlink_to("/etc/hosts")
    git("add", ".")
    git("commit", "-m", "A film")
    git("remote", "add", "origin", str(Path.cwd()))
    git("fetch", "origin", "main")
    file = Path("pipelines/film.yaml")
    file.write_text(file.read_text().replace("takes: $(params.pictures)", "takes: 2"))
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    for recipe in recipes:
        for command in re.findall(r"rh-prefect (.*)", recipe):
            capsys.readouterr()
            assert call(*shlex.split(os.path.expandvars(command.partition(" >")[0]))) == 0
        said = capsys.readouterr().out
        assert "| difference | +0.04 | +0.12 | +0.12 |" in said, "the last command of each recipe is the plan"
        assert "| `shots.picture` | z-image/turbo | 3 waiting for a result | 0.24 | 0.12 |" in said
    assert call("plan", "pipelines/film.yaml", "--set", "prompt=x", "--compare", "HEAD") == 0
    assert "difference: least +0.04, expected +0.24, most +0.24 CNY; steps: 0 added" in capsys.readouterr().out
    assert call("plan", "pipelines/film.yaml", "--set", "prompt=x", "--compare", "mian") == 1
    assert "neither a file with a plan nor a git revision" in capsys.readouterr().err
    assert call("plan", "pipelines/film.yaml", "--set", "prompt=x", "--compare", "HEAD^{tree}") == 1
    assert "neither a file with a plan nor a git revision" in capsys.readouterr().err
    file.rename("pipelines/other.yaml")
    assert call("plan", "pipelines/other.yaml", "--set", "prompt=x", "--compare", "main") == 0
    assert "compared with main, which lacks other.yaml" in capsys.readouterr().out


def test_a_plan_fits_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    call("init", "--example", "film")
    monkeypatch.setenv("COLUMNS", "60")
    capsys.readouterr()
    assert call("plan", "film.yaml", "--set", "prompt=x") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "  step           model or edit   =  +  >  x  expected   most" in lines
    assert "  shots.motion   kling-v…-video  .  .  6  .     10.50  10.50" in lines


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(app.generate_completion(shell="bash"))
    for words, expected in {("pl",): "plan", ("plan", "--qu"): "--quote", ("models", "sh"): "show"}.items():
        typed = shlex.join(["rh-prefect", *words])
        command = f'. {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _rh_prefect; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
        assert done.stdout.split() == [expected]


def test_json_pictures_and_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    call("init", "--example", "film")
    capsys.readouterr()
    assert call("plan", "film.yaml", "--set", "prompt=x", "--json") == 0
    assert json.loads(capsys.readouterr().out)["price"]["most"] == 20.176
    assert call("plan", "film.yaml", "--set", "prompt=x", "--svg") == 0
    assert capsys.readouterr().out.startswith("<svg ")
    assert call("schema", "film.yaml") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "rh-prefect pipeline"


def test_parameters_from_a_file_stand_behind_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    call("init", "--example", "film")
    Path("p.yaml").write_text("prompt: from a file\nshots: 2\n")
    assert call("plan", "film.yaml", "--params", "p.yaml", "--set", "shots=3") == 0
    assert "film: 3 items in shots" in capsys.readouterr().out


async def script_is_there(store: str) -> None:
    pipeline = Pipeline.from_file("film.yaml")
    [script] = (await pipeline.plan(prompt="x")).steps["script"]
    value = [{"picture": "p", "move": "m", "line": "l"}]
    result = ResultRecord(task_id="1", texts=(json.dumps(value),), value=value)
    await JobRecords(WorksJournal(store), script.works[0].key).create_result(result, script.shape)


def test_results_of_earlier_runs_are_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("init", "--example", "film")
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "store"))
    asyncio.run(script_is_there(str(tmp_path / "store")))
    capsys.readouterr()
    assert call("plan", "film.yaml", "--set", "prompt=x", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["path"], step["state"]) for step in steps[:2]] == [("script", "="), ("shots.picture", "+")]
    assert len([step for step in steps if step["path"] == "shots.picture"]) == 1


def test_a_storage_block_that_is_not_looked_into_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("storage: media\nsteps: {a: {model: z-image/turbo, with: {prompt: x}}}\n")
    assert call("plan", "a.yaml") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Results in the storage block media are not looked up; to look them up, pass --storage media." in said


def test_the_help_of_a_command_shows_the_parameters_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.yaml").write_text(
        "name: own\nparams:\n"
        "  idea: {type: string, min: 3, max: 300, description: '[bold] What it shows'}\n"
        "  count: {type: integer, min: 1, max: 12, default: 6}\n"
        "  photo: {type: image, max_mb: 5, optional: true}\n"
        "  rows: {type: table, columns: {sku: string, photo: {type: image, optional: true}}}\n"
        "steps: {voice: {model: minimax/speech-2.8-hd, with: {text: $(params.idea)}}}\n"
        "outputs: {voice: $(voice)}\n"
    )
    for words in (["run", "own.yaml", "--help"], ["plan", "--help", "own.yaml"], ["run", "--sample", "1", "own.yaml"]):
        assert call(*words, *([] if "--help" in words else ["--help"])) == 0
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "Parameters of own, as --NAME VALUE" in said
        assert "* idea [bold] What it shows. A text of 3 to 300 characters. [required]" in said
        assert "count A whole number from 1 to 12. Default: 6." in said
        assert "photo A path, URI or link of a file of type image, up to 5 MB. It may be left out." in said
        assert "with the columns sku (string), photo (image, optional). [required]" in said
        assert "Outputs of own" in said
        assert "voice minimax/speech-2.8-hd: 0.62 CNY per 1000 characters" in said
        assert "one run depends on rows: pass --rows" in said
    call("run", "--params", "own.yaml", "--help")
    assert "Parameters of own" not in capsys.readouterr().out
    Path("rows.jsonl").write_text('{"sku": "a"}')
    assert call("explain", "own.yaml", "--set", "rows=rows.jsonl", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["params"]["count"] == {
        "type": "integer",
        "min": 1,
        "max": 12,
        "default": 6,
        "description": "A whole number from 1 to 12. Default: 6.",
        "required": False,
    }
    assert told["price"] == "least 0.00, expected 0.00, most 0.00 CNY"
