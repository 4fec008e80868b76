"""3D models: a cube as a GLB file (glTF 2.0, binary), in a colour drawn from the request."""

from __future__ import annotations

import colorsys
import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_AXES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
_FLOAT, _USHORT = 5126, 5123
_VERTICES, _INDICES = 34962, 34963


def cube(*, hue: float) -> bytes:
    """Builds a GLB file with one cube; each chunk is padded to four bytes, as glTF 2.0 requires (section 4.4)."""
    points, normals, indices = _mesh()
    parts = [points.tobytes(), normals.tobytes(), indices.tobytes()]
    document = json.dumps(_document(parts, indices.size, hue), separators=(",", ":")).encode()
    document += b" " * (-len(document) % 4)
    binary = b"".join(parts)
    binary += b"\0" * (-len(binary) % 4)
    length = 12 + 8 + len(document) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, length)
    return header + _chunk(b"JSON", document) + _chunk(b"BIN\0", binary)


def write_cube(to: Path, *, hue: float) -> None:
    """Writes a cube in the given colour as a GLB file."""
    to.write_bytes(cube(hue=hue))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content


def _mesh() -> tuple[_Floats, _Floats, NDArray[np.uint16]]:
    """Builds six faces with four separate corners each, so that each face has its own normal."""
    points: list[list[float]] = []
    normals: list[list[float]] = []
    indices: list[int] = []
    for axis, across, up in _AXES:
        for sign in (-1.0, 1.0):
            corner = len(points)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point, normal = [0.0] * 3, [0.0] * 3
                point[axis], point[across], point[up] = sign * 0.5, a * 0.5 * sign, b * 0.5
                normal[axis] = sign
                points.append(point)
                normals.append(normal)
            indices += [corner, corner + 1, corner + 2, corner, corner + 2, corner + 3]
    return np.array(points, "<f4"), np.array(normals, "<f4"), np.array(indices, "<u2")


def _document(parts: list[bytes], count: int, hue: float) -> dict[str, object]:
    ends = np.cumsum([len(part) for part in parts])
    views = [
        {"buffer": 0, "byteOffset": int(end) - len(part), "byteLength": len(part), "target": target}
        for end, part, target in zip(ends, parts, (_VERTICES, _VERTICES, _INDICES))
    ]
    corners = {"componentType": _FLOAT, "count": 24, "type": "VEC3"}
    colour = [*colorsys.hsv_to_rgb(hue, 0.55, 0.9), 1.0]
    return {
        "asset": {"version": "2.0", "generator": "rh-prefect emulator"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "cube"}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0, "mode": 4}]}
        ],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorFactor": colour, "metallicFactor": 0.1, "roughnessFactor": 0.6}}
        ],
        "accessors": [
            {"bufferView": 0, **corners, "min": [-0.5] * 3, "max": [0.5] * 3},
            {"bufferView": 1, **corners},
            {"bufferView": 2, "componentType": _USHORT, "count": count, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": int(ends[-1])}],
    }
