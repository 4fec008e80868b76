"""`rh-prefect init`, `check`, `explain`, `plan` and `schema`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rh_prefect.cli import app
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.works.journal.job_records import JobRecords
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.journal.shared_journal import WorksJournal
from tests.support.processes.typed_commands import Terminal
from tests.support.samples.documented_pipelines import BLOCK
from tests.support.samples.media import png

ROOT = Path(__file__).parents[2]


Call = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in an empty folder; see `Terminal.call`."""
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys).call


@pytest.fixture
def film(call: Call) -> None:
    call("init --example film")


def test_from_an_example_to_its_price(call: Call, film: None) -> None:
    assert "1 file checked: no problems" in call("check film.yaml")
    planned = call("plan film.yaml --set 'prompt=a lighthouse'")
    assert "least 3.58, expected 18.39, most 20.18 of a budget of 60" in planned


def test_check_says_what_is_worth_knowing_of_a_right_file(call: Call) -> None:
    step = "mug: {model: z-image/turbo, reuse: never, with: {prompt: a mug}}"
    Path("mug.yaml").write_text(f"budget: {{amount: 1, all_runs: true}}\nsteps:\n  {step}\n")
    assert "note: mug.yaml:1: all_runs does not limit the total cost of all rounds" in call("check mug.yaml")


def test_a_file_is_not_overwritten_and_a_wrong_example_is_named(call: Call, film: None) -> None:
    assert "film.yaml exists, and nothing was written" in call("init --example film", fails=True)
    assert "did you mean film?" in call("init --example flim", fails=True)


@pytest.mark.parametrize("to", [".", "folder", "film", "file/film.yaml"])
def test_init_says_that_a_name_is_of_no_use(call: Call, to: str) -> None:
    """It ended with a traceback; without an extension, the inputs' folder had the name of the pipeline's file."""
    Path("folder").mkdir()
    Path("file").touch()
    assert "--to" in call(f"init --example dub --to {to}", fails=True)
    assert not Path("film").exists()


@pytest.mark.parametrize("name", ["film", "score"])  # tests/test_docs.py plans those that have a page with theirs
def test_an_example_is_planned_with_its_own_inputs(call: Call, name: str) -> None:
    call(f"init --example {name} --to below/{name}.yaml")
    assert "least " in call(f"plan below/{name}.yaml --params below/{name}.params.yaml")


