"""Defines the tags for what models do and take, and determines the tags of each model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from rh_prefect.catalog.model import Model, words


@dataclass(frozen=True, slots=True)
class Tag:
    """One capability of models; every list in it is one string with commas.

    A model has the tag where its name says so (`named`), or where `families`, `params` or `groups` speak for it. With
    `groups` or `needs`, its required files must be of the kinds in `needs` and of no others: the groups of
    RunningHub's documentation are not always right. A tag with none of these is for all models that make `makes`.

    Attributes:
        name: What it is called.
        synonyms: What else people call it; spaces and hyphens do not matter.
        named: Words of which a model's name or endpoint has some.
        families: Lines of models that all do it.
        params: Parameters of which a model has one; `name=option` asks for that option, too.
        groups: Where the documentation lists such models; longer paths count.
        makes: The outputs of which a model makes one.
        needs: The kinds of files that a model requires.
        but: Words in its name that speak against it.
        near: Tags of the models that come next, where these do not do it.
    """

    name: str
    synonyms: str = ""
    named: str = ""
    families: str = ""
    params: str = ""
    groups: str = ""
    makes: str = ""
    needs: str = ""
    but: str = ""
    near: str = ""


def split(listed: str) -> tuple[str, ...]:
    """Splits one of a tag's lists."""
    return tuple(part.strip() for part in listed.split(",") if part.strip())


