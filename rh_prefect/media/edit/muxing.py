"""Adds a sound track to a video (`mux`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, dropwhile
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from rh_prefect.media.edit.audio_samples import Sound, recording
from rh_prefect.media.edit.output import Film, Track, create_file
from rh_prefect.media.edit.video_reader import (
    USUAL_RATE,
    Shape,
    fitted,
    opened,
    picture_begin,
    picture_of,
    reading,
    shape_of,
)

_PLAYS_EVERYWHERE = ("yuv420p", "yuvj420p")
_TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers that store the time of each packet; packets can be copied only from these."""


def mux(video: Path, audio: Path, to: Path) -> float:
    """Combines a video stream and a sound track in one MP4, with the index at the front; returns the length in seconds.

    H.264 is copied; any other codec is encoded again. The sound becomes AAC (stereo, 48 kHz), cut or extended with
    silence to the length of the picture. The sound of the video is dropped. `audio` may also be a video.
    """
    with opened(video) as source, Sound(recording(audio)) as sound, create_file(to) as file:
        stream = picture_of(source, video)
        if not _copyable(source, stream):
            canvas = replace(Shape.around([shape_of(video)]), has_audio=True)
            film = Film(file, canvas)
            film.write(fitted(video, canvas), sound)
            return film.seconds
        # The picture is the file's first stream, so both are added before the first packet is written.
        copy, track = file.add_stream_from_template(stream), Track(file)
        seconds = 0.0
        start = int((picture_begin(video) or 0) / Fraction(stream.time_base or 1))
        for seconds in _copied(stream, start, _packets(source, stream, video), file, copy):
            track.reach(seconds, sound)
        return seconds


def _copyable(source: InputContainer, stream: VideoStream) -> bool:
    context = stream.codec_context
    plays = context.name == "h264" and context.pix_fmt in _PLAYS_EVERYWHERE
    return plays and source.format.name in _TIMED and stream.start_time is not None


def _copied(
    stream: VideoStream, start: int, packets: Iterator[av.Packet[VideoStream]], file: OutputContainer, copy: VideoStream
) -> Iterator[float]:
    """Copies a picture stream from its first frame on, which is at `start`.

    Yields, after each packet and at the end, the time up to which sound may be written.
    """
    clock, end = Fraction(stream.time_base or 1), 0
    one_frame = round(1 / (clock * (stream.average_rate or USUAL_RATE)))
    shown = dropwhile(lambda packet: not packet.is_keyframe and (packet.pts or 0) < start, packets)
    for packet in _with_times(shown, start, one_frame):
        packet.pts, packet.dts = (packet.pts or 0) - start, (packet.dts or 0) - start
        end = max(end, packet.pts + (packet.duration or one_frame))
        decoded_at = packet.dts
        packet.stream = copy
        file.mux(packet)
        yield float(decoded_at * clock)
    yield float(end * clock)


def _with_times(
    packets: Iterator[av.Packet[VideoStream]], start: int, one_frame: int
) -> Iterator[av.Packet[VideoStream]]:
    """Adds the missing times of decoding: Matroska stores none, so FFmpeg does not know those of the first packets."""
    waiting: list[av.Packet[VideoStream]] = []
    for packet in chain(packets, [None]):
        if packet is not None and packet.dts is None:
            waiting.append(packet)
            continue
        known = start if packet is None or packet.dts is None else packet.dts
        for back, earlier in enumerate(reversed(waiting), 1):
            earlier.dts = known - back * one_frame
        yield from waiting
        waiting.clear()
        if packet is not None:
            yield packet


def _packets(source: InputContainer, stream: VideoStream, video: Path) -> Iterator[av.Packet[VideoStream]]:
    with reading(video):
        # The last packet is empty: it marks the end for the decoder.
        yield from (packet for packet in source.demux(stream) if packet.size)
