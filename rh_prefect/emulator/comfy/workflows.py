"""Saved workflows, under ids of 19 digits, and the built-in graphs."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from rh_prefect.emulator.comfy.graph import Graph, Node, class_type, parse
from rh_prefect.emulator.comfy.nodes import CLASSES
from rh_prefect.errors import InputError

SAMPLE_PICTURE: Final = "example.png"
"""The picture that is among the inputs of every ComfyUI installation."""


def _node(class_type: str, title: str = "", **inputs: object) -> Node:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


def _sampler(positive: list[object], negative: list[object], latent: list[object], **more: object) -> Node:
    inputs: dict[str, object] = {
        "seed": 7,
        "steps": 20,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "model": ["4", 0],
        "positive": positive,
        "negative": negative,
        "latent_image": latent,
    }
    return {"class_type": "KSampler", "inputs": {**inputs, **more}, "_meta": {"title": "KSampler"}}


TEXT_TO_IMAGE: Final[Graph] = {
    "3": _sampler(["6", 0], ["7", 0], ["5", 0]),
    "4": _node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "5": _node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
    "6": _node("CLIPTextEncode", "Prompt", text="a lighthouse at dawn", clip=["4", 1]),
    "7": _node("CLIPTextEncode", "Negative prompt", text="blurry, text", clip=["4", 1]),
    "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": _node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
}

RESTYLE: Final[Graph] = {
    "3": _sampler(["6", 0], ["7", 0], ["12", 0], denoise=0.6),
    "4": _node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "6": _node("CLIPTextEncode", "Style", text="in watercolour", clip=["4", 1]),
    "7": _node("CLIPTextEncode", "Negative prompt", text="blurry", clip=["4", 1]),
    "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": _node("SaveImage", "Save the picture", filename_prefix="ComfyUI", images=["8", 0]),
    "10": _node("LoadImage", image=SAMPLE_PICTURE),
    "12": _node("VAEEncode", pixels=["10", 0], vae=["4", 2]),
    "13": _node("ImageInvert", image=["8", 0]),
    "14": _node("SaveImage", "Save the inverted picture", filename_prefix="Inverted", images=["13", 0]),
}

IMAGE_TO_VIDEO: Final[Graph] = {
    "3": _sampler(["50", 0], ["50", 1], ["50", 2]),
    "4": _node("UNETLoader", unet_name="wan2.2_i2v_14B_fp8.safetensors", weight_dtype="default"),
    "6": _node("CLIPTextEncode", "Motion", text="the camera glides in slowly", clip=["38", 0]),
    "7": _node("CLIPTextEncode", "Negative prompt", text="static", clip=["38", 0]),
    "8": _node("VAEDecode", samples=["3", 0], vae=["39", 0]),
    "38": _node("CLIPLoader", clip_name="umt5_xxl_fp8.safetensors", type="wan"),
    "39": _node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
    "50": _node(
        "WanImageToVideo", positive=["6", 0], negative=["7", 0], vae=["39", 0], start_image=["52", 0],
        width=832, height=480, length=33, batch_size=1,
    ),
    "52": _node("LoadImage", image=SAMPLE_PICTURE),
    "60": _node(
        "VHS_VideoCombine", images=["8", 0], frame_rate=16.0, loop_count=0, filename_prefix="Clip",
        format="video/h264-mp4", pingpong=False, save_output=True,
    ),
}  # fmt: skip

MUSIC: Final[Graph] = {
    "3": _sampler(["14", 0], ["15", 0], ["17", 0], steps=50, cfg=5.0),
    "4": _node("CheckpointLoaderSimple", ckpt_name="ace_step_v1_3.5b.safetensors"),
    "14": _node("TextEncodeAceStepAudio", tags="calm piano", lyrics="", lyrics_strength=1.0, clip=["4", 1]),
    "15": _node("TextEncodeAceStepAudio", "Nothing", tags="", lyrics="", lyrics_strength=1.0, clip=["4", 1]),
    "17": _node("EmptyAceStepLatentAudio", seconds=10.0, batch_size=1),
    "18": _node("VAEDecodeAudio", samples=["3", 0], vae=["4", 2]),
    "19": _node("SaveAudioMP3", filename_prefix="audio/ComfyUI", audio=["18", 0], quality="V0"),
}

QUICK: Final[Graph] = {
    **TEXT_TO_IMAGE,
    "6": _node("CLIPTextEncode", "Prompt", text=["20", 0], clip=["4", 1]),
    "20": _node("CR Text Input Switch", "Mode", Input=1, text1="a lighthouse", text2="a harbour at night"),
}

WORKFLOWS: Final[dict[str, tuple[str, Graph]]] = {
    "text-to-image": ("2030000000000000001", TEXT_TO_IMAGE),
    "restyle": ("2030000000000000002", RESTYLE),
    "image-to-video": ("2030000000000000003", IMAGE_TO_VIDEO),
    "music": ("2030000000000000004", MUSIC),
}
"""Saved workflows, by name, with their ids."""


@dataclass(frozen=True, slots=True)
class SavedGraph:
    """A workflow or an app of the site, with an id of 19 digits and the `accessPassword`, if it has one."""

    id: str
    name: str
    graph: Graph
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Workflow(SavedGraph):
    """A workflow; `saved` says whether it was saved and run once, as the API requires."""

    saved: bool = True


G = TypeVar("G", bound=SavedGraph)


class SavedGraphs(Generic[G]):
    """All workflows, or all apps, of the site; new ones get ids from `first_id` on."""

    def __init__(self, built_in: Iterable[G], *, first_id: int) -> None:
        self._lock = threading.Lock()
        self._ids = map(str, itertools.count(first_id + secrets.randbelow(10**15), 7_654_321))
        self._known = {one.id: one for one in built_in}

    def id_of(self, name: str) -> str:
        """Finds the id of a workflow or an app by its name, such as `text-to-image` or `Portrait restyle`."""
        for one in self:
            if name == one.name:
                return one.id
        raise KeyError(name)

    def find(self, graph_id: object) -> G | None:
        """Finds a workflow or an app by its id, which is a string or a number."""
        return self._known.get(str(graph_id))

    @property
    def foreign(self) -> frozenset[str]:
        """The node classes that occur only in added graphs."""
        names = {class_type(node) for one in self for node in one.graph.values()}
        return frozenset(names - set(CLASSES) - {""})

    def __iter__(self) -> Iterator[G]:
        return iter(list(self._known.values()))


def read_graph(graph: Mapping[str, object] | str) -> Graph:
    """Reads a graph that a test gives; raises `InputError` if it is not an object of nodes."""
    read = parse(graph)
    if read is None:
        raise InputError("The graph is not a JSON object of nodes. What to do: give a workflow in API format.")
    return read


class Workflows(SavedGraphs[Workflow]):
    """All workflows of the site."""

    def __init__(self) -> None:
        built_in = (Workflow(number, name, graph) for name, (number, graph) in WORKFLOWS.items())
        super().__init__(built_in, first_id=2_040_000_000_000_000_000)

    def add(self, graph: Mapping[str, object] | str, *, name: str = "", password: str = "", saved: bool = True) -> str:
        """Saves a workflow; afterwards, the unknown node classes in it are accepted.

        Args:
            graph: The graph in API format, as an object or as JSON text; it may be invalid.
            name: The name for `id_of`.
            password: The required `accessPassword`.
            saved: Whether the workflow was saved and run once.

        Returns:
            The workflow's id.

        Raises:
            InputError: The graph is not an object of nodes.
        """
        read = read_graph(graph)
        with self._lock:
            workflow = Workflow(next(self._ids), name, read, password, saved)
            self._known[workflow.id] = workflow
        return workflow.id

    def edit(self, workflow_id: str, graph: Mapping[str, object] | str) -> None:
        """Saves another graph under an id, as a person does on the site; see `add`."""
        read = read_graph(graph)
        with self._lock:
            self._known[workflow_id] = replace(self._known[workflow_id], graph=read)
