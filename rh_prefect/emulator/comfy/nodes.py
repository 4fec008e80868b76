"""Node classes with their inputs as in ComfyUI's `object_info`, and the models that loader nodes can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

ResourceType = Literal["UNET", "CHECKPOINT", "LORA", "GGUF"]
RESOURCE_TYPES: Final[tuple[str, ...]] = get_args(ResourceType)


@dataclass(frozen=True, slots=True)
class Resource:
    """A model of the public library, which a loader node can load."""

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
    """Lists the files that the loader nodes of a kind can load."""
    return tuple(resource.file for resource in RESOURCES if resource.kind == kind)


def find(kind: str, *, name: str = "", bases: Sequence[str] = (), tags: Sequence[int] = ()) -> list[Resource]:
    """Searches the library by kind, a part of the title, base models and tags."""
    return [
        resource
        for resource in RESOURCES
        if resource.kind == kind
        and name.lower() in resource.title.lower()
        and (not bases or resource.base in bases)
        and (not tags or any(tag in tags for tag, _ in resource.tags))
    ]


Media = Literal["image", "video", "audio", "zip"]
Saves = Literal["image", "video", "audio", "text"]
Scalar = str | int | float | bool

_SAMPLERS: Final = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "ddim")
_SCHEDULERS: Final = ("normal", "karras", "simple", "sgm_uniform", "beta")
_SEED_END: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """An input of a node class, in the terms that ComfyUI's `object_info` uses.

    Attributes:
        kind: `INT`, `FLOAT`, `STRING`, `BOOLEAN`, `COMBO`, or the type of a link, such as `IMAGE`.
        default: The value in a new node.
        least: Minimum.
        most: Maximum.
        options: The choices of a `COMBO`.
        media: The kind of file, if the value names a file.
        is_lora: Whether the value names an uploaded LoRA.
        optional: Whether the input may be missing.
    """

    kind: str
    default: Scalar | None = None
    least: float | None = None
    most: float | None = None
    options: tuple[str, ...] = ()
    media: Media | None = None
    is_lora: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class NodeClass:
    """A class of ComfyUI nodes, with the types of its outputs and the kind of file that its nodes save, if any."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    saves: Saves | None = None


def _whole(default: int, least: int, most: int) -> Field:
    return Field("INT", default, least, most)


def _real(default: float, least: float, most: float) -> Field:
    return Field("FLOAT", default, least, most)


def _text(default: str = "") -> Field:
    return Field("STRING", default)


def _choice(*options: str) -> Field:
    return Field("COMBO", options[0], options=options)


def _file(media: Media) -> Field:
    return Field("COMBO", media=media)


def _link(kind: str, *, optional: bool = False) -> Field:
    return Field(kind, optional=optional)


_SIDES: Final = {"width": _whole(512, 16, 16384), "height": _whole(512, 16, 16384)}
_PREFIX: Final = {"filename_prefix": _text("ComfyUI")}
_LORA: Final = {
    "model": _link("MODEL"),
    "clip": _link("CLIP"),
    "strength_model": _real(1.0, -100, 100),
    "strength_clip": _real(1.0, -100, 100),
}
_SAMPLER: Final = {
    "seed": _whole(0, 0, _SEED_END),
    "steps": _whole(20, 1, 10000),
    "cfg": _real(8.0, 0, 100),
    "sampler_name": _choice(*_SAMPLERS),
    "scheduler": _choice(*_SCHEDULERS),
    "denoise": _real(1.0, 0, 1),
    "model": _link("MODEL"),
    "positive": _link("CONDITIONING"),
    "negative": _link("CONDITIONING"),
    "latent_image": _link("LATENT"),
}
_IMAGE_TO_VIDEO: Final = {
    "positive": _link("CONDITIONING"),
    "negative": _link("CONDITIONING"),
    "vae": _link("VAE"),
    "start_image": _link("IMAGE", optional=True),
    **_SIDES,
    "length": _whole(81, 1, 16384),
    "batch_size": _whole(1, 1, 64),
}
_COMBINE: Final = {
    "images": _link("IMAGE"),
    "frame_rate": _real(8, 1, 120),
    "loop_count": _whole(0, 0, 100),
    "filename_prefix": _text("AnimateDiff"),
    "format": _choice("video/h264-mp4"),
    "pingpong": Field("BOOLEAN", default=False),
    "save_output": Field("BOOLEAN", default=True),
    "audio": _link("AUDIO", optional=True),
}
_MUSIC_WORDS: Final = {
    "clip": _link("CLIP"),
    "tags": _text(),
    "lyrics": _text(),
    "lyrics_strength": _real(1.0, 0, 10),
}
_MUSIC_LENGTH: Final = {"seconds": _real(120, 1, 1000), "batch_size": _whole(1, 1, 64)}
_CHECKPOINT: Final = {"ckpt_name": _choice(*names_of("CHECKPOINT"))}
_UNET: Final = {"unet_name": _choice(*names_of("UNET")), "weight_dtype": _choice("default", "fp8_e4m3fn")}