TAGS = (
    # Outputs
    Tag("image", synonyms="picture, photo, still, drawing", makes="image"),
    Tag("video", synonyms="clip, movie, film, footage", makes="video"),
    Tag("audio", synonyms="sound, text to audio", makes="audio"),
    Tag("text", makes="text"),
    Tag(
        "3d",
        synonyms="3d model, mesh, glb, sculpture, text to 3d, image to 3d, photo to 3d, threed",
        makes="3d",
        near="3d world",
    ),
    Tag(
        "3d world",
        synonyms="world, 3d scene, scene, panorama, environment, gaussian splat",
        named="to world",
        near="3d",
    ),
    # Images
    Tag(
        "text to image",
        synonyms="t2i, txt2img, txt2image, text2image, text2img, prompt to image, draw, illustrate, illustration",
        named="text to image, t2i",
        groups="image/text-to-image",
        makes="image",
    ),
    Tag(
        "image edit",
        synonyms="image to image, i2i, img2img, image2image, edit image, edit photo, edit picture, image editing, "
        "photo edit, photo editing, retouch, redraw",
        named="edit, image to image, i2i",
        groups="image/image-to-image, image/image-tools",
        makes="image",
        needs="image",
    ),
    Tag("edit", synonyms="editing", named="edit", near="image edit, video edit"),
    Tag(
        "inpaint",
        synonyms="inpainting, mask, generative fill, remove object, object removal, erase object",
        named="inpaint, inpainting",
        params="mask, mask_url, mask_image_url",
        near="image edit, video edit",
    ),
    Tag(
        "outpaint",
        synonyms="outpainting, expand image, extend image, uncrop",
        named="outpaint, outpainting",
        near="image edit",
    ),
    Tag(
        "remove background",
        synonyms="background removal, background remover, remove bg, bg removal, rembg, matting, cutout, cut out, "
        "erase background, delete background, remove image background, remove video background",
        named="remove background, background removal, background remover, remove bg, rembg, matting",
        near="layers, transparent background",
    ),
    Tag("face swap", synonyms="swap face, swap faces, deepfake", named="face swap", near="image edit, video edit"),
    Tag("try on", synonyms="virtual try on, change clothes, outfit", named="try on", near="image edit"),
    Tag(
        "layers",
        synonyms="layer, layer decomposition, layer separation, split layers, psd",
        named="layer decomposition",
        makes="image",
    ),
    Tag(
        "transparent background",
        synonyms="alpha channel",
        params="background=transparent",
        makes="image",
        needs="image",
    ),
    Tag("anime", synonyms="manga", named="niji6, niji7, anime"),
    # Videos
    Tag(
        "image to video",
        synonyms="i2v, img2vid, img2video, image2video, image2vid, photo to video, picture to video, still to video, "
        "animate, animate image, animate photo, animation",
        named="image to video, i2v, fl2va",
        groups="video/image-to-video",
        makes="video",
        needs="image",
        but="reference to video, multimodal",
        near="start and end frame, reference to video",
    ),
    Tag(
        "text to video",
        synonyms="t2v, txt2vid, txt2video, text2video, text2vid, prompt to video",
        named="text to video, t2v",
        groups="video/text-to-video",
        makes="video",
    ),
    Tag(
        "reference to video",
        synonyms="r2v, subject to video, reference, references, character reference, consistent character, multimodal, "
        "multi image to video",
        named="reference to video, refrence to video, omni reference, multimodal",
        makes="video",
        but="context ir",
    ),
    Tag(
        "start and end frame",
        synonyms="first and last frame, first last frame, start end frame, start end, start to end, "
        "start end to video, last frame, end frame, keyframe, keyframes, flf2v, transition, morph",
        named="start end, start to end, transition, fl2va",
        params="last_image_url, last_frame_url, end_image_url",
        makes="video",
    ),
    Tag(
        "video edit",
        synonyms="video to video, v2v, vid2vid, video2video, edit video, video editing, restyle, restyling, "
        "style transfer",
        named="video edit, edit video, video to video, video restyling",
        makes="video",
        but="continuation",
    ),
    Tag(
        "extend video",
        synonyms="video extend, video extension, extend, extension, continue, continuation, video continuation, "
        "longer, lengthen",
        named="extend, video extension, video continuation",
        makes="video",
    ),
    Tag(
        "video with sound",
        synonyms="video with audio, with sound, with audio, native audio, sound on",
        params="generate_audio, generate_audio_switch, enable_audio, sound, audio, bgm",
        makes="video",
    ),
    Tag(
        "audio to video",
        synonyms="a2v, sound to video, music to video, music video, audio driven",
        named="audio to video",
        params="audio_url, audio_urls",
        makes="video",
    ),
    Tag("storyboard", synonyms="multi shot, multishot", params="storyboard, multi_shot", makes="video"),
    Tag("effects", synonyms="effect, video effects, vfx, video filter", named="effects, restyling", makes="video"),
    Tag("short drama", synonyms="short play, short film, script to video, screenplay", named="short play"),
    Tag("depth", synonyms="depth map, depth video", named="depth converter"),
    # People in videos
    Tag(
        "lip sync",
        synonyms="lipsync, lip syncing, lipsyncing, lip synchronisation, lip synchronization, lips, mouth sync",
        named="lip sync",
        but="tts",
        near="talking avatar",
    ),
    Tag(
        "talking avatar",
        synonyms="avatar, talking, talking head, talking photo, digital human, digital person, presenter, spokesperson",
        named="avatar, talking, image audio to video",
        makes="video",
        near="lip sync",
    ),
    Tag(
        "motion control",
        synonyms="motion transfer, character motion, animate character, character animation, motion capture, mocap, "
        "dance, dancing, pose, puppet",
        named="motion control, motion transfer",
        groups="video/motion-control",
        makes="video",
        needs="image, video",
    ),
    Tag("character", synonyms="characters, create character, element", named="element, elements, upload character"),
    # Better files
    Tag(
        "upscale",
        synonyms="upscaler, upscaling, enhance, enhancer, enhancement, enhancing, super resolution, superres, enlarge, "
        "increase resolution, higher resolution, remaster, restore, restoration, sharpen",
        named="upscale, upscaler, enhance, super resolution, gigapixel, hypir, tilesr, regeneration",
        families="topazlabs, hypir",
        makes="image, video",
        but="frame interpolation",
        near="frame interpolation",
    ),
    Tag(
        "frame interpolation",
        synonyms="interpolation, interpolate, frame rate, fps, increase fps, 60fps, slow motion, slowmo, smooth motion",
        named="frame interpolation, fps increaser",
    ),
    Tag("denoise", synonyms="denoising, denoiser, noise reduction", named="denoise", params="denoise", near="upscale"),
    Tag(
        "remove subtitles",
        synonyms="remove subtitle, erase subtitles, erase subtitle, subtitle erase, subtitle removal, "
        "subtitle remover, remove captions, remove text, erase text",
        named="subtitle erase",
    ),
    Tag(
        "remove watermark",
        synonyms="watermark removal, watermark remover, erase watermark",
        named="watermark",
        near="remove subtitles, image edit",
    ),
    # Speech
    Tag(
        "text to speech",
        synonyms="tts, speech, voice, voices, voice over, voiceover, narration, narrator, narrate, speak, read aloud, "
        "text2speech, speech synthesis, text to voice",
        named="speech, tts",
        params="text, speaker",
        makes="audio, text",
        but="voice clone, voice design",
        near="voice clone, voice design",
    ),
    Tag(
        "voice clone",
        synonyms="clone voice, voice cloning, vocal clone, vocal cloning, voice copy, copy voice",
        named="voice clone, vocal clone, icl",
        near="voice design",
    ),
    Tag("voice design", synonyms="design voice, new voice", named="voice design", near="voice clone"),
    Tag(
        "translate",
        synonyms="dub, dubbing, dubbed, translation, translator, translating, localize, localise, localization, "
        "localisation, video translation",
        named="translate, dub, dubbing",
        params="target_langs, is_dub",
        near="lip sync",
    ),
    Tag(
        "transcribe",
        synonyms="transcription, transcript, speech to text, stt, asr, speech recognition, audio to text",
        named="transcribe, transcription, speech to text, asr",
        near="song analysis, describe",
    ),
    # Music
    Tag(
        "music",
        synonyms="tune, compose, composition, melody, text to music, text to song",
        named="music, song, bgm, instrumental",
        families="suno, mureka",
        makes="audio",
        but="lyrics",
        near="lyrics, music tool",
    ),
    Tag(
        "song",
        synonyms="sing, singing, singer, vocals",
        named="song, music cover, text to music",
        families="suno",
        params="lyrics",
        makes="audio",
        but="lyrics, stem",
        near="background music, lyrics",
    ),
    Tag(
        "background music",
        synonyms="bgm, instrumental, soundtrack, score, backing track, film music",
        named="bgm, instrumental",
        params="is_instrumental, make_instrumental",
        makes="audio",
        near="music",
    ),
    Tag("lyrics", synonyms="lyric, songwriting, song text", named="lyrics", near="song"),
    Tag("cover song", synonyms="cover, music cover, song cover", named="music cover"),
    Tag(
        "stem separation",
        synonyms="stems, stem, source separation, vocal remover, vocal removal, remove vocals, extract vocals, "
        "extract vocal, isolate vocals, isolate voice, karaoke, separate",
        named="stem song, source separation, extract vocal, extract background",
    ),
    Tag("song analysis", synonyms="analyse song, analyze song, identify song", named="recognize song, describe song"),
    Tag("music tool", families="mureka", makes="text"),
    Tag(
        "sound effects",
        synonyms="sound effect, sfx, foley",
        named="sound effect, sound effects, sfx, foley",
        near="audio",
    ),
    # Text
    Tag(
        "llm",
        synonyms="chat, chatbot, language model, large language model, text model, text generation, text to text, "
        "question, write, writing, summarize, summarise",
        named="text to text, image to text, video to text, chat",
        makes="text",
    ),
    Tag(
        "describe",
        synonyms="description, caption, captioning, image to text, video to text, vision, vlm, ocr, understand, "
        "img2txt, describe image, describe video",
        named="image to text, video to text",
        makes="text",
        near="llm",
    ),
    # Others
    Tag("lora", named="lora"),
    Tag("flux", families="f"),
    Tag("upload", synonyms="upload asset, asset", named="upload asset, upload media asset, files upload"),
)


