"""The fields of graphs and of apps, their valid values, and the requests that are made of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from rh_prefect.client import App, AppNode, AppOption
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.workflow_inputs import AppInput, GraphInput, QuickCreateInput, WorkflowInput
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.journal.identity import base_hash, file_mark
from rh_prefect.works.runninghub.graph_request import AppFields, GraphFields, GraphRequest, fingerprint, graph_request


def listed(node_id: str, field_name: str, field_type: str, **facts: Any) -> AppNode:
    return AppNode(node_id=node_id, field_name=field_name, field_type=field_type, **facts)


APP = App(
    webapp_id="1",
    nodes=(
        listed("3", "steps", "INT", node_name="KSampler", minimum=Decimal(1), maximum=Decimal(50)),
        listed("3", "denoise", "FLOAT", minimum=Decimal(0), maximum=Decimal(1)),
        listed("3", "seed", "INT"),
        listed("3", "mode", "INT", options=(AppOption(value="2"),), maximum=Decimal(1)),
        listed("6", "text", "STRING", maximum=Decimal(1)),
        listed("7", "image", "IMAGE", options=(AppOption(value="a.png"),)),
    ),
)
FIELDS = AppFields(APP)
SAMPLER = {"seed": 5, "steps": 20, "size": [5, 5], "pair": ["3", "0"], "three": ["4", 0, 1], "model": ["4", 0]}
GRAPH: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": SAMPLER},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"name": "a"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "a.png", "upload": "image", "mask": "a.png"}},
    "12": {"class_type": "PreviewImage", "inputs": {"image": "a.png"}},
    "14": {"class_type": "LoadVideo", "inputs": {"file": "a.mp4"}},
    "20": {"class_type": "Note", "inputs": {}},
}
NAMES = {node_id: node["class_type"] for node_id, node in GRAPH.items()}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 0, "3.steps cannot be 0; it must be at least 1"),
        ("steps", "51", "3.steps cannot be '51'; it must be at most 50"),
        ("steps", 2.5, "a whole number"),
        ("steps", "many", "must be a number"),
        ("steps", float("inf"), "must be a number"),
        ("steps", True, "must be a number"),
        ("denoise", 1.01, "at most 1"),
        ("denoise", "-0.1", "at least 0"),
        ("seed", "x", "must be a number"),
        ("mode", 1, "allowed values: 2"),
        ("cfg", 1, "app 1 has no field 3.cfg; it has 3.steps, 3.denoise.*"),
    ],
)
def test_a_number_that_the_app_does_not_accept_is_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"{said}\. Nothing was sent"):
        FIELDS.check("3", field, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("3.steps", 1),
        ("3.steps", "50"),
        ("3.steps", 20.0),
        ("3.denoise", 0.75),
        ("3.denoise", "1"),
        ("3.seed", 2**64 - 1),
        ("3.mode", 2),
        ("6.text", "words"),
        ("7.image", "b.png"),
    ],
)
def test_a_value_that_the_app_accepts_is_sent_unchanged(name: str, value: object) -> None:
    node_id, _, field = name.partition(".")
    assert FIELDS.check(node_id, field, value) is value


def test_a_seed_of_a_graph_is_a_field_that_no_other_node_sets() -> None:
    inputs = {"3": {"seed": 5, "steps": 20}, "4": {"seed": ["3", 0], "noise_seed": 1}, "5": {"rand_seed": 2}}
    graph = {node: {"class_type": "KSampler", "inputs": fields} for node, fields in inputs.items()}
    fields = GraphFields({**graph, "6": {"class_type": "Note"}, "7": []}, "WorkflowInput")  # type: ignore[dict-item]
    assert list(fields.seeds()) == [("3", "seed"), ("4", "noise_seed"), ("5", "rand_seed")]
    assert list(FIELDS.seeds()) == [("3", "seed")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("30.steps", r"the graph has no node '30'. Similar names: 3 \(KSampler\), 20 \(Note\), 10 \(LoadImage\)\."),
        ("30.name", r"Similar names: 4 \(CheckpointLoaderSimple\), 3 \(KSampler\), 20 \(Note\)\."),
        ("x.y", r"Similar names: 3 \(KSampler\), 4 \(CheckpointLoaderSimple\), 10 \(LoadImage\)\. Nothing was sent"),
        ("3.cfg", r"node 3 \(KSampler\) has no field 'cfg'; it has seed, steps, size, pair, three, model\. Nothing"),
        ("20.text", "it has none"),
        ("3.model", r"3\.model is connected to the output of node 4 \(CheckpointLoaderSimple\)"),
    ],
)
def test_a_field_that_a_graph_does_not_have_is_refused(name: str, said: str) -> None:
    node_id, _, field = name.partition(".")
    with pytest.raises(InputError, match=said):
        GraphFields(GRAPH, "the graph").check(node_id, field, 1)


def test_the_fields_that_take_a_file_are_those_of_loaders() -> None:
    fields = GraphFields(GRAPH, "the graph")
    names = [(node_id, field) for node_id, node in GRAPH.items() for field in node["inputs"]]
    assert [name for name in names if fields.takes_file(*name)] == [("10", "image"), ("10", "upload"), ("14", "file")]
    assert [name for name in (("7", "image"), ("3", "steps"), ("7", "x")) if FIELDS.takes_file(*name)] == [
        ("7", "image")
    ]


async def made(asked: GraphRequest, *, listed: App = APP) -> JobRequest:
    """A request; the content of each of its files is "a" and the number of the file before it."""
    sources: list[object] = []

    async def identify(source: object, **_: object) -> Any:
        sources.append(source)
        return SimpleNamespace(source=source, record=SimpleNamespace(sha256=f"a{len(sources)}"))

    async def graph(_: str) -> Any:
        return GRAPH

    async def app(_: str) -> App:
        return listed

    site: Any = SimpleNamespace(
        site="www.runninghub.ai", workflows=SimpleNamespace(json=graph), apps=SimpleNamespace(demo=app)
    )
    inputs: Any = SimpleNamespace(identify=identify)
    return await graph_request(asked, client=site, inputs=inputs, label="a label")


def node(node_id: str, field: str, value: object) -> dict[str, object]:
    return {"nodeId": node_id, "fieldName": field, "fieldValue": value}


PLAIN = {"instanceType": "default", "usePersonalQueue": False}
STEPS = {"3.steps": 9}
SET = {**GRAPH, "3": {**GRAPH["3"], "inputs": {**SAMPLER, "steps": 9}}}


@pytest.mark.parametrize(
    ("asked", "endpoint", "hashed", "rest"),
    [
        (
            WorkflowInput(id="1", nodes=STEPS, seed=7),
            "run/workflow/1",
            {"nodeInfoList": [node("3", "steps", 9), node("3", "seed", 7)]},
            {**PLAIN, "addMetadata": True},
        ),
        (
            WorkflowInput(id="1", nodes={"3.seed": 1}, seed=7, instance_type="plus", use_personal_queue=True),
            "run/workflow/1",
            {"nodeInfoList": [node("3", "seed", 1)], "instanceType": "plus", "usePersonalQueue": True},
            {"addMetadata": True},
        ),
        (
            WorkflowInput(id="1", workflow=GRAPH, nodes=STEPS, add_metadata=False, retain_seconds=20),
            "/task/openapi/create",
            {"workflow": SET, "workflowId": "1", "addMetadata": False, "retainSeconds": 20},
            PLAIN,
        ),
        (
            WorkflowInput(id="1", access_password=SecretStr("word")),
            "/task/openapi/create",
            {"nodeInfoList": [], "workflowId": "1"},
            {**PLAIN, "addMetadata": True},
        ),
        (
            AppInput(id="2", nodes=STEPS, seed=7),
            "run/ai-app/2",
            {"nodeInfoList": [node("3", "steps", 9), node("3", "seed", 7)]},
            PLAIN,
        ),
        (
            AppInput(id="2", access_password=SecretStr("word"), retain_seconds=20),
            "/task/openapi/ai-app/run",
            {"nodeInfoList": [], "webappId": "2", "retainSeconds": 20},
            PLAIN,
        ),
        (
            QuickCreateInput(id="2", code="002", nodes=(node("20", "text", "words"),)),
            "/task/openapi/quick-ai-app/run",
            {"nodeInfoList": [node("20", "text", "words")], "webappId": "2", "quickCreateCode": "002"},
            {},
        ),
        (GraphInput(graph=GRAPH, nodes=STEPS, machine="proxy-plus"), "/proxy-plus", {"prompt": SET}, {}),
    ],
    ids=["workflow", "options", "own graph", "password", "app", "app with password", "quick create", "machine"],
)
async def test_the_request_of_each_kind(
    asked: GraphRequest, endpoint: str, hashed: dict[str, Any], rest: dict[str, Any]
) -> None:
    """Defaults of this package are sent, and a change of them makes no other job."""
    request = await made(asked)
    assert (request.endpoint, request.payload, request.request) == (endpoint, {**rest, **hashed}, hashed)
    assert request.base == base_hash(site="www.runninghub.ai", endpoint=endpoint, payload=hashed)
    apps = {AppInput: {"3": "KSampler"}, QuickCreateInput: {}}
    assert request.node_names == apps.get(type(asked), NAMES)
    is_secret = getattr(asked, "access_password", None) is not None
    assert request.private == ({"accessPassword": "word"} if is_secret else {})
    is_saved = isinstance(asked, WorkflowInput | AppInput) and getattr(asked, "workflow", None) is None
    assert len(request.graph) == (40 if is_saved else 0)
    assert (request.model, request.label, request.site) == (asked.model, "a label", "www.runninghub.ai")


def test_an_empty_graph_is_refused() -> None:
    """It was the saved graph."""
    with pytest.raises(InputError, match="workflow"):
        WorkflowInput(id="1", workflow={})


async def test_a_seed_for_all_is_checked_only_for_the_fields_that_it_sets() -> None:
    """The app's own seed allows smaller numbers."""
    small = APP.model_copy(
        update={"nodes": (listed("3", "seed", "INT", maximum=Decimal(9)), listed("4", "seed", "INT"))}
    )
    request = await made(AppInput(id="2", nodes={"3.seed": 5}, seed=123456), listed=small)
    assert request.payload["nodeInfoList"] == [node("3", "seed", 5), node("4", "seed", 123456)]


