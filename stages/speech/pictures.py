"""Images beside the clips of a record: a spoken question about a picture.

They are decoded as those of the vision pipeline are, within its bounds, and stand before the clips in what a user says
where the row does not place them. Names and numbers of media are those of one kind: image 1, clip 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gristmill.filters.image.look import look
from gristmill.model.processing.chat.conversation import BadSample
from gristmill.model.processing.image_file import MAX_PIXELS, ImageError, decode_image
from gristmill.stages.containers.media import Media
from gristmill.stages.media.turns import IMAGE, Album, names_media
from gristmill.stages.text.samples import BadMedium

FIELDS = ("image", "images")


class Picture(NamedTuple):
    """`medium`: a row of MEDIA; `look`: how it looks."""

    medium: dict[str, Any]
    look: int


def album_of(media: Sequence[Media], row: Mapping[str, Any], messages: Any) -> Album:
    """The images among the media of a record; all of them where nothing in the row names any. Raises BadSample."""
    album = Album([item for item in media if item.kind == IMAGE.kind], IMAGE)
    album.add_fields(row, FIELDS)
    if not album.named and not names_media(messages, IMAGE):
        album.add_all()
    return album


def pictures_of(media: Sequence[Media], most: int) -> tuple[Picture, ...]:
    """Decoded. Raises BadSample: too_many_images; BadMedium for the first that cannot be had."""
    if len(media) > most:
        raise BadSample("too_many_images", f"{len(media)}, allowed are {most}")
    pictures = []
    for number, item in enumerate(media, 1):
        try:
            pixels = decode_image(item.data, MAX_PIXELS)
        except ImageError as error:
            raise BadMedium(number, error) from None
        height, width = pixels.shape[:2]
        pictures.append(Picture(item.as_row() | {"height": height, "width": width}, look(pixels)))
    return tuple(pictures)
