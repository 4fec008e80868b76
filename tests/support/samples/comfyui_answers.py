"""A graph on ComfyUI's own API, and what its history says of it."""

from __future__ import annotations

from typing import Any

from rh_prefect.client import ComfyFile

GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}


PROMPT = "8f1c-44"


FILE = ComfyFile(name="Comfy UI_00001_.png", subfolder="a/b", kind="output", node_id="9")


ENTRY: dict[str, Any] = {
    "prompt": [1, PROMPT, GRAPH, {}, ["9"]],
    "outputs": {
        "9": {"images": [{"filename": FILE.name, "subfolder": "a/b", "type": "output"}], "animated": [False]},
        "12": {"gifs": [{"filename": "v.mp4"}], "text": ["words"]},
    },
    "status": {"status_str": "success", "completed": True, "messages": [["execution_start", {}]]},
}
