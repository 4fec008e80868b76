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

from rh_prefect.cli import app
from rh_prefect.local_files import overwrite
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.works.journal.job_records_and_state import JobRecords
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.journal.works_journal import WorksJournal
from tests.support.doc_pages import blocks
from tests.support.each_case import each_case
from tests.support.processes.typed_commands import Terminal
from tests.support.samples.media import png
from tests.support.samples.steps import PICTURE, RESIZE, group, steps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def film(terminal: Terminal) -> None:
    terminal.call("init --example film")


FILES = {
    "each-round.yaml": "budget: {amount: 1, all_runs: true}\n" + steps(mug=PICTURE % "a mug" + ", reuse: never"),
    "block.yaml": "storage: media\n" + steps(a=PICTURE % "x"),
    "wrong-a.yaml": steps(a="modle: x"),
    "wrong-b.yaml": steps(b="edit: rezise"),
    "params.yaml": "prompt: from a file\nshots: 2\n",
    "graph.json": '{"2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cup"}}}',
    "unpriced.yaml": steps(a="graph: graph.json, with: {2.text: a mug}, assume: {kind: image}"),
}
SAID = [
    ("check each-round.yaml", "note: each-round.yaml:1: all_runs does not limit the total cost of all rounds"),
    ("plan block.yaml", "Results in the storage block media are not looked up; to look them up, pass --storage media."),
    ("plan film.yaml --params params.yaml --set shots=3", "film: 3 items in shots"),
]
REFUSED = [
    ("init --example film", "film.yaml exists already. Nothing was written"),
    ("init --example flim", "did you mean film?"),
    ("check wrong-a.yaml wrong-b.yaml", "wrong-a.yaml:2:7: modle is not a key of a step; did you mean model?"),
    ("check wrong-a.yaml wrong-b.yaml", "wrong-b.yaml:2:13: there is no edit rezise; did you mean resize?"),
    ("check wrong-a.yaml missing.yaml --json", '"line": 2'),
    ("check wrong-a.yaml missing.yaml --json", '"file": "missing.yaml"'),
    (
        "plan film.yaml --set prompt=x --set shots=40",
        "film.yaml:5:3: shots takes a whole number of at most 12, but 40 is",
    ),
    ("plan film.yaml --set promt=x", "film has no parameter promt; did you mean prompt?"),
]


@pytest.mark.usefixtures("film")
def test_each_command_says_what_it_found(terminal: Terminal) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    with each_case() as case:
        for command, said, fails in [(*one, False) for one in SAID] + [(*one, True) for one in REFUSED]:
            with case(command):
                terminal.call(command, fails=fails)
                assert said in " ".join(terminal.said.split())
        with case("a step without a known price is something to pay"):
            with pytest.raises(SystemExit) as end:
                app(["plan", "unpriced.yaml", "--exit-code"])
            assert end.value.code == 2


@pytest.mark.parametrize("to", [".", "folder", "film", "file/film.yaml"])
def test_init_says_that_a_name_is_of_no_use(terminal: Terminal, to: str) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    assert "--to" in terminal.call(f"init --example dub --to {to}", fails=True)
    assert not Path("film").exists()


# tests/test_docs.py plans those that have a page with theirs.
@pytest.mark.parametrize("name", ["film", pytest.param("score", marks=pytest.mark.long)])
def test_an_example_is_planned_with_its_own_inputs(terminal: Terminal, name: str) -> None:
    terminal.call(f"init --example {name} --to below/{name}.yaml")
    assert "least " in terminal.call(f"plan below/{name}.yaml --params below/{name}.params.yaml")


def test_a_file_of_parameters_may_have_many_values(terminal: Terminal) -> None:
    Path("own.yaml").write_text("params: {words: list}\n" + steps(a="edit: join_text, with: {texts: $(params.words)}"))
    Path("many.json").write_text(json.dumps({"words": ["a word"] * 21_000}))
    terminal.call("plan own.yaml --params many.json")


def test_a_plan_is_written_for_its_owner_and_compared(terminal: Terminal, film: None) -> None:
    terminal.call("plan film.yaml --set prompt=x --out p.json --exit-code", fails=True)
    assert stat.S_IMODE(Path("p.json").stat().st_mode) == 0o600
    compare = "plan film.yaml --set prompt=y --compare p.json"
    assert "~ script  prompt:" in terminal.call(compare)
    plan = json.loads(Path("p.json").read_text())
    damaged = {"price: least": {**plan, "price": {"least": "x"}}, "steps[0]": {**plan, "steps": ["script"]}}
    texts = {name: json.dumps(one) for name, one in damaged.items()} | {"is not a plan": "[" * 100_000}
    for name, text in texts.items():
        Path("p.json").write_text(text)
        assert name.partition(":")[0] in terminal.call(compare, fails=True)


def test_a_plan_that_is_written_to_a_pipe_changes_no_permission(terminal: Terminal, film: None) -> None:
    """As root, `--out /dev/null` closed this device to all other users."""
    os.mkfifo("pipe")
    Path("pipe").chmod(0o644)
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    terminal.call("plan film.yaml --set prompt=x --out pipe")
    assert os.read(reader, 100).startswith(b"{")
    assert stat.S_IMODE(Path("pipe").stat().st_mode) == 0o644
    os.close(reader)


def test_a_file_of_another_user_is_refused_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of a colleague, in a file that everybody may write, was emptied and then refused."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o711)
    Path("plan.json").write_text("the reviewed plan")
    Path("plan.json").chmod(0o666)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            overwrite(Path("plan.json"))
    finally:
        os.seteuid(0)
    assert Path("plan.json").read_text() == "the reviewed plan"


