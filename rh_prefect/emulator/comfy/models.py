"""The models that a loader node can load: what the resource list shows, and what validation knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

ResourceType = Literal["UNET", "CHECKPOINT", "LORA", "GGUF"]
RESOURCE_TYPES: Final[tuple[str, ...]] = get_args(ResourceType)


@dataclass(frozen=True, slots=True)
class Resource:
    """One model of the public library.

    Attributes:
        title: What the list calls it.
        kind: What it is.
        file: What a loader node calls it.
        base: What it is made for.
        tags: The ids and names of its tags.
    """

    title: str
    kind: ResourceType
    file: str
    base: str
    tags: tuple[tuple[int, str], ...] = ()


_PHOTO, _DRAWN, _MOTION, _SOUND = (11, "photo"), (12, "drawn"), (13, "motion"), (14, "sound")
_STYLES: Final = (
    "Watercolour", "Ink", "Pencil", "Oil", "Pastel", "Woodcut", "Gouache", "Charcoal", "Comic", "Pixel", "Clay",
    "Paper cut", "Fresco", "Mosaic", "Neon", "Film grain", "Pinhole", "Daguerreotype", "Cyanotype", "Blueprint",
)  # fmt: skip

RESOURCES: Final[tuple[Resource, ...]] = (
    Resource("Stable Diffusion XL", "CHECKPOINT", "sd_xl_base_1.0.safetensors", "SDXL", (_PHOTO,)),
    Resource("Stable Diffusion 1.5", "CHECKPOINT", "v1-5-pruned-emaonly.safetensors", "SD1.5", (_PHOTO, _DRAWN)),
    Resource("Flux.1 dev fp8", "CHECKPOINT", "flux1-dev-fp8.safetensors", "FLUX.1", (_PHOTO,)),
    Resource("ACE-Step", "CHECKPOINT", "ace_step_v1_3.5b.safetensors", "ACE-Step", (_SOUND,)),
    Resource("Wan 2.2 image to video", "UNET", "wan2.2_i2v_14B_fp8.safetensors", "WAN2.2", (_MOTION,)),
    Resource("Flux.1 dev", "UNET", "flux1-dev.safetensors", "FLUX.1", (_PHOTO,)),
    Resource("Qwen Image Edit", "UNET", "qwen_image_edit_fp8.safetensors", "QWEN", (_PHOTO, _DRAWN)),
    Resource("Wan 2.2 image to video, 4 bit", "GGUF", "wan2.2_i2v_14B_Q4_K_M.gguf", "WAN2.2", (_MOTION,)),
    *(
        Resource(f"{style} for {base}", "LORA", f"{style}_{base}_v1.safetensors".replace(" ", "_"), base, (_DRAWN,))
        for base in ("SDXL", "FLUX.1", "WAN2.2")
        for style in _STYLES
    ),
)
"""The library, in the order of the list."""


def names_of(kind: ResourceType) -> tuple[str, ...]:
    """Lists what the loader nodes of a kind can load."""
    return tuple(resource.file for resource in RESOURCES if resource.kind == kind)


def find(kind: str, *, name: str = "", bases: Sequence[str] = (), tags: Sequence[int] = ()) -> list[Resource]:
    """Searches the library.

    Args:
        kind: What is wanted.
        name: Part of its title.
        bases: What it must be made for, one of them.
        tags: Which tags it must have, one of them.
    """
    return [
        resource
        for resource in RESOURCES
        if resource.kind == kind
        and name.lower() in resource.title.lower()
        and (not bases or resource.base in bases)
        and (not tags or any(tag in tags for tag, _ in resource.tags))
    ]
