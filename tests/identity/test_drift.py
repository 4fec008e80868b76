"""What changes between a crash and its resume: the program, its surroundings, its records."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from rh_prefect.catalog import registry
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.media.store import MediaStore
from rh_prefect.works.manual_repair import recover
from tests.identity.harness import Form, Shape, Stage, World
from tests.support.samples import media as samples

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.timeout(1800)]

both_forms = pytest.mark.parametrize("form", ["sync", "async"])

INTRO, AINTRO = 'intro = made(first("an intro"))', 'intro = await generate(first("an intro"))'
WRAP = ((INTRO, "intro = opening()"), (AINTRO, "intro = await aopening()"))
RENAME = (
    ("def scene(", "def shot("),
    ("_scenes(scene)", "_scenes(shot)"),
    ("ascene(", "ashot("),
    ("(ascene)", "(ashot)"),
)
DEFAULT = (("shot(name: int)", 'shot(name: int, mood: str = "calm")'),)
INSERT = (
    (INTRO, f'more = made(first("an intro"))\n    {INTRO}'),
    (AINTRO, f'more = await generate(first("an intro"))\n    {AINTRO}'),
)
CORRECT = (
    ('more = made(first("an intro"))', 'more = made(first("an intro"), take=2)'),
    ('more = await generate(first("an intro"))', 'more = await generate(first("an intro"), take=2)'),
)


@both_forms
def test_an_editor_s_day(world: World, tmp_path: Path, form: Form) -> None:
    """A task is renamed, a call is wrapped, a default is added, each before a resume: nothing is paid again."""
    edits = {2: RENAME, 3: WRAP, 4: DEFAULT}
    shape = Shape("an editor's day", "drift.py", 7, edits=edits, breaks=("exit", "raise", "exit", ""))
    world.check(shape, form, tmp_path)


@both_forms
def test_an_equal_call_inserted_before_the_old_one(world: World, tmp_path: Path, form: Form) -> None:
    """It is refused before it pays, and paid for when it says `take=2`."""
    edits = {2: INSERT, 3: CORRECT}
    shape = Shape("an equal call inserted before", "drift.py", 8, edits=edits, refused={2: "take=2"})
    world.check(shape, form, tmp_path)


def _other_default(stage: Stage, number: int) -> None:
    """A newer catalogue of this user, in which parameters have other defaults."""
    if number != 2:
        return
    content = json.loads(registry.SLIM_FILE.read_bytes())
    content["version"] = "2099-01-01"
    text = json.dumps(content)
    changed = json.loads(text)
    for model in changed["models"]:
        if model["endpoint"] in ("rhart-image/z-image/turbo", "rhart-image/z-image-turbo/image-to-image"):
            _change_defaults(model)
    assert changed != content
    (stage.folder / "state").mkdir(exist_ok=True)
    (stage.folder / "state" / "models.json").write_text(json.dumps(changed), encoding="utf-8")


def _change_defaults(model: dict[str, object]) -> None:
    params = model["params"]
    assert isinstance(params, list)
    for param in params:
        options = param.get("options") or param.get("choices") or []
        if param.get("default") in options:
            param["default"] = next(one for one in options if one != param["default"])


@both_forms
def test_a_catalogue_with_another_default(world: World, tmp_path: Path, form: Form) -> None:
    """A newer catalogue with another default leaves the jobs what they are."""
    shape = Shape("a catalogue with another default", "default.py", 2, change=_other_default)
    world.check(shape, form, tmp_path)


def _other_mount(stage: Stage, number: int) -> None:
    """The same file below another folder in each attempt."""
    before, now = (stage.folder / f"mount-{one}" for one in (number - 1, number))
    shutil.rmtree(before, ignore_errors=True)
    now.mkdir()
    photo = samples.png(now / "photo.png", text="mounted")
    (stage.files / "mount").write_text(str(photo))


@both_forms
def test_another_mount(world: World, tmp_path: Path, form: Form) -> None:
    """A file that lies elsewhere in each attempt is the same file."""
    shape = Shape("another mount", "mount.py", 2, change=_other_mount)
    world.check(shape, form, tmp_path)


def _restored(stage: Stage, number: int) -> None:
    """Prefect's database from before the first claim: the run is there, and none of its records."""
    if number == 2:
        asyncio.run(_delete_inputs(UUID(stage.run_id)))
    if number == 3:
        recovered = asyncio.run(recover(FlowRunJournal(stage.run_id), MediaStore(stage.folder / "out")))
        assert len(recovered) == 2


async def _delete_inputs(run: UUID) -> None:
    async with get_client() as client:
        found = await client.filter_flow_run_input(run, key_prefix="", limit=200, exclude_keys=set())
        assert found, "the records of a run are inputs of its flow run"
        for one in found:
            await client.delete_flow_run_input(run, one.key)


@both_forms
def test_a_restored_backup(world: World, tmp_path: Path, form: Form) -> None:
    """Records that are older than the run are noticed, and `jobs recover` has the stored results tell what was paid."""
    shape = Shape("a restored backup", "default.py", 2, change=_restored, refused={2: "jobs recover"})
    world.check(shape, form, tmp_path)
