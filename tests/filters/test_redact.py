"""redact: what identifies a person does not reach a ledger; ordinary values do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.filters.redact import redact


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        ("write to jo.smith+x@mail.example.co.uk now", "write to <email> now"),
        ("mailto:ünal@example.org.", "mailto:<email>."),
        ("call +44 20 7946 0958 today", "call <phone> today"),
        ("(555) 123-4567", "<phone>"),
        ("555-1234", "<phone>"),
        ("from 192.168.0.12, and 8.8.8.8.", "from <ip>, and <ip>."),
        ("card 4111 1111 1111 1111!", "card <card>!"),
        ("4111-1111-1111-1111", "<card>"),
        ("378282246310005", "<card>"),
        ("https://example.org/p?session=abc&u=jo#top", "https://example.org/p?<query>"),
        ("https://example.org/p#access_token=abc", "https://example.org/p?<query>"),
        ("/search?name=jo", "/search?<query>"),
        ("ftp://jo:secret@example.org/file", "ftp://<login>@example.org/file"),
        ("https://example.org/path", "https://example.org/path"),
        ("why? because", "why? because"),
        ("2026-11-22", "2026-11-22"),
        ("3.14159265358", "3.14159265358"),
        ("0.6543", "0.6543"),
        ("too_few_words 49", "too_few_words 49"),
        ("version 999.1.1.1", "version 999.1.1.1"),
        ("user@localhost", "user@localhost"),
        ("de", "de"),
        ("", ""),
    ],
)
def test_redact(value: str, safe: str) -> None:
    assert redact(value) == safe


def test_a_number_without_the_check_digit_of_a_card_is_no_card() -> None:
    assert "<card>" not in redact("4111 1111 1111 1112")


def test_a_page_of_repeats_takes_linear_time() -> None:
    """Not timed: were it quadratic, this would take minutes."""
    for repeated in ("https://", "a@", "1 ", "?a", "a@b.", "1.1.", "(1)", "://", "a+"):
        assert len(redact(repeated * 100_000)) <= 80


def test_cut_to_length_after_redacting() -> None:
    assert redact("x" * 100) == "x" * 79 + "…"
    assert redact("x" * 80) == "x" * 80
    assert redact("y" * 75 + " jo@example.org") == "y" * 75 + " <em…"
    with pytest.raises(ValueError, match="max_chars is 0"):
        redact("x", max_chars=0)


@given(st.text(), st.integers(1, 200))
def test_never_longer_than_asked(value: str, max_chars: int) -> None:
    assert len(redact(value, max_chars)) <= max_chars


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_an_address_between_spaces_never_survives(before: str, after: str) -> None:
    assert "jo.smith@example.org" not in redact(f"{before} jo.smith@example.org {after}", 200)
