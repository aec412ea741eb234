"""Media and turns: which media a row names, however it does, and where they stand in its texts."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.stages.containers.media import Media
from gristmill.stages.media.turns import IMAGE, Album


def album(*names: str) -> Album:
    return Album([Media("image", f"{n:064x}", name, b"") for n, name in enumerate(names)], IMAGE)


def nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = {"path": [value]} if level % 2 else [value, None, ""]
    return value


def test_names_are_read_in_their_order_from_lists_and_objects() -> None:
    pictures = album("a.png", "b.png", "c.png", "d.png")
    pictures.add_fields({"images": ["c.png", [{"url": "a.png"}, None], (4,)], "image": ""}, ("images", "image"))
    assert [item.url for item in pictures.named] == ["c.png", "a.png", "d.png"]


def test_a_field_may_be_nested_deeper_than_functions_can_call_themselves() -> None:
    pictures = album("a.png", "b.png")
    pictures.add_fields({"images": nested("b.png", 5_000)}, ("images",))
    assert [item.url for item in pictures.named] == ["b.png"]
    with pytest.raises(BadSample, match="missing"):
        album("a.png").add_fields({"images": nested("b.png", 5_000)}, ("images",))