async def test_a_text_is_no_file_where_texts_are_not_opened() -> None:
    asked = {"id": "1", "opens_texts": False}
    request = await made(WorkflowInput(**asked, nodes={"10.image": __file__}))  # a name at RunningHub
    assert request.payload["nodeInfoList"] == [node("10", "image", __file__)]
    with pytest.raises(InputError, match=r"10\.image takes a file, but its value is the text of a link"):
        await made(WorkflowInput(**asked, nodes={"10.image": "https://h/a.png"}))
    assert (await made(WorkflowInput(**asked, nodes={"3.steps": "https://h/a.png"}))).payload["nodeInfoList"]


@pytest.mark.parametrize(
    "asked",
    [
        WorkflowInput(id="1", nodes={"3.steps": Path("photo.png")}),
        AppInput(id="2", nodes={"6.text": Path("photo.png")}),
        GraphInput(graph={"6": {"class_type": "VHS_LoadAudio", "inputs": {"audio_file": Path("photo.png")}}}),
    ],
)
async def test_a_path_in_a_field_that_takes_no_file_is_refused(asked: GraphRequest) -> None:
    """Its text was sent, and paid for."""
    with pytest.raises(
        InputError, match=r"(3\.steps|text|audio_file).*photo\.png' is a file.*Nothing was sent.*upload_file"
    ):
        await made(asked)