Input = Literal["image", "video", "audio", "text"]

INPUTS: tuple[Input, ...] = get_args(Input)
_TEXTS = ("prompt", "text", "lyrics", "description", "script_content", "instructions")


def tags_of(model: Model) -> tuple[str, ...]:
    """Returns the names of the tags for what a model does, in the order of the vocabulary."""
    text = spelled(model.name, model.endpoint)
    return tuple(rule.tag.name for rule in _rules() if rule.holds(model, text))


def inputs_of(model: Model) -> tuple[Input, ...]:
    """Returns the kinds of input that a model accepts, required or not.

    Its parameters say so; its name, too, because not every list of parameters is complete, and some models take the
    link of a file as text.
    """
    text = spelled(model.name, model.endpoint)
    kinds: set[str] = {param.type for param in model.media_params}
    kinds.update(kind for kind in INPUTS if f" {kind} to " in text)
    if any(param.type == "string" and param.name.endswith(_TEXTS) for param in model.params):
        kinds.add("text")
    return tuple(kind for kind in INPUTS if kind in kinds)


def spelled(*names: str) -> str:
    """Converts names to lower-case words separated by spaces, so that a search matches whole words only."""
    return f" {' | '.join(' '.join(words(name)) for name in names)} ".lower()


class _Rule:
    """One tag's conditions, split once for all models."""

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self._named, self._but = _phrases(tag.named), _phrases(tag.but)
        self._families, self._params, self._groups = split(tag.families), split(tag.params), split(tag.groups)
        self._makes, self._needs = split(tag.makes), set(split(tag.needs))
        self._is_by_files = bool(self._groups or self._needs)
        self._has_hints = bool(self._families or self._params or self._groups)

    def holds(self, model: Model, text: str) -> bool:
        if (self._makes and model.output not in self._makes) or _any_in(self._but, text):
            return False
        return _any_in(self._named, text) or (self._is_hinted(model) and self._fits_files(model))

    def _is_hinted(self, model: Model) -> bool:
        if not self._has_hints:
            return self._is_by_files or not self._named
        return (
            model.family in self._families
            or any(group.startswith(known) for known in self._groups for group in model.groups)
            or any(_has_param(model, condition) for condition in self._params)
        )

    def _fits_files(self, model: Model) -> bool:
        return not self._is_by_files or {param.type for param in model.media_params if param.required} == self._needs


@cache
def _rules() -> tuple[_Rule, ...]:
    return tuple(_Rule(tag) for tag in TAGS)


def _phrases(listed: str) -> tuple[str, ...]:
    return tuple(f" {phrase} " for phrase in split(listed))


def _any_in(phrases: Iterable[str], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _has_param(model: Model, condition: str) -> bool:
    name, _, option = condition.partition("=")
    return any(param.name == name and (not option or option in param.options) for param in model.params)
