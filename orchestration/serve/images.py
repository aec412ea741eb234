"""Images of a chat request: which parts name them, where their bytes come from, and what is refused.

A part of type `image_url` holds an image as a data URL, or names it by http(s), which is fetched only from hosts that
the operator allows (`serve/fetch.py`). Every bound is known before a pixel is decoded: how many images, bytes of each
and of all, pixels by its header, tokens by its plan. What is wrong with an image is a 400 that names it.
Source: OpenAI's API reference, chat completions, content parts; RFC 2397 for data URLs.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from gristmill.model.processing.chat.turns import Shown
from gristmill.model.windows.placeholders import Cut, Medium
from gristmill.orchestration.serve.engine import Busy
from gristmill.orchestration.serve.errors import ApiError, refuse, unserved
from gristmill.orchestration.serve.fetch import Fetcher, FetchRefused, TooLarge

_DETAILS: Mapping[str, int | None] = {"auto": None, "low": 1, "high": None}
"""Crops of an image at most, by `detail`; None: as many as the server cuts images into."""
_PIECE = 1 << 16  # characters
_DATA = re.compile(r"data:([^,;]{0,100})((?:;[^,;]{0,100}){0,8}),", re.IGNORECASE)


@dataclass(frozen=True)
class ImageLimits:
    """What a request may show. `max_images`; `max_bytes` of an image and `max_total_bytes` of all, as files;
    `max_pixels` of an image, and `max_crops` that it is cut into. `hosts` that images may be fetched from, as
    `serve/fetch.py` has them; `seconds` that all fetches of a request, and the wait for their turn, may take."""

    max_images: int = 16
    max_bytes: int = 20 << 20
    max_total_bytes: int = 64 << 20
    max_pixels: int = 32_000_000
    max_crops: int = Cut.max_crops
    hosts: tuple[str, ...] = ()
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_images", "max_bytes", "max_total_bytes", "max_pixels", "max_crops", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed is above 0")


@dataclass(frozen=True)
class ImageRef:
    """An image that a request names. `number`: from 1, in the order of its parts."""

    number: int
    url: str
    max_crops: int | None

    @property
    def is_data(self) -> bool:
        """Whether its bytes came along."""
        return self.url[:5].lower() == "data:"


def image_refs(shown: Sequence[Shown], limits: ImageLimits) -> list[ImageRef]:
    """The images of a conversation. Raises ApiError for too many, and for parts that name none."""
    if len(shown) > limits.max_images:
        raise refuse(f"messages: {len(shown)} images: this server takes {limits.max_images} a request", "messages")
    return [_ref(number, item.source) for number, item in enumerate(shown, 1)]


def _ref(number: int, part: Mapping[str, Any]) -> ImageRef:
    fields = part.get("image_url")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("url"), str) or not fields["url"]:
        raise wrong(number, "image_url: allowed is an object with url, a text")
    known = {"type", "image_url"}, {"url", "detail"}
    if unknown := sorted((part.keys() - known[0]) | (fields.keys() - known[1])):
        raise wrong(number, f"{unknown[0]} is not supported; allowed are url and detail")
    detail = fields.get("detail") or "auto"
    if not isinstance(detail, str) or detail not in _DETAILS:
        raise wrong(number, f"detail={detail!r}: allowed are {', '.join(_DETAILS)}"[:300])
    return ImageRef(number, fields["url"], _DETAILS[detail])


def wrong(number: int, message: str) -> ApiError:
    """What is wrong with an image: 400."""
    return refuse(f"messages: image {number}: {message}", "messages", "invalid_image")


def _too_large_together(number: int, limits: ImageLimits) -> ApiError:
    return wrong(number, f"all images together are larger than {limits.max_total_bytes:,} bytes")


async def fetched(
    refs: Sequence[ImageRef], limits: ImageLimits, fetcher: Fetcher, turns: asyncio.Semaphore
) -> dict[int, bytes]:
    """The bytes of those images that are named by http(s), by number. One after another: a request has one connection,
    and one of `turns` while it has it. Raises ApiError: 429 if its turn has not come."""
    named = [ref for ref in refs if not ref.is_data]
    if not named:
        return {}
    if not limits.hosts:
        raise wrong(
            named[0].number,
            "url: this server fetches no images: send a data URL (data:image/png;base64,...), or let its operator"
            " allow hosts (grist serve --image-host)",
        )
    files: dict[int, bytes] = {}
    left = limits.max_total_bytes
    ref: ImageRef | None = None  # until it is this request's turn
    try:
        async with asyncio.timeout(limits.seconds), turns:
            for ref in named:
                files[ref.number] = await fetcher.get(ref.url, min(limits.max_bytes, left))
                left -= len(files[ref.number])
    except (FetchRefused, TimeoutError) as error:
        if ref is None:
            raise unserved(Busy("images of as many requests as may be are being fetched: ask again later")) from error
        if isinstance(error, TooLarge) and left < limits.max_bytes:
            raise _too_large_together(ref.number, limits) from error
        late = f"the images of a request have not come in {limits.seconds:g} s"
        raise wrong(ref.number, f"url: {late if isinstance(error, TimeoutError) else error}") from error
    return files


def media_of(refs: Sequence[ImageRef], files: Mapping[int, bytes], limits: ImageLimits) -> list[Medium]:
    """The images as prompts take them. `files`: of those that were fetched, by number. Raises ApiError."""
    media: list[Medium] = []
    left = limits.max_total_bytes
    for ref in refs:
        data = files[ref.number] if ref.number in files else _data(ref, limits.max_bytes)
        left -= len(data)
        if left < 0:
            raise _too_large_together(ref.number, limits)
        media.append(Medium("image", data, ref.max_crops))
    return media


def _data(ref: ImageRef, most: int) -> bytes:
    """The bytes of a data URL. Raises ApiError."""
    match = _DATA.match(ref.url)
    if match is None:
        raise wrong(ref.number, "url: no data URL: allowed is data:image/png;base64,... with another type if it has")
    if match[1] and not match[1].lower().startswith(("image/", "application/octet-stream")):
        raise wrong(ref.number, f"url: a data URL of {match[1]!r}: allowed is image/...")
    body = ref.url[match.end() :]
    if not match[2].lower().endswith(";base64"):
        data = from_percents(body, most)
    else:
        try:
            data = from_base64(body, most)
        except ValueError as error:
            raise wrong(ref.number, f"url: no base64: {error}") from error
    if len(data) > most:
        raise wrong(ref.number, f"larger than {most:,} bytes: send a smaller image")
    return data


def from_base64(text: str, most: int) -> bytes:
    """The bytes; where they are more than `most`, no more than shows it. Raises ValueError for what is no base64."""
    return base64.b64decode(text[: 4 * (most // 3 + 2)], validate=True)


def from_percents(text: str, most: int) -> bytes:
    """The bytes of a text in which `%41` is one; where they are more than `most`, no more than shows it. In
    pieces: what decodes a text takes 80 times its memory."""
    data, at = bytearray(), 0
    while at < len(text) and len(data) <= most:
        end = at + _PIECE
        broken = text.rfind("%", end - 2, end)  # what belongs to it stands behind the end
        end = broken if broken > at else end
        data += unquote_to_bytes(text[at:end])
        at = end
    return bytes(data)
