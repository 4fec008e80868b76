"""Editing of local files with FFmpeg's libraries: join, cut, resize, mix sound, stills, logos and texts.

A film is three calls, each of which reads and writes piece by piece, in memory that does not grow with the length:

    joined = concat(clips, work / "picture.mp4")
    mix([(joined.starts[0], line)], music, work / "track.wav", seconds=joined.seconds)
    mux(work / "picture.mp4", work / "track.wav", work / "film.mp4")

A result is at its name whole or not at all. Every function raises these errors, which name the file: `MediaError` for
an input that is missing, broken, cut short or of the wrong kind; `StoreError` for a place that cannot be written to;
`InputError` for an argument that cannot be used, such as a name whose ending says another type.
"""

from __future__ import annotations

from rh_prefect.media.edit.assembly import Joined, concat, mux
from rh_prefect.media.edit.audio_samples import Level, audio_level
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, convert_image, frame, thumbnail
from rh_prefect.media.edit.lettering import captions, title_clip
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.single_file_edits import (
    add_sounds,
    extract_audio,
    has_picture,
    has_sound,
    resize,
    still_clip,
    trim,
    watermark,
)
from rh_prefect.media.edit.subtitle_writer import Cue, cues_of, read_cues, subtitles
from rh_prefect.media.edit.transition import crossfaded

__all__ = [
    "Cue",
    "Joined",
    "Level",
    "add_sounds",
    "audio_level",
    "captions",
    "concat",
    "contact_sheet",
    "convert_image",
    "crossfaded",
    "cues_of",
    "extract_audio",
    "frame",
    "has_picture",
    "has_sound",
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
