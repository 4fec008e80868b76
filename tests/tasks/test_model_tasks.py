"""One task per model: what it shows, what it takes, and that it is the same paid path as `generate`."""

from __future__ import annotations

import ast
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import pytest
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ParameterBindError

from rh_prefect import catalog, models
from rh_prefect.catalog import Model
from rh_prefect.catalog.model import RUN_OPTIONS, decode_model
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError
from rh_prefect.tasks import generate, model_tasks
from rh_prefect.tasks.model_task_builder import Omitted, build, options, signature
from rh_prefect.works.job_options import JobOptions
from rh_prefect.works.result import Result
from tests.support.processes import warm_process
from tests.support.samples import media as samples
from tests.support.samples.each_model import for_each_model

ROOT = Path(__file__).parents[2]
KLING = model_tasks.kling_v2_6_pro_image_to_video


def parameters(task: object) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(task).parameters)  # type: ignore[arg-type]  # a task is called like a function


def test_a_signature_shows_choices_defaults_and_options() -> None:
    shown = parameters(KLING)
    assert {param.kind for param in shown.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert shown["duration"].annotation == Literal["5", "10"]
    assert str(shown["duration"]).endswith("= '5'")
    assert shown["duration"].default == "5"
    assert shown["prompt"].default is inspect.Parameter.empty
    assert (shown["prompt"].annotation, shown["negative_prompt"].annotation) == (str, str | None)
    assert shown["negative_prompt"].default is None
    assert inspect.signature(KLING).return_annotation is Result


@for_each_model
def test_every_task_takes_its_models_parameters_and_the_options_of_generate(model: Model) -> None:
    task = getattr(model_tasks, model.snake_name)
    shown = parameters(task)
    own = [name for name in parameters(generate.fn) if name != "request"]
    assert list(shown) == [*(param.name for param in model.params), "unchecked", *own]
    for name in own:
        assert shown[name].default == parameters(generate.fn)[name].default
    for param in model.params:
        required = param.required and param.default is None
        assert (shown[param.name].default is inspect.Parameter.empty) == required
    for said in (model.name, model.endpoint, str(model.price or "not published"), *(f"\n    {name}: " for name in own)):
        assert said in task.__doc__
    assert all(f"\n    {param.name}: " in task.__doc__ for param in model.params)
    assert (task.name, task.fn.__name__, task.cache_policy) == (model.name, model.snake_name, NO_CACHE)
    assert (task.retries, task.retry_condition_fn) == (generate.retries, generate.retry_condition_fn)


def test_names_that_a_task_needs_itself_are_the_options_of_generate() -> None:
    assert tuple(options()) == RUN_OPTIONS


def test_a_parameter_that_is_called_like_an_option_gets_another_name() -> None:
    keys = ["label", "take", "scope", "storage", "waitFor", "returnState", "prompt"]
    raw = {"name": "a/b", "endpoint": "a/b", "output": "image", "family": "f"}
    model = decode_model({**raw, "params": [{"key": key, "type": "string"} for key in keys]})
    names = [param.name for param in model.params]
    assert names == ["label_", "take_", "scope_", "storage_", "wait_for_", "return_state_", "prompt"]
    assert list(inspect.signature(build(model)).parameters) == [*names, "unchecked", *RUN_OPTIONS]
    assert catalog.read_parameters(model, {"label_": "one", "scope_": "two"}).sent == {"label": "one", "scope": "two"}


def test_tasks_are_built_on_first_use_and_once() -> None:
    code = (
        "from rh_prefect import catalog\nfrom rh_prefect.tasks import model_tasks\n"
        "assert len(dir(model_tasks)) == len(catalog.models())\n"
        "assert not [name for name in vars(model_tasks) if name in dir(model_tasks)]\n"
        "assert model_tasks.z_image_turbo is model_tasks.z_image_turbo\n"
        "assert [name for name in vars(model_tasks) if name in dir(model_tasks)] == ['z_image_turbo']\n"
    )
    done = warm_process.run(["-c", code])
    assert done.returncode == 0, done.stderr
    with ThreadPoolExecutor(8) as pool:
        assert len({id(task) for task in pool.map(lambda _: model_tasks.seedream_v4_text_to_image, range(32))}) == 1


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(AttributeError, match="kling_v2_6_pro_image_to_video"):
        model_tasks.kling_v2_6_pro_image_to_vide  # type: ignore[attr-defined]  # noqa: B018  # the access is the test
    assert not hasattr(model_tasks, "__path__")


def test_a_task_and_its_variants_survive_the_way_to_another_process(tmp_path: Path) -> None:
    pickled = cloudpickle.dumps((KLING, KLING.with_options(retries=7)))
    (tmp_path / "tasks.pickle").write_bytes(pickled)
    code = (
        "import inspect, pathlib, pickle, sys\n"
        "task, variant = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "from rh_prefect.tasks import model_tasks\n"
        "here = model_tasks.kling_v2_6_pro_image_to_video\n"
        "assert (task.name, task.retries) == (here.name, here.retries)\n"
        "assert variant.retries == 7 and variant.task_run_name({'prompt': 'x'}) == task.name + ' (x)'\n"
        "assert inspect.signature(variant.fn) == inspect.signature(here.fn)\n"
    )
    done = warm_process.run(["-c", code, tmp_path / "tasks.pickle"])
    assert done.returncode == 0, done.stderr
    assert len(pickled) < 20_000  # the catalogue is not in it


async def test_a_call_is_the_same_work_as_through_generate(rh: Emulator) -> None:
    first = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="one", label="dawn")
    assert Path(first.first_output.uri).name.startswith("dawn-")
    assert await model_tasks.z_image_turbo.fn(prompt="a lighthouse", scope="one", label="dawn") == first
    other = await model_tasks.z_image_turbo.fn(prompt="a lighthouse", scope="one", take=2)
    assert (await model_tasks.z_image_turbo.fn(prompt="a lighthouse", scope="three", reuse="always")).reused
    assert [one.task_id for one in rh.recorder.paid] == [first.task_id, other.task_id]


