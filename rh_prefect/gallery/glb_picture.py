"""Draws a GLB file as a small grey picture, as a preview of a 3D model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_MOST_TRIANGLES = 60_000
_GROUND, _LIGHT = (24, 24, 27), np.array([0.4, 0.7, 0.6]) / math.sqrt(0.4**2 + 0.7**2 + 0.6**2)
_TURN, _TILT = math.radians(35), math.radians(-20)
_NUMBERS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""numpy's names for the number types in glTF, by glTF's codes."""

Floats = NDArray[np.float64]


def glb_picture(glb: bytes, *, side: int) -> bytes:
    """Returns a JPEG of the triangles of a GLB file; raises `ValueError` if no triangle can be read."""
    try:
        return _drawn(np.concatenate(list(_triangles(*_parts(glb)))), side)
    except (LookupError, struct.error, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"no triangles can be read: {error!r}") from error


def _drawn(triangles: Floats, side: int) -> bytes:
    step = max(1, len(triangles) // _MOST_TRIANGLES)
    points = triangles[::step] @ _view().T
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    scale = 0.86 * side / max(float((high - low)[:2].max()), 1e-9)
    points = (points - (low + high) / 2) * scale
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    shades = np.rint(60 + 170 * np.abs(normals @ _LIGHT)).astype(int)
    flat = points[:, :, :2] * (1, -1) + side / 2
    picture = Image.new("RGB", (side, side), _GROUND)
    draw = ImageDraw.Draw(picture)
    for number in np.argsort(points[:, :, 2].mean(axis=1)):  # what is far is drawn first
        draw.polygon([tuple(point) for point in flat[number]], fill=(int(shades[number]),) * 3)
    out = BytesIO()
    picture.save(out, "JPEG", quality=82)
    return out.getvalue()


def _view() -> Floats:
    """Returns the rotation for a view from the side and from above."""
    turn = np.array(
        [[math.cos(_TURN), 0, math.sin(_TURN)], [0, 1, 0], [-math.sin(_TURN), 0, math.cos(_TURN)]],
    )
    tilt = np.array([[1, 0, 0], [0, math.cos(_TILT), math.sin(_TILT)], [0, -math.sin(_TILT), math.cos(_TILT)]])
    found: Floats = tilt @ turn
    return found


def _parts(glb: bytes) -> tuple[Any, bytes]:
    """Returns the JSON description of a GLB, and its binary data."""
    length = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def _triangles(gltf: Mapping[str, Any], data: bytes) -> Iterator[Floats]:
    nodes = gltf.get("nodes", [])
    roots = gltf["scenes"][gltf.get("scene", 0)]["nodes"] if gltf.get("scenes") else range(len(nodes))
    waiting = [(node, np.eye(4)) for node in roots]
    for node, above in waiting:  # it grows; a file that names a node below itself is not read to the end
        if len(waiting) > len(nodes):
            raise ValueError("its nodes form a cycle")
        here = above @ _placed(nodes[node])
        waiting += [(one, here) for one in nodes[node].get("children", [])]
        if "mesh" in nodes[node]:
            for part in gltf["meshes"][nodes[node]["mesh"]]["primitives"]:
                points = _read(gltf, data, part["attributes"]["POSITION"]) @ here[:3, :3].T + here[:3, 3]
                order = _read(gltf, data, part["indices"])[:, 0].astype(int) if "indices" in part else None
                listed = points if order is None else points[order]
                if part.get("mode", 4) == 4 and len(listed) >= 3:
                    yield listed[: len(listed) // 3 * 3].reshape(-1, 3, 3)


def _placed(node: Mapping[str, Any]) -> Floats:
    """Returns the matrix that places the points of a node in the coordinates of its parent."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turned = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    found = np.eye(4)
    found[:3, :3] = turned * np.array(node.get("scale", (1, 1, 1)), float)
    found[:3, 3] = node.get("translation", (0, 0, 0))
    return found


def _read(gltf: Mapping[str, Any], data: bytes, number: int) -> Floats:
    """Reads the elements of a glTF accessor, each as one row of numbers."""
    one = gltf["accessors"][number]
    view = gltf["bufferViews"][one["bufferView"]]
    kind, columns = np.dtype(_NUMBERS[one["componentType"]]), {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[one["type"]]
    start, width = view.get("byteOffset", 0) + one.get("byteOffset", 0), kind.itemsize * columns
    rows = np.ndarray(
        (one["count"], columns), kind, data, offset=start, strides=(view.get("byteStride", width), kind.itemsize)
    )
    return rows.astype(float)
