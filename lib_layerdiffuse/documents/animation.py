"""Frames as an animated picture, or as a film with alpha."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..errors import DiaphaneError
from .png import COMPRESS_LEVEL, text_chunks

APNG = "APNG"
WEBP = "WebP"
WEBM = "WebM"
SUFFIXES = {APNG: "png", WEBP: "webp", WEBM: "webm"}
LOSSLESS = 100
LARGEST_WEBP = 16383
# What ComfyUI's frontend reads, by the EXIF tags in which ComfyUI keeps it in WebP files.
READ = {0x0110: "prompt", 0x010F: "workflow"}
WORST_CRF = 63
BT709 = 1  # as H.273 numbers matrix, primaries and transfer
LIMITED = 1  # as FFmpeg numbers the range of colours


def write_animation(
    file: BinaryIO, form: str, frames: Iterator[np.ndarray], fps: float, loop: int, quality: int, metadata: Mapping[str, str]
) -> None:
    """Write frames [H, W, 4] in 0 to 255, straight alpha. loop: how often they are shown, 0 = for ever; a film does not hold it.

    A film takes one frame after another; the other formats need all of them in memory.

    quality: 0 to 100, which is lossless; APNG is always. Raises DiaphaneError if the format cannot hold them or has no encoder.
    """
    if form == WEBM:
        _write_webm(file, frames, fps, quality, metadata)
        return
    first, *others = map(Image.fromarray, frames)
    if form == WEBP and max(first.size) > LARGEST_WEBP:
        raise DiaphaneError(f"WebP holds at most {LARGEST_WEBP} pixels a side, got {first.width}x{first.height}. Set format to APNG.")
    # Whole milliseconds, whose sum is right.
    times = [round(index * 1000 / fps) for index in range(len(others) + 2)]
    durations = [end - start for start, end in zip(times, times[1:], strict=False)]
    if form == APNG:
        options = {"pnginfo": text_chunks(metadata), "compress_level": COMPRESS_LEVEL}
    else:
        options = {"exif": _exif(metadata), "lossless": quality == LOSSLESS, "quality": quality}
    first.save(file, "PNG" if form == APNG else "WEBP", save_all=True, append_images=others, duration=durations, loop=loop, **options)


def _exif(metadata: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    for tag, key in READ.items():
        if key in metadata:
            exif[tag] = f"{key}:{metadata[key]}"
    return exif


def _write_webm(file: BinaryIO, frames: Iterator[np.ndarray], fps: float, quality: int, metadata: Mapping[str, str]) -> None:
    try:
        import av  # comes with ComfyUI
        from av.codec import Codec

        Codec("libvpx-vp9", "w")
    except (ImportError, ValueError) as error:  # PyAV's error for a codec that is not there is a ValueError
        raise DiaphaneError(
            "WebM files need the Python package av with the encoder libvpx-vp9, which is missing here. Install av (PyAV), or set format "
            "to WebP or APNG."
        ) from error

    first = next(frames)
    height, width = first.shape[:2]
    with av.open(file, "w", format="webm") as container:
        container.metadata.update({key: metadata[key] for key in READ.values() if key in metadata})
        stream = container.add_stream("libvpx-vp9", rate=Fraction(round(fps * 1000), 1000))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuva420p", 0
        # At the encoder's next speed edges of alpha are off by twice as much.
        stream.options = {"cpu-used": "0", **({"lossless": "1"} if quality == LOSSLESS else {"crf": str(_crf(quality))})}
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        for pixels in itertools.chain([first], frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
            container.mux(stream.encode(frame.reformat(format="yuva420p", dst_colorspace="ITU709", dst_color_range="MPEG")))
        container.mux(stream.encode())


def _crf(quality: int) -> int:
    return round(WORST_CRF * (1.0 - quality / LOSSLESS))
