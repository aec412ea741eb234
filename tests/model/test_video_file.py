"""Frames of videos: which, which way up, and one reason for each file that has none."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from videos import NEEDED, numbers, picture, shade, sound, turned, video

from gristmill.model.processing import video_file
from gristmill.model.processing.video_file import VideoError, VideoLimits, can_decode, video_frames

pytestmark = pytest.mark.skipif(not can_decode(), reason=NEEDED)


def frames(data: bytes, count: int = 4, **limits: Any) -> list[np.ndarray]:
    return [frame.pixels for frame in video_frames(data, count, VideoLimits(**limits))]


def reason(data: bytes, count: int = 4, **limits: Any) -> str:
    with pytest.raises(VideoError) as caught:
        frames(data, count, **limits)
    return f"{caught.value.reason}: {caught.value}"


@pytest.mark.parametrize(
    ("format", "codec", "options"),
    [
        ("mp4", "libx264", {"bf": "2"}),
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("mov", "mpeg4", {}),
        ("webm", "libvpx-vp9", {}),
        ("matroska", "libx264", {}),
        ("avi", "mpeg4", {}),
    ],
)
@pytest.mark.parametrize("keyframes", [1, 5, 1000])
def test_frames_stand_in_the_middle_of_equal_parts(format, codec, options, keyframes):
    data = video(format=format, codec=codec, keyframes=keyframes, **options)
    shown = list(video_frames(data, 4))
    assert numbers([frame.pixels for frame in shown]) == [3, 9, 15, 21]
    assert [round(frame.seconds * 12) for frame in shown] == [3, 9, 15, 21]
    assert numbers(frames(data, 1)) == [12]
    assert numbers(frames(data, 24)) == numbers(frames(data, 500)) == list(range(24))


def test_the_same_bytes_give_the_same_pixels_which_are_those_of_the_picture():
    data = video()
    for first, second in zip(frames(data), frames(data), strict=True):
        assert np.array_equal(first, second)
    (middle,) = frames(data, 1)
    assert np.abs(middle.astype(int) - picture(12, 48, 64)).mean() < 2


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),  # a quarter to the right, as of telephones that are held upright
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
        ((-1, 0, 0, 1), (0, 1)),  # a mirror
        ((0, 1, 1, 0), (0, 0)),
    ],
)
def test_a_frame_is_turned_as_the_file_says(matrix, corner):
    (shown,) = frames(turned(video(), matrix), 1)
    assert shown.shape == ((64, 48, 3) if matrix[1] else (48, 64, 3))
    corners = {(down, right): int(shown[2 - 5 * down, 2 - 5 * right, 0]) for down in (0, 1) for right in (0, 1)}
    assert max(corners, key=lambda place: corners[place]) == corner
    assert sorted(corners.values())[2] < shade(12) + 10


def test_each_file_without_frames_has_one_reason():
    mp4, webm, avi = video(), video(format="webm", codec="libvpx-vp9"), video(format="avi", codec="mpeg4")
    assert reason(mp4[:-200]) == f"video.truncated: {len(mp4) - 200} bytes, its header says {len(mp4)} (mp4)"
    assert reason(mp4[:40]) == "video.truncated: 40 bytes, which end before the box moov (mp4)"
    assert reason(webm[:-100]).startswith("video.truncated: ") and reason(avi[:-100]).startswith("video.truncated: ")
    assert reason(b"").startswith("video.unreadable: no format of videos")
    assert reason(b"#EXTM3U\nfile:///etc/passwd\n").startswith("video.unreadable: no format of videos")
    assert reason(b"\x1a\x45\xdf\xa3" + bytes(range(256))).startswith("video.unreadable: FFmpeg does not open it")
    assert reason(sound()) == "video.no_video: no stream of pictures that move; streams are of type: audio"
    assert reason(video(frames=0)).startswith("video.no_video: ")
    assert reason(video(frames=0, format="avi", codec="mpeg4")) == "video.empty: a video without a frame"
    assert reason(video(codec="png", format="mov")) == "video.unsupported: codec png is not read"
    place = mp4.index(b"mdat")
    damaged = mp4[: place + 700] + bytes(600) + mp4[place + 1300 :]
    assert reason(damaged, 24).startswith("video.damaged: ")


def test_bounds_are_those_that_are_given():
    data = video(keyframes=1000)
    assert reason(data, pixels=48 * 64 - 1) == ("video.too_many_pixels: 48x64 pixels a frame: 3072, allowed are 3071")
    assert len(frames(data, pixels=48 * 64)) == 4
    assert reason(data, seconds=1.9) == "video.too_long: 2.0 seconds, allowed are 1.9"
    assert reason(data, 1, decoded=12).startswith("video.too_many_frames: more than 12 would have to be decoded")
    assert numbers(frames(data, 1, decoded=13)) == [12]
    with pytest.raises(ValueError, match="count=0: at least 1 frame"):
        next(video_frames(data, 0))


def test_decoding_begins_at_the_keyframe_before_each_frame():
    data = video(frames=120, keyframes=5)
    assert len(frames(data, 3, decoded=15)) == 3  # 3 stretches of 5, not 100 frames
    assert numbers(frames(data, 3))[0] == 20


def test_an_index_that_leads_too_far_costs_decoding_from_the_start(monkeypatch):
    data, seek = video(keyframes=6), video_file._Film._seek
    asked: list[int | None] = []

    def too_far(film: Any, key: int | None) -> None:
        asked.append(key)
        seek(film, film._keys[-1] if key is not None else None)

    monkeypatch.setattr(video_file._Film, "_seek", too_far)
    assert numbers(frames(data, 4)) == [3, 9, 15, 21]
    assert None in asked


def test_one_frame_exists_at_a_time():
    shown = video_frames(video(), 4)
    first = next(shown)
    assert numbers([first.pixels]) == [3] and len(list(itertools.islice(shown, 2))) == 2
    shown.close()
