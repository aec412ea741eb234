"""Placeholders: what stands in a sample for a medium, and what a text that spells one becomes."""

from __future__ import annotations

import pytest

from gristmill.model.processing.chat.template import prompt
from gristmill.model.processing.chat.turns import Conversation, Shown, Turn
from gristmill.model.processing.segments import (
    Placeholder,
    Segment,
    placeholder,
    placeholder_of,
    placeholders,
    split_at_placeholders,
)


@pytest.mark.parametrize(("kind", "number"), [("image", 1), ("audio", 12), ("image", 999_999_999)])
def test_a_placeholder_says_what_it_stands_for(kind: str, number: int) -> None:
    part = placeholder(kind, number)
    assert placeholder_of(part) == Placeholder(kind, number)
    assert placeholder_of(Segment(part.text)) is None, "text that spells one is text"


@pytest.mark.parametrize("text", ["<|image|>", "<|image_|>", "<|image_1|> ", "<|video_1|>", "<|image_1234567890|>"])
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert placeholder_of(Segment(text, special=True)) is None


def test_a_text_is_split_where_it_spells_placeholders_of_a_kind() -> None:
    text = Segment("<|image_02|>Is <|audio_1|> this<|image_1|><|image_3|> it?", loss_mask=True)
    image = [placeholder("image", number) for number in (2, 1, 3)]
    between, after = Segment("Is <|audio_1|> this", loss_mask=True), Segment(" it?", loss_mask=True)
    assert split_at_placeholders(text, "image") == [image[0], between, image[1], image[2], after]
    assert placeholders(split_at_placeholders(text, "audio")) == [Placeholder("audio", 1)]
    assert split_at_placeholders(Segment(""), "image") == []


def test_the_chat_template_numbers_media_with_the_same_placeholders() -> None:
    turns = (Turn("user", "ab", media=(Shown("image", 1, None), Shown("audio", 2, None))),)
    assert placeholders(prompt(Conversation(turns))) == [Placeholder("image", 1), Placeholder("audio", 1)]