async def test_the_path_in_a_text_of_a_pipeline_is_a_text() -> None:
    asked = WorkflowInput(id="1", nodes={"3.steps": "file:///a.png"}, opens_texts=False)
    assert (await made(asked)).payload["nodeInfoList"] == [node("3", "steps", "file:///a.png")]


FILE = Media(uri="file:///b.png", kind="image", mime="image/png", size=1, sha256="b" * 64)
LONG = ("a lighthouse " * 40, "a/" + "b" * 300 + ".png")
TEXTS = (*LONG, "~nobody/at dawn", "~nobody.", "as on https://h/a.png", "a\0b.png")


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        *((field, "file:///a.png", "file") for field in ("10.image", "text")),
        *((field, FILE, "file") for field in ("10.image", "text", "3.steps")),
        ("10.image", "https://h/a.png", "file"),
        ("10.image", "a.png", "value"),
        ("10.image", "photo", "refused"),
        ("10.image", "photo.png", "refused"),
        ("text", "./photo", "refused"),
        ("text", "photo.png", "refused"),
        ("text", "photo", "value"),
        ("text", "https://h/a.png", "value"),
        ("3.steps", "photo.png", "value"),
        ("3.steps", "https://h/a.png", "value"),
        *((field, text, "value") for field in ("10.image", "text") for text in TEXTS),
    ],
)
async def test_a_value_is_a_file_or_is_sent_as_it_is(
    field: str, value: Any, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a quick-create module is any text; the local path of a file is refused if it looks like one."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "photo.png"):
        Path(name).touch()
    module = QuickCreateInput(id="2", code="002", nodes=(node("20", "text", value),))
    asked: GraphRequest = module if field == "text" else WorkflowInput(id="1", nodes={field: value})
    if meant == "refused":
        uri = (tmp_path / value).as_uri()
        with pytest.raises(InputError, match=rf"is the path of a local file.*Nothing was sent.*pass Path\(.*{uri}\."):
            await made(asked)
        return
    request = await made(asked)
    (sent,) = request.payload["nodeInfoList"]
    sources = {mark: file.source for mark, file in request.inputs.items()}
    assert (sent["fieldValue"], sources) == (
        (file_mark("a1"), {file_mark("a1"): value}) if meant == "file" else (value, {})
    )


async def test_a_deleted_working_folder_causes_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    request = await made(QuickCreateInput(id="2", code="002", nodes=(node("20", "text", "a/b.png"),)))
    assert request.payload["nodeInfoList"] == [node("20", "text", "a/b.png")]


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (App(webapp_id="2"), "app 2: RunningHub lists no fields for this app.*Nothing was sent"),
        (APP.model_copy(update={"encrypted": True}), "app 2 is encrypted. Nothing was sent.*`access_password`"),
    ],
)
async def test_an_app_that_cannot_run_is_refused(listed: App, said: str) -> None:
    with pytest.raises(InputError, match=said):
        await made(AppInput(id="2"), listed=listed)


async def test_an_encrypted_app_runs_with_its_password() -> None:
    listed = APP.model_copy(update={"encrypted": True})
    assert (await made(AppInput(id="2", access_password=SecretStr("word")), listed=listed)).private


def test_the_fingerprint_of_a_graph_is_stable() -> None:
    """Another one would make every result of a workflow or an app one of another graph."""
    assert fingerprint({"b": "灯塔", "a": [1, None]}) == "bca966d4314490cf989c13891d631d1814d85db4"
