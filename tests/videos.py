"""Videos made by the package `av`: frame n of a clip has a colour of its own, and a bright corner that says which way
up it is."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np

NEEDED = "the extra video is not installed: nothing makes or decodes a video"


def shade(number: int) -> int:
    """The gray of frame `number`: 8 levels apart, so that a lossy codec does not mix two up."""
    return 20 + 8 * (number % 24)


def picture(number: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: one gray, and white at the top left."""
    pixels = np.full((height, width, 3), shade(number), np.uint8)
    pixels[: height // 4, : width // 4] = 250
    return pixels


def numbers(frames: list[np.ndarray]) -> list[int]:
    """Which frames these are, by the gray at their middle."""
    return [round((float(f[f.shape[0] // 2, f.shape[1] // 2].mean()) - 20) / 8) for f in frames]


def video(
    frames: int = 24, height: int = 48, width: int = 64, format: str = "mp4", codec: str = "libx264",
    rate: int = 12, keyframes: int = 6, first: int = 0, **options: str,
) -> bytes:  # fmt: skip
    """The bytes of a file of so many frames, a keyframe at every so many."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format) as container:
        track = container.add_stream(codec, rate=rate, options=options)
        track.height, track.width, track.pix_fmt = height, width, "rgb24" if codec == "png" else "yuv420p"
        track.codec_context.gop_size = keyframes
        track.codec_context.time_base = Fraction(1, rate)
        track.codec_context.thread_count, track.codec_context.bit_rate = 1, 2_000_000
        container.start_encoding()
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + n, height, width), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, rate)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return stream.getvalue()


def sound(format: str = "mp4") -> bytes:
    """A file of a video's kind with sound alone."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format) as container:
        track = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16_000, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return stream.getvalue()


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 whose track is shown by the matrix a, b, c, d."""
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in values) + data[at + 36 :]