def test_all_problems_of_all_files_are_shown(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("steps: {a: {modle: x}}\n")
    Path("b.yaml").write_text("steps: {b: {edit: rezise}}\n")
    terminal = Terminal(capsys)
    terminal.call("check a.yaml b.yaml", fails=True)
    assert "a.yaml:1:13: modle is not a key of a step; did you mean model?" in terminal.said
    assert "b.yaml:1:19: there is no edit rezise; did you mean resize?" in terminal.said
    terminal.call("check a.yaml --json", fails=True)
    assert json.loads(terminal.said)[0]["line"] == 1


def test_a_wrong_value_is_a_problem_of_the_plan(call: Call, film: None) -> None:
    said = call("plan film.yaml --set prompt=x --set shots=40", fails=True)
    assert "film.yaml:5:3: shots takes a whole number up to 12, but 40 is more" in said
    said = call("plan film.yaml --set promt=x", fails=True)
    assert "film has no parameter promt; did you mean prompt?" in said


@pytest.mark.usefixtures("call")
def test_a_step_without_a_known_price_is_something_to_pay() -> None:
    assume = "assume: {kind: image}"
    Path("own.yaml").write_text(f"steps: {{picture: {{graph: graph.json, with: {{2.text: a mug}}, {assume}}}}}\n")
    Path("graph.json").write_text('{"2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cup"}}}')
    with pytest.raises(SystemExit) as end:
        app(["plan", "own.yaml", "--exit-code"])
    assert end.value.code == 2


def test_a_plan_is_written_for_its_owner_and_compared(call: Call, film: None) -> None:
    call("plan film.yaml --set prompt=x --out p.json --exit-code", fails=True)
    assert stat.S_IMODE(Path("p.json").stat().st_mode) == 0o600
    compare = "plan film.yaml --set prompt=y --compare p.json"
    assert "~ script  prompt:" in call(compare)
    plan = json.loads(Path("p.json").read_text())
    damaged = {"price: least": {**plan, "price": {"least": "x"}}, "steps[0]": {**plan, "steps": ["script"]}}
    texts = {name: json.dumps(one) for name, one in damaged.items()} | {"is not a plan": "[" * 100_000}
    for name, text in texts.items():
        Path("p.json").write_text(text)
        assert name.partition(":")[0] in call(compare, fails=True)


def git(*words: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
    subprocess.run(command, check=True, capture_output=True)


def test_the_recipes_for_pull_requests_show_the_difference_in_price(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [one for one in BLOCK.findall((ROOT / "docs/recipes.md").read_text()) if "--markdown" in one]
    assert [yaml.safe_load(one).keys() for one in recipes] == [{True, "permissions", "jobs"}, {"price"}]
    git("init", "--initial-branch", "main")
    call("init --example film --to pipelines/film.yaml")
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
            said = call(os.path.expandvars(command.partition(" >")[0]))
        assert "| difference | +0.04 | +0.12 | +0.12 |" in said, "the last command of each recipe is the plan"
        assert "| `shots.picture` | z-image/turbo | 3 waiting for a result | 0.24 | 0.12 |" in said
    plan = "plan pipelines/film.yaml --set prompt=x --compare"
    assert "difference: least +0.04, expected +0.24, most +0.24 CNY; steps: 0 added" in call(f"{plan} HEAD")
    for unknown in ("mian", "HEAD^{tree}"):
        assert "neither a file with a plan nor a git revision" in call(f"{plan} {unknown}", fails=True)
    file.rename("pipelines/other.yaml")
    assert "compared with main, which lacks other.yaml" in call(f"{plan.replace('film', 'other')} main")


def test_a_plan_fits_the_terminal(call: Call, film: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("plan film.yaml --set prompt=x").splitlines()
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


def test_json_pictures_and_the_schema(call: Call, film: None) -> None:
    assert json.loads(call("plan film.yaml --set prompt=x --json"))["price"]["most"] == 20.176
    assert call("plan film.yaml --set prompt=x --svg").startswith("<svg ")
    assert json.loads(call("schema film.yaml"))["title"] == "rh-prefect pipeline"


def test_parameters_from_a_file_stand_behind_those_of_the_command(call: Call, film: None) -> None:
    Path("p.yaml").write_text("prompt: from a file\nshots: 2\n")
    assert "film: 3 items in shots" in call("plan film.yaml --params p.yaml --set shots=3")


def test_a_parameter_may_be_named_file(call: Call) -> None:
    Path("own.yaml").write_text(
        "params: {file: image}\nsteps: {s: {edit: resize, with: {file: $(params.file), width: 32, height: 32}}}\n"
    )
    png(Path("p.png"))
    assert "s     resize         .  1" in call("plan own.yaml --file p.png")
    assert json.loads(call("explain own.yaml --file p.png --json"))["price"].startswith("least 0.00")


async def script_is_there(store: str) -> None:
    pipeline = Pipeline.from_file("film.yaml")
    [script] = (await pipeline.plan(prompt="x")).steps["script"]
    value = [{"picture": "p", "move": "m", "line": "l"}]
    result = ResultRecord(task_id="1", texts=(json.dumps(value),), value=value)
    await JobRecords(WorksJournal(store), script.works[0].key).create_result(result, script.shape)


def test_results_of_earlier_runs_are_found(
    call: Call, film: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "store"))
    asyncio.run(script_is_there(str(tmp_path / "store")))
    steps = json.loads(call("plan film.yaml --set prompt=x --json"))["steps"]
    assert [(step["path"], step["state"]) for step in steps[:2]] == [("script", "="), ("shots.picture", "+")]
    assert len([step for step in steps if step["path"] == "shots.picture"]) == 1


def test_a_storage_block_that_is_not_looked_into_is_noted(call: Call) -> None:
    Path("a.yaml").write_text("storage: media\nsteps: {a: {model: z-image/turbo, with: {prompt: x}}}\n")
    said = " ".join(call("plan a.yaml").split())
    assert "Results in the storage block media are not looked up; to look them up, pass --storage media." in said


def test_the_help_of_a_command_shows_the_parameters_of_its_file(call: Call) -> None:
    Path("own.yaml").write_text(
        "name: own\nparams:\n"
        "  idea: {type: string, min: 3, max: 300, description: '[bold] What it shows'}\n"
        "  count: {type: integer, min: 1, max: 12, default: 6}\n"
        "  photo: {type: image, max_mb: 5, optional: true}\n"
        "  rows: {type: table, columns: {sku: string, photo: {type: image, optional: true}}}\n"
        "steps: {voice: {model: minimax/speech-2.8-hd, with: {text: $(params.idea)}}}\n"
        "outputs: {voice: $(voice)}\n"
    )
    for command in ("run own.yaml --help", "plan --help own.yaml", "run --sample 1 own.yaml --help"):
        said = " ".join(call(command).replace("│", " ").split())
        assert "Parameters of own, as --NAME VALUE" in said
        assert "* idea [bold] What it shows. A text of 3 to 300 characters. [required]" in said
        assert "count A whole number from 1 to 12. Default: 6." in said
        assert "photo A path, URI or link of a file of type image, up to 5 MB. It may be left out." in said
        assert "with the columns sku (string), photo (image, optional). [required]" in said
        assert "Outputs of own" in said
        assert "voice minimax/speech-2.8-hd: 0.62 CNY per 1000 characters" in said
        assert "one run depends on rows: pass --rows" in said
    assert "Parameters of own" not in call("run --params own.yaml --help")
    Path("rows.jsonl").write_text('{"sku": "a"}')
    told = json.loads(call("explain own.yaml --set rows=rows.jsonl --json"))
    assert told["params"]["count"] == {
        "type": "integer",
        "min": 1,
        "max": 12,
        "default": 6,
        "description": "A whole number from 1 to 12. Default: 6.",
        "required": False,
    }
    assert told["price"] == "least 0.00, expected 0.00, most 0.00 CNY"
