"""Writes sound files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from rh_prefect.emulator.render.terrain import Array

_CODECS = {".mp3": ("mp3", "libmp3lame", "s16p"), ".wav": ("wav", "pcm_s16le", "s16"), ".flac": ("flac", "flac", "s16")}
_LOUDEST = 0.89


def write_sound(to: Path, samples: Array, *, rate: int, bit_rate: int = 128_000, comment: str = "") -> None:
    """Writes samples in the format of the file's name: .mp3, .wav or .flac.

    Args:
        to: The file.
        samples: Shape (channels, samples), -1 to 1; one or two channels. Louder ones are turned down as a whole.
        rate: Samples per second.
        bit_rate: Bits per second, where the format has a choice.
        comment: What is written beside the sound.
    """
    container_format, codec, sample_format = _CODECS[to.suffix]
    layout = "mono" if samples.shape[0] == 1 else "stereo"
    with av.open(str(to), "w", format=container_format) as container:
        container.metadata.update({"comment": comment} if comment else {})
        stream = cast(AudioStream, container.add_stream(codec, rate=rate, layout=layout))
        stream.codec_context.format = av.AudioFormat(sample_format)
        if codec == "libmp3lame":
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(
            _as_int16(samples, planar=sample_format.endswith("p")), sample_format, layout
        )
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _as_int16(samples: Array, *, planar: bool) -> NDArray[np.int16]:
    peak = max(1.0, float(np.abs(samples).max(initial=0.0)) / _LOUDEST)
    whole = np.round(samples / peak * 32767).astype(np.int16)
    return np.ascontiguousarray(whole if planar else whole.T.reshape(1, -1))
