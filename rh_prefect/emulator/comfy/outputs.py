"""Converts a graph into the outputs of its saving nodes."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rh_prefect.catalog.model import Model, Output, Param
from rh_prefect.emulator import task_formats
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.comfy.graph import Graph, Node, class_type, inputs_of, link_of, upstream
from rh_prefect.emulator.comfy.nodes import CLASSES, class_of
from rh_prefect.emulator.inputs import write_once
from rh_prefect.emulator.tasks import Failure, OutputSpec
from rh_prefect.errors import MediaError
from rh_prefect.media.probe import probe

Find = Callable[[str], Path]
"""Finds the file that a node names; raises `MediaError`."""

_WORDS: Final = ("text", "prompt", "tags", "lyrics", "string", "value")
_SEEDS: Final = ("seed", "noise_seed")
_MOST_OF_ZIP: Final = 4
_PARAMS: Final = (
    Param("images", "images", "image", multiple=True),
    Param("videos", "videos", "video", multiple=True),
    Param("audios", "audios", "audio", multiple=True),
)
_NAMES: Final[dict[Output, str]] = {"image": "picture", "video": "clip", "audio": "music", "text": "words"}
_MODELS: Final[dict[Output, Model]] = {
    kind: Model(f"ComfyUI {name}", f"comfyui/{name}", kind, "ComfyUI", params=_PARAMS) for kind, name in _NAMES.items()
}
"""The placeholder model of a graph for the renderer, by the kind of output."""


class BadNode(Exception):
    """A node has failed while it was running."""

    def __init__(self, node_id: str, name: str, words: str) -> None:
        self.node_id = node_id
        self.name = name
        self.words = words
        super().__init__(words)

    def failure(self, assumptions: Assumptions) -> Failure:
        """Returns the failure of a task whose graph has failed at this node."""
        reason = task_formats.node_failure(self.node_id, self.name, self.words, exception="ValueError")
        return Failure(*assumptions.failed_run, reason)


def model_for(kind: Output = "image") -> Model:
    """Returns the placeholder model for a graph that saves this kind of output."""
    return _MODELS[kind]


def pieces_of(
    graph: Graph, outputs: tuple[str, ...], find: Find, *, foreign: frozenset[str], metadata: bool
) -> tuple[OutputSpec, ...]:
    """Lists the outputs of the saving nodes; raises `BadNode` if a file is missing or of the wrong kind."""
    text = json.dumps(graph) if metadata else ""
    return tuple(_render_output(graph, node_id, find, foreign, text) for node_id in outputs)


def _render_output(graph: Graph, node_id: str, find: Find, foreign: frozenset[str], metadata: str) -> OutputSpec:
    chain = list(upstream(graph, node_id, without=("negative",)))
    known = class_of(class_type(graph[node_id]), foreign=foreign)
    kind = (known.saves if known else None) or "image"
    inputs: dict[str, list[Path]] = {}
    for here, node in chain:
        for media, path in _files(here, node, find):
            inputs.setdefault(f"{media}s", []).append(path)
    payload = {"prompt": _prompt(chain), **_numbers(chain, kind)}
    return OutputSpec(_MODELS[kind], payload, inputs, node_id, metadata if kind == "image" else "")


def _prompt(chain: list[tuple[str, Node]]) -> str:
    """Returns the prompt of the result: the graph's first text, and the graph's seeds, which distinguish two runs."""
    words = next((text for _, node in chain if (text := _said(node))), "")
    seeds = [f"seed {inputs_of(node)[name]}" for _, node in chain for name in _SEEDS if name in inputs_of(node)]
    turned = ["inverted" for _, node in chain if class_type(node) == "ImageInvert"]
    return " · ".join(part for part in (words, *turned, *seeds) if part)


def _said(node: Node) -> str:
    inputs = inputs_of(node)
    names = (f"text{inputs.get('Input')}",) if class_type(node) == "CR Text Input Switch" else _WORDS
    return ", ".join(text for name in names if isinstance(text := inputs.get(name), str) and text.strip())


def _numbers(chain: list[tuple[str, Node]], kind: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for _, node in chain:
        plain = {name: value for name, value in inputs_of(node).items() if link_of(value) is None}
        found = {**plain, **found}
    numbers = {name: number for name, value in found.items() if (number := _number(value)) is not None}
    sizes: dict[str, object] = {name: int(numbers[name]) for name in ("width", "height") if name in numbers}
    if kind == "image":
        return {**sizes, "n": int(numbers.get("batch_size", 1))}
    if kind == "video":
        rate = numbers.get("frame_rate") or 16
        return {**sizes, **({"duration": numbers["length"] / rate} if "length" in numbers else {})}
    form = "mp3" if "quality" in found else "flac"
    return {"format": form, **({"duration": numbers["seconds"]} if "seconds" in numbers else {})}


def _number(value: object) -> float | None:
    """Reads a number; None for other values, which nodes that are not checked may have."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _files(node_id: str, node: Node, find: Find) -> Iterator[tuple[str, Path]]:
    known = CLASSES.get(class_type(node))
    for name, item in known.fields.items() if known else ():
        value = inputs_of(node).get(name)
        if item.media is None or link_of(value) is not None:
            continue
        try:
            yield from _checked(find(str(value)), item.media)
        except MediaError as error:
            raise BadNode(node_id, class_type(node), f"Invalid {item.media} file: {value}") from error


def _checked(path: Path, media: str) -> Iterator[tuple[str, Path]]:
    if media == "zip":
        yield from (("image", picture) for picture in _unpacked(path))
        return
    kind = probe(path).kind
    if kind != media:
        raise MediaError(f"{path.name} is a file of kind {kind}. What to do: send a file of kind {media}.")
    yield media, path


def _unpacked(path: Path) -> Iterator[Path]:
    try:
        with zipfile.ZipFile(path) as packed:
            for name in [name for name in packed.namelist() if not name.endswith("/")][:_MOST_OF_ZIP]:
                data = packed.read(name)
                digest = hashlib.sha256(data).hexdigest()
                yield write_once(path.with_name(f"unpacked-{digest}{Path(name).suffix}"), data)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError) as error:  # RuntimeError: it has a password
        raise MediaError(
            f"{path.name} is not a valid ZIP file: {error}. What to do: send a complete ZIP file."
        ) from error