def git(*words: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
    subprocess.run(command, check=True, capture_output=True)


def test_the_recipes_for_pull_requests_compare_the_price(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [one for one in blocks(ROOT / "docs/recipes.md", "yaml") if "--markdown" in one]
    assert [yaml.safe_load(one).keys() for one in recipes] == [{True, "permissions", "jobs"}, {"price"}]
    git("init", "--initial-branch", "main")
    terminal.call("init --example film --to pipelines/film.yaml")
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
            said = terminal.call(os.path.expandvars(command.partition(" >")[0]))
        assert "| difference | +0.04 | +0.12 | +0.12 |" in said, "the last command of each recipe is the plan"
        assert "| `shots.picture` | z-image/turbo | 3 waiting for a result | 0.24 | 0.12 |" in said
    plan = "plan pipelines/film.yaml --set prompt=x --compare"
    assert "difference: least +0.04, expected +0.24, most +0.24 CNY; steps: 0 added" in terminal.call(f"{plan} HEAD")
    for unknown in ("mian", "HEAD^{tree}"):
        assert "neither a plan file nor a git revision" in terminal.call(f"{plan} {unknown}", fails=True)
    file.rename("pipelines/other.yaml")
    assert "compared with main, which lacks other.yaml" in terminal.call(f"{plan.replace('film', 'other')} main")


def test_a_plan_fits_the_terminal(terminal: Terminal, film: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = terminal.call("plan film.yaml --set prompt=x").splitlines()
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


def test_prices_json_pictures_and_the_schema(terminal: Terminal, film: None) -> None:
    assert "1 file checked: no problems" in terminal.call("check film.yaml")
    planned = terminal.call("plan film.yaml --set 'prompt=a lighthouse'")
    assert "least 3.58, expected 18.39, most 20.18 of a budget of 60" in planned
    assert terminal.json("plan film.yaml --set prompt=x")["price"]["most"] == 20.176
    assert terminal.call("plan film.yaml --set prompt=x --svg").startswith("<svg ")
    assert json.loads(terminal.call("schema film.yaml"))["title"] == "rh-prefect pipeline"


def test_a_parameter_may_be_named_file(terminal: Terminal) -> None:
    Path("own.yaml").write_text("params: {file: image}\n" + steps(s=RESIZE % "$(params.file)"))
    png(Path("p.png"))
    assert "s     resize         .  1" in terminal.call("plan own.yaml --file p.png")
    assert terminal.json("explain own.yaml --file p.png")["price"].startswith("least 0.00")


def test_a_parameter_without_an_option_is_refused_with_the_option(terminal: Terminal) -> None:
    said = terminal.call("plan upscale videos=a.mp4 'note=a\tpier'", fails=True)
    assert said.endswith("What to do: use --set videos=a.mp4 --set 'note=a\tpier'; see `rh-prefect plan --help`.\n")
    assert said.count("\n") == 1, "a command that is copied from two lines is two commands"
    assert "What to do: correct the command" in terminal.call("spend a=b", fails=True)


def test_a_parameter_that_is_set_several_times_is_a_list(terminal: Terminal) -> None:
    each = group("foreach: $(params.moods)", s=PICTURE % "$(item)")
    Path("own.yaml").write_text("params: {moods: list}\n" + steps(each=each))
    for words in ("--set moods=calm --set 'moods=wild, warm'", "--moods calm --moods 'wild, warm'"):
        plan = terminal.json(f"plan own.yaml {words}")
        assert [step["request"]["prompt"] for step in plan["steps"]] == ["calm", "wild, warm"]


async def script_is_there(store: str) -> None:
    pipeline = Pipeline.from_file("film.yaml")
    [script] = (await pipeline.plan(prompt="x")).steps["script"]
    value = [{"picture": "p", "move": "m", "line": "l"}]
    result = ResultRecord(task_id="1", texts=(json.dumps(value),), value=value)
    await JobRecords(WorksJournal(store), script.works[0].key).create_result(result, script.shape)


def test_results_of_earlier_runs_are_found(
    terminal: Terminal, film: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "store"))
    asyncio.run(script_is_there(str(tmp_path / "store")))
    steps = terminal.json("plan film.yaml --set prompt=x")["steps"]
    assert [(step["path"], step["state"]) for step in steps[:2]] == [("script", "="), ("shots.picture", "+")]
    assert len([step for step in steps if step["path"] == "shots.picture"]) == 1


def test_the_help_of_a_command_shows_the_parameters_of_its_file(terminal: Terminal) -> None:
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
        said = " ".join(terminal.call(command).replace("│", " ").split())
        assert "Parameters of own, as --NAME VALUE" in said
        assert "* idea [bold] What it shows. A string of 3 to 300 characters. [required]" in said
        assert "count A whole number from 1 to 12. Default: 6." in said
        assert "photo The path, URI or link of a file of type image, up to 5 MB. Optional." in said
        assert "with the columns sku (string), photo (image, optional). [required]" in said
        assert "Outputs of own" in said
        assert "voice minimax/speech-2.8-hd: 0.62 CNY per 1000 characters" in said
        assert "one run depends on rows: pass --rows" in said
    assert "Parameters of own" not in terminal.call("run --params own.yaml --help")
    Path("rows.jsonl").write_text('{"sku": "a"}')
    told = terminal.json("explain own.yaml --set rows=rows.jsonl")
    assert told["params"]["count"] == {
        "type": "integer",
        "min": 1,
        "max": 12,
        "default": 6,
        "description": "A whole number from 1 to 12. Default: 6.",
        "required": False,
    }
    assert told["price"] == "least 0.00, expected 0.00, most 0.00 CNY"
