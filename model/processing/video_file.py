"""Bytes of a video file, from whoever it may be, to some of its frames: uint8 [height, width, 3], upright.

FFmpeg reads, through the package `av` (the extra `video`); here stand the bounds. The demuxer is that of the file's
first bytes and never guessed, so that no playlist sends it to other files. All packets are looked at before one is
decoded: which frames are shown when, and where decoding can begin. So frames are chosen by the times at which they are
shown, whatever a header says, and each is decoded from the keyframe before it; one picture exists at a time. Pixels are
those that are stored: their shape (anamorphic films) and their range of light (HDR) are not changed.
"""

from __future__ import annotations

import importlib.util
import io
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gristmill.model.processing.image_file import MAX_PIXELS
from gristmill.model.processing.video_container import VideoError as VideoError
from gristmill.model.processing.video_container import container_of

MAX_SECONDS = 4 * 3600.0
MAX_DECODED = 20_000
"""Frames that are decoded for those that are wanted: some minutes of a film whose only keyframe is the first."""
MAX_PACKETS = 2_000_000
"""Pictures of a file, which are counted before one is decoded: 9 hours at 60 a second."""
CODECS = frozenset(
    {
        "av1", "ffv1", "flv1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2",
        "msmpeg4v3", "prores", "rawvideo", "theora", "vc1", "vp8", "vp9", "wmv1", "wmv2", "wmv3",
    }
)  # fmt: skip
"""That are decoded. FFmpeg knows hundreds of others, few of them in use and few of them tested."""
INSTALL = "pip install 'gristmill[video]'"


@dataclass(frozen=True)
class VideoLimits:
    """`seconds` of a video, `pixels` of each frame, and how many frames may be `decoded` to get at those wanted."""

    seconds: float = MAX_SECONDS
    pixels: int = MAX_PIXELS
    decoded: int = MAX_DECODED


class VideoFrame(NamedTuple):
    """`seconds`: from the first frame of the video on, when it is shown; `pixels`: uint8 [height, width, 3]."""

    seconds: float
    pixels: np.ndarray


def can_decode() -> bool:
    """Whether the package `av` is installed here."""
    return importlib.util.find_spec("av") is not None


def video_frames(data: bytes, count: int, limits: VideoLimits | None = None) -> Iterator[VideoFrame]:
    """Frames of a video in order, one decoded at a time: those shown in the middle of each of `count` equal parts of
    its length. So the first is half a part behind its beginning, the last half a part before its end, and a video of
    fewer frames gives each that it has once.

    Raises VideoError, some of it between frames; ModuleNotFoundError where `av` is not installed; ValueError for a
    `count` below 1.
    """
    if count < 1:
        raise ValueError(f"count={count}: at least 1 frame")
    limits = limits or VideoLimits()
    name = container_of(data)
    with _opened(data, name, limits) as (container, stream):
        times = _times(container, stream, limits)
        film = _Film(container, stream, times.keys, limits)
        for shown in times.chosen(count):
            frame = film.at(shown)
            since = (_shown(frame) or shown) - times.shown[0]
            yield VideoFrame(float(since * stream.time_base), _upright(frame))


