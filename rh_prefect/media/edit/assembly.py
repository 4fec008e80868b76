"""Joins clips into one video (concat), and adds a sound track (mux)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from rh_prefect.errors import InputError
from rh_prefect.media.edit.audio_samples import Sound, endless_silence, recording, sound_with_picture
from rh_prefect.media.edit.output import Picture, Track, create_mp4, product, write_frames
from rh_prefect.media.edit.video_reader import Canvas, Fit, even, fitted, opened, picture_of, reading, shape_of


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of joining clips: lengths and starts in seconds, the size in pixels, and frames per second."""

    seconds: float
    starts: tuple[float, ...]
    width: int
    height: int
    fps: float


def concat(
    clips: Sequence[Path],
    to: Path,
    *,
    audio: Literal["drop", "keep"] = "drop",
    fit: Fit = "contain",
    width: int | None = None,
    height: int | None = None,
) -> Joined:
    """Joins clips to one H.264 video (yuv420p, MP4) of the largest clip's size and of the highest frame rate.

    `audio` drops the sound, for `mux`, or keeps that of the clips, with silence under those that have none. `fit` shows
    a clip of other proportions with bars (`contain`), cropped (`cover`) or distorted (`stretch`). The result says where
    each clip begins: that is where its line of speech goes in `mix`.
    """
    if not clips:
        raise InputError("No clips to join. What to do: give at least one.")
    shapes = [shape_of(clip) for clip in clips]
    canvas = Canvas.around(shapes)
    canvas = replace(canvas, width=even(width or canvas.width), height=even(height or canvas.height))
    starts: list[float] = []
    with product(to) as part, create_mp4(part) as file:
        picture, track = Picture(file, canvas), Track(file) if audio == "keep" else None
        for clip, shape in zip(clips, shapes):
            starts.append(picture.seconds)
            with Sound(sound_with_picture(clip) if shape.has_audio else endless_silence()) as sound:
                write_frames(picture, track, fitted(clip, canvas, fit), sound)
        picture.finish()
        if track is not None:
            track.finish()
    return Joined(picture.seconds, tuple(starts), canvas.width, canvas.height, float(canvas.rate))


_PLAYS_EVERYWHERE = ("yuv420p", "yuvj420p")
_TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers that give every packet its times; only from these can packets be copied."""

_USUAL_RATE = 25


def mux(video: Path, audio: Path, to: Path) -> float:
    """Combines a video stream and a sound track in one MP4 with its index at the front; returns its seconds.

    H.264 is copied, any other codec is encoded again. The sound becomes AAC (stereo, 48 kHz), cut or filled up with
    silence to the length of the picture; the video's own sound is left out. `audio` may be a video, too.
    """
    with opened(video) as source, Sound(recording(audio)) as sound, product(to) as part, create_mp4(part) as file:
        stream = picture_of(source, video)
        # The picture's stream is added by the call, before the track; its packets are written by the loop.
        steps = _copy(source, stream, video, file) if _copyable(source, stream) else _encode(video, file)
        track = Track(file)
        seconds = 0.0
        for seconds in steps:
            track.reach(seconds, sound)
        track.finish()
        return seconds


def _copyable(source: InputContainer, stream: VideoStream) -> bool:
    context = stream.codec_context
    plays = context.name == "h264" and context.pix_fmt in _PLAYS_EVERYWHERE
    return plays and source.format.name in _TIMED and stream.start_time is not None


def _copy(source: InputContainer, stream: VideoStream, video: Path, file: OutputContainer) -> Iterator[float]:
    """Copies the picture; yields the time up to which sound may be written, after each packet and at the end."""
    return _copied(stream, _packets(source, stream, video), file, file.add_stream_from_template(stream))


def _copied(
    stream: VideoStream, packets: Iterator[av.Packet[VideoStream]], file: OutputContainer, copy: VideoStream
) -> Iterator[float]:
    start, clock, end = stream.start_time or 0, Fraction(stream.time_base or 1), 0
    one_frame = round(1 / (clock * (stream.average_rate or _USUAL_RATE)))
    for packet in packets:
        packet.pts, packet.dts = (packet.pts or 0) - start, (packet.dts or 0) - start
        end = max(end, packet.pts + (packet.duration or one_frame))
        decoded_at = packet.dts
        packet.stream = copy
        file.mux(packet)
        yield float(decoded_at * clock)
    yield float(end * clock)


def _packets(source: InputContainer, stream: VideoStream, video: Path) -> Iterator[av.Packet[VideoStream]]:
    with reading(video):
        # The last packet is empty: it marks the end for the decoder.
        yield from (packet for packet in source.demux(stream) if packet.size)


def _encode(video: Path, file: OutputContainer) -> Iterator[float]:
    """Encodes a picture that cannot be copied; yields the same as `_copy`."""
    canvas = Canvas.around([shape_of(video)])
    return _encoded(fitted(video, canvas), Picture(file, canvas))


def _encoded(frames: Iterator[av.VideoFrame], picture: Picture) -> Iterator[float]:
    for frame in frames:
        picture.write(frame)
        yield picture.seconds
    picture.finish()
