"""Edits local files with FFmpeg's libraries: joins, cuts and resizes; mixes sound; adds stills, logos and captions.

A film needs three calls. Each reads and writes piece by piece, so that memory use does not grow with the film's length:

    seconds = concat(clips, work / "picture.mp4")
    mix([(0, line)], music, work / "track.wav", seconds=seconds)
    mux(work / "picture.mp4", work / "track.wav", work / "film.mp4")

A result file is complete or does not exist. Every function raises these errors, which name the file: `MediaError` if an
input is missing, damaged, incomplete or of the wrong kind; `StoreError` if the result cannot be written; `InputError`
if the result is not possible, such as a name with the extension of another type. Arguments are not checked otherwise:
a plan checks them against the parameters in `rh_prefect.pipelines.edits`.
"""

from __future__ import annotations

from rh_prefect.media.edit.audio_samples import Level, audio_level
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, convert_image, frame, thumbnail
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.lettering import captions, title_clip
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.muxing import mux
from rh_prefect.media.edit.single_file_edits import (
    add_sounds,
    extract_audio,
    has_picture,
    resize,
    still_clip,
    trim,
    watermark,
)
from rh_prefect.media.edit.subtitle_writer import Cue, cues_of, read_cues, subtitles

__all__ = [
    "Cue",
    "Level",
    "add_sounds",
    "audio_level",
    "captions",
    "concat",
    "contact_sheet",
    "convert_image",
    "cues_of",
    "extract_audio",
    "frame",
    "has_picture",
    "mix",
    "mux",
    "read_cues",
    "resize",
    "still_clip",
    "subtitles",
    "thumbnail",
    "title_clip",
    "trim",
    "watermark",
]