@contextmanager
def _opened(data: bytes, name: str, limits: VideoLimits) -> Iterator[tuple[Any, Any]]:
    """(container, its stream of pictures), of which none is decoded yet; errors of FFmpeg in the block as
    VideoError."""
    import av  # an extra: whoever decodes no video needs none

    try:
        opened = av.open(io.BytesIO(data), "r", name, metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise VideoError("unreadable", f"FFmpeg does not open it as {name}: {_words(error)}") from None
    with opened as container:
        stream = _pictures(container)
        size = stream.codec_context.height, stream.codec_context.width
        _check_pixels(*size, limits)
        stream.codec_context.thread_count = 1  # a worker is one process of many
        stream.codec_context.options = {"max_pixels": str(limits.pixels)}
        try:
            yield container, stream
        except VideoError:
            raise
        except (av.FFmpegError, ValueError, OverflowError) as error:  # the last: numbers that it has no room for
            raise VideoError("damaged", f"decoding stops: {_words(error)}") from None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _pictures(container: Any) -> Any:
    """The first stream of a container whose pictures move. Raises VideoError."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise VideoError("no_video", f"no stream of pictures that move; streams are of type: {kinds}")
    context = streams[0].codec_context
    codec = None if context is None else context.codec.canonical_name
    if codec not in CODECS:
        raise VideoError("unsupported", f"codec {codec or 'unknown'} is not read")
    return streams[0]


def _check_pixels(height: int, width: int, limits: VideoLimits) -> None:
    if height * width > limits.pixels:
        text = f"{height}x{width} pixels a frame: {height * width}, allowed are {limits.pixels}"
        raise VideoError("too_many_pixels", text)


class _Times(NamedTuple):
    """In units of the stream: when frames are `shown`, at which of them decoding can begin (`keys`), both rising, and
    the `end` of the last."""

    shown: list[int]
    keys: list[int]
    end: int

    def chosen(self, count: int) -> list[int]:
        """When the frames are shown that stand in the middle of each of `count` equal parts, each once."""
        length = self.end - self.shown[0]
        middles = [self.shown[0] + (2 * part + 1) * length // (2 * count) for part in range(count)]
        return sorted({self.shown[max(0, bisect_right(self.shown, middle) - 1)] for middle in middles})


def _times(container: Any, stream: Any, limits: VideoLimits) -> _Times:
    """Of all packets of the stream. Raises VideoError."""
    shown, keys, lasting = list[int](), list[int](), dict[int, int]()
    for packet in container.demux(stream):
        at = packet.dts if packet.pts is None else packet.pts
        if at is None:  # the one that ends the stream
            continue
        if packet.is_corrupt:
            raise VideoError("truncated", f"the bytes of frame {len(shown) + 1} are not all there")
        if packet.is_keyframe:
            keys.append(at)
        if not packet.is_discard:  # an edit list cuts it away
            shown.append(at)
            lasting[at] = packet.duration or 0
        if len(shown) > MAX_PACKETS:
            raise VideoError("too_many_frames", f"more than {MAX_PACKETS} frames")
    if not shown:
        raise VideoError("empty", "a video without a frame")
    shown.sort()
    times = _Times(shown, sorted(keys), shown[-1] + lasting[shown[-1]])
    seconds = float((times.end - shown[0]) * stream.time_base)
    if seconds > limits.seconds:
        raise VideoError("too_long", f"{seconds:.1f} seconds, allowed are {limits.seconds:g}")
    return times


class _Film:
    """Frames of a stream by when they are shown, asked for in order."""

    def __init__(self, container: Any, stream: Any, keys: list[int], limits: VideoLimits) -> None:
        self._container, self._stream, self._keys, self._limits = container, stream, keys, limits
        self._decoded = 0
        self._reached: int | None = None  # when the last frame that was decoded is shown
        self._landed: int | None = None  # the same of the first since decoding began anew
        self._frames: Iterator[Any] = iter(())

    def at(self, shown: int) -> Any:
        """The frame that is shown then. Raises VideoError; FFmpeg's errors."""
        before = bisect_right(self._keys, shown)
        key = self._keys[before - 1] if before else None
        if self._reached is None or (key is not None and key > self._reached):
            self._seek(key)
            frame = self._next(shown)
            if self._landed is None or self._landed > shown:  # an index that leads too far: from the start
                self._seek(None)
                frame = self._next(shown)
        else:
            frame = self._next(shown)
        if frame is None:
            where = float(shown * self._stream.time_base)
            raise VideoError("damaged", f"decoding gives no frame for second {where:.3f} of its clock")
        return frame

    def _seek(self, key: int | None) -> None:
        first = self._stream.start_time or 0
        self._container.seek(min([first, *self._keys[:1]]) if key is None else key, stream=self._stream)
        self._frames, self._reached = self._container.decode(self._stream), None
        self._landed = None

    def _next(self, shown: int) -> Any | None:
        """The first frame from here on that is shown then or later; None: there is none."""
        for frame in self._frames:
            self._decoded += 1
            if self._decoded > self._limits.decoded:
                raise VideoError(
                    "too_many_frames", f"more than {self._limits.decoded} would have to be decoded for those wanted"
                )
            self._reached = _shown(frame)
            self._landed = self._reached if self._landed is None else self._landed
            if self._reached is not None and self._reached >= shown:
                return self._checked(frame)
        return None

    def _checked(self, frame: Any) -> Any:
        if frame.is_corrupt:
            raise VideoError("damaged", "a frame is damaged, or what it builds upon is missing")
        _check_pixels(frame.height, frame.width, self._limits)
        return frame


def _shown(frame: Any) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _upright(frame: Any) -> np.ndarray:
    """Pixels of a frame as its display matrix turns them, by quarters; others are not applied."""
    from av.video.reformatter import Interpolation

    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # the same on every processor
    pixels_HWC = frame.to_ndarray(format="rgb24", interpolation=exact, threads=1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels_HWC
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if b and c and not (a or d):
        pixels_HWC, right, down = pixels_HWC.transpose(1, 0, 2), c, b
    elif a and d and not (b or c):
        right, down = a, d
    else:
        return pixels_HWC
    pixels_HWC = pixels_HWC[:, ::-1] if right < 0 else pixels_HWC
    return np.ascontiguousarray(pixels_HWC[::-1] if down < 0 else pixels_HWC)