def test_a_default_is_told_from_the_same_value_given() -> None:
    default = inspect.signature(KLING).parameters["duration"].default
    assert isinstance(default, Omitted)
    assert default == "5"
    assert repr(default) == "'5'"
    assert pickle.loads(pickle.dumps(default)) == default == Omitted("5") != "10"
    assert hash(default) == hash(Omitted("5"))


async def test_what_was_given_is_sent_even_where_it_is_the_default(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    task = model_tasks.wan_2_7_image_to_video
    optional = next(p for p in catalog.get("wan-2.7/image-to-video").params if not p.required and p.default is not None)
    await task.fn(prompt="waves", first_image_url=photo, scope="s")
    given: dict[str, Any] = {optional.name: optional.wire_default}
    await task.fn(prompt="waves", first_image_url=photo, scope="s", **given)
    assert [optional.key in row.payload for row in rh.recorder.paid] == [False, True]


async def test_more_parameters_are_sent_unchecked_where_the_published_list_is_incomplete(rh: Emulator) -> None:
    (model, *_) = (model for model in catalog.models() if model.incomplete and not model.media_params)
    task, given = getattr(model_tasks, model.snake_name), catalog.example(model)
    with pytest.raises(InputError, match="camera is not a parameter"):
        await task.fn(**given, camera="up", scope="s")
    assert not rh.recorder.requests
    await task.fn(**given, unchecked={"camera": "up"}, scope="s")
    assert rh.recorder.paid[0].payload["camera"] == "up"


@pytest.mark.prefect
async def test_in_a_task_run_what_is_missing_is_refused_by_its_name(rh: Emulator) -> None:
    with pytest.raises(ParameterBindError, match="prompt"):
        await KLING(image_url="a.png", scope="s")  # type: ignore[call-arg]  # what a type checker sees, too
    assert not rh.recorder.requests


def fields(text: str) -> dict[str, dict[str, tuple[ast.expr, ast.expr | None]]]:
    """The annotation and the default of each field of each class of a stub."""
    classes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    return {
        node.name: {ast.unparse(f.target): (f.annotation, f.value) for f in node.body if isinstance(f, ast.AnnAssign)}
        for node in classes
    }


def test_the_stubs_have_the_very_signatures_of_the_tasks() -> None:
    """A task of the stub takes the fields of the model's class, and those of the options."""
    package = ROOT / "rh_prefect"
    inputs = fields((package / "models.pyi").read_text(encoding="utf-8"))
    text = (package / "tasks" / "model_tasks.pyi").read_text(encoding="utf-8")
    for name, (_, default) in fields(text)["_Options"].items():
        assert default is not None
        assert ast.literal_eval(default) == options()[name].default, name
    assert {*fields(text)["_Options"]} == {*options()} == {*JobOptions.__annotations__, "scope"}
    for model in catalog.models():
        name = model.class_name
        assert f"class _{name}(_Options, models.{name}): ...\n{model.snake_name} = _task(_{name})\n" in text
        real, written = signature(model).parameters, inputs[name]
        assert [*written, *options()] == list(real)
        for param in model.params:
            annotation, default = written[param.name]
            wanted = real[param.name]
            assert (default is None) == (wanted.default is inspect.Parameter.empty)
            if default is not None and not ast.unparse(annotation).startswith("Given["):
                assert wanted.default == ast.literal_eval(default)
            if getattr(wanted.annotation, "__origin__", None) is Literal:
                assert eval(ast.unparse(annotation), {"Literal": Literal}) == wanted.annotation


def test_the_stubs_are_small_enough_for_an_editor() -> None:
    package = ROOT / "rh_prefect"
    sizes = [path.stat().st_size for path in (package / "models.pyi", package / "tasks" / "model_tasks.pyi")]
    assert sum(sizes) <= 600_000