CLASSES: Final[dict[str, NodeClass]] = {
    known.name: known
    for known in (
        NodeClass("CheckpointLoaderSimple", _CHECKPOINT, ("MODEL", "CLIP", "VAE")),
        NodeClass("UNETLoader", _UNET, ("MODEL",)),
        NodeClass("CLIPLoader", {"clip_name": _text(), "type": _text("wan")}, ("CLIP",)),
        NodeClass("VAELoader", {"vae_name": _text()}, ("VAE",)),
        NodeClass("LoraLoader", {**_LORA, "lora_name": _choice(*names_of("LORA"))}, ("MODEL", "CLIP")),
        NodeClass("RHLoraLoader", {**_LORA, "file_name": Field("COMBO", is_lora=True)}, ("MODEL", "CLIP")),
        NodeClass("CLIPTextEncode", {"text": _text(), "clip": _link("CLIP")}, ("CONDITIONING",)),
        NodeClass(
            "CR Text Input Switch",
            {"Input": _whole(1, 1, 2), "text1": _text(), "text2": _text()},
            ("STRING",),
        ),
        NodeClass("EmptyLatentImage", {**_SIDES, "batch_size": _whole(1, 1, 4096)}, ("LATENT",)),
        NodeClass("KSampler", _SAMPLER, ("LATENT",)),
        NodeClass("VAEDecode", {"samples": _link("LATENT"), "vae": _link("VAE")}, ("IMAGE",)),
        NodeClass("VAEEncode", {"pixels": _link("IMAGE"), "vae": _link("VAE")}, ("LATENT",)),
        NodeClass("LoadImage", {"image": _file("image")}, ("IMAGE", "MASK")),
        NodeClass("LoadImageFromUrl", {"image": _file("image")}, ("IMAGE", "MASK")),
        NodeClass("LoadImages(zip)", {"upload": _file("zip")}, ("IMAGE",)),
        NodeClass("LoadAudio", {"audio": _file("audio")}, ("AUDIO",)),
        NodeClass("VHS_LoadVideo", {"video": _file("video")}, ("IMAGE", "INT", "AUDIO")),
        NodeClass("LoadVideo", {"file": _file("video")}, ("IMAGE",)),
        NodeClass("ImageInvert", {"image": _link("IMAGE")}, ("IMAGE",)),
        NodeClass("WanImageToVideo", _IMAGE_TO_VIDEO, ("CONDITIONING", "CONDITIONING", "LATENT")),
        NodeClass("TextEncodeAceStepAudio", _MUSIC_WORDS, ("CONDITIONING",)),
        NodeClass("EmptyAceStepLatentAudio", _MUSIC_LENGTH, ("LATENT",)),
        NodeClass("VAEDecodeAudio", {"samples": _link("LATENT"), "vae": _link("VAE")}, ("AUDIO",)),
        NodeClass("SaveImage", {"images": _link("IMAGE"), **_PREFIX}, saves="image"),
        NodeClass("VHS_VideoCombine", _COMBINE, ("VHS_FILENAMES",), saves="video"),
        NodeClass("SaveAudio", {"audio": _link("AUDIO"), **_PREFIX}, saves="audio"),
        NodeClass(
            "SaveAudioMP3",
            {"audio": _link("AUDIO"), **_PREFIX, "quality": _choice("V0", "128k", "320k")},
            saves="audio",
        ),
        NodeClass("SaveText", {"text": _text(), **_PREFIX}, saves="text"),
    )
}
"""All known node classes, by `class_type`."""

_SAVING: Final[dict[str, Saves]] = {
    "save": "image",
    "combine": "video",
    "savevideo": "video",
    "saveaudio": "audio",
    "savetext": "text",
}


def class_of(name: str, *, foreign: frozenset[str] = frozenset()) -> NodeClass | None:
    """Finds a node class; returns None for an unknown class.

    Args:
        name: A node's `class_type`.
        foreign: Classes of graphs that a test added: the inputs of such nodes are not checked, and the names decide
            what the nodes save.
    """
    known = CLASSES.get(name)
    if known is not None or name not in foreign:
        return known
    plain = name.lower().replace("_", "").replace(" ", "")
    saves = next((kind for word, kind in reversed(_SAVING.items()) if word in plain), None)
    return NodeClass(name, saves=saves)


def object_info(foreign: frozenset[str] = frozenset()) -> dict[str, object]:
    """Returns the descriptions of all classes, in ComfyUI's format."""
    names = [*CLASSES, *sorted(foreign - set(CLASSES))]
    return {name: _info(known) for name in names if (known := class_of(name, foreign=foreign))}


def _info(known: NodeClass) -> dict[str, object]:
    required = {name: spec(item) for name, item in known.fields.items() if not item.optional}
    optional = {name: spec(item) for name, item in known.fields.items() if item.optional}
    return {
        "input": {"required": required, "optional": optional},
        "output": list(known.outputs),
        "output_is_list": [False] * len(known.outputs),
        "output_name": list(known.outputs),
        "name": known.name,
        "display_name": known.name,
        "description": "",
        "category": "emulator",
        "output_node": known.saves is not None,
    }


def spec(item: Field) -> list[object]:
    """Returns an input's specification in ComfyUI's format."""
    limits = {"default": item.default, "min": item.least, "max": item.most}
    shown: dict[str, object] = {name: value for name, value in limits.items() if value is not None}
    if item.media:
        shown[f"{item.media}_upload"] = True
    kind: object = list(item.options) if item.kind == "COMBO" else item.kind
    return [kind, shown] if shown else [kind]
