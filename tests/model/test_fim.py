"""Fill-in-the-middle: nothing is lost, nothing is torn, and the record alone decides."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.model.processing.fim import MIDDLE, PREFIX, SUFFIX, Fim, fim
from gristmill.model.processing.segments import END_OF_TEXT, Segment

ALWAYS = [
    Fim(rate=1, spm_rate=0),
    Fim(rate=1, spm_rate=1),
    Fim(rate=1, spm_rate=0, middle_only=True),
    Fim(rate=1, spm_rate=1, middle_only=True),
]


def whole(parts: list[Segment]) -> str:
    """The document again: prefix, middle, suffix by the sentinels that stand before them."""
    at, texts = "", {PREFIX: "", SUFFIX: "", MIDDLE: ""}
    for part in parts:
        if part.special:
            at = part.text
        else:
            texts[at] += part.text
    return texts[PREFIX] + texts[MIDDLE] + texts[SUFFIX]


@given(st.text(max_size=60), st.text(max_size=5), st.sampled_from(ALWAYS), st.integers(0, 99))
def test_the_document_can_be_put_together_again(text, record, config, seed):
    parts = fim(text, record, Fim(config.rate, config.spm_rate, seed, config.middle_only))
    assert parts is not None and whole(parts) == text
    names = [part.text for part in parts if part.special]
    assert sorted(names) == sorted([PREFIX, SUFFIX, MIDDLE, END_OF_TEXT]) and names[-1] == END_OF_TEXT
    assert not any(part.loss_mask for part in parts if part.text in (PREFIX, SUFFIX, MIDDLE) and part.special)


TORN = (
    "e\u0301 a\r\n\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f44d\U0001f3fd"
    " \U0001f1e9\U0001f1ea \u0915\u094d\u0937\u093f 数"
)


@given(st.integers(0, 5000), st.sampled_from(ALWAYS))
def test_no_cut_falls_inside_a_character(seed, config):
    parts = fim(TORN, "r", Fim(config.rate, config.spm_rate, seed, config.middle_only))
    assert parts is not None
    for part in parts:
        if not part.special:
            assert not part.text.startswith(("\n", "\u200d", "\U0001f3fd")) or TORN.startswith(part.text)
            assert unicodedata.category(part.text[0])[0] != "M"
            assert not part.text.endswith(("\r", "\u200d"))
            assert sum("\U0001f1e6" <= c <= "\U0001f1ff" for c in part.text) in (0, 2)


def test_the_forms():
    for seed in range(200):
        psm = fim("abcdef", "r", Fim(rate=1, spm_rate=0, seed=seed))
        assert psm is not None
        if len(psm) == 7:
            break
    assert [part.text for part in psm if part.special] == [PREFIX, SUFFIX, MIDDLE, END_OF_TEXT]
    prefix, suffix, middle = (part.text for part in psm if not part.special)
    assert prefix + middle + suffix == "abcdef"
    spm = fim("abcdef", "r", Fim(rate=1, spm_rate=1, seed=seed))
    assert spm == [
        Segment(PREFIX, special=True),
        Segment(SUFFIX, special=True),
        Segment(suffix, loss_mask=True),
        Segment(MIDDLE, special=True),
        Segment(prefix + middle, loss_mask=True),
        Segment(END_OF_TEXT, special=True, loss_mask=True),
    ]
    alone = fim("abcdef", "r", Fim(rate=1, spm_rate=1, seed=seed, middle_only=True))
    assert alone is not None
    assert [part.text for part in alone if part.loss_mask] == [middle, END_OF_TEXT]


def test_rates_are_met_and_the_record_decides():
    results = [fim("some text", str(i), Fim(rate=0.3, spm_rate=0.5)) for i in range(4000)]
    holes = [parts for parts in results if parts is not None]
    assert abs(len(holes) / 4000 - 0.3) < 0.04
    assert abs(sum(parts[1].text == SUFFIX and len(parts) != 4 for parts in holes) / len(holes) - 0.5) < 0.12
    assert results == [fim("some text", str(i), Fim(rate=0.3, spm_rate=0.5)) for i in range(4000)]
    assert results != [fim("some text", str(i), Fim(rate=0.3, spm_rate=0.5, seed=1)) for i in range(4000)]
    assert all(fim("x", str(i), Fim(rate=0)) is None for i in range(50))


def test_both_cuts_reach_every_place():
    starts = set()
    for i in range(2000):
        parts = fim("abcd", str(i), Fim(rate=1, spm_rate=0))
        assert parts is not None
        at, sizes = "", {}
        for part in parts:
            if part.special:
                at = part.text
            else:
                sizes[at] = len(part.text)
        starts.add((sizes.get(PREFIX, 0), sizes.get(SUFFIX, 0)))
    assert len(starts) == 15  # all pairs 0 <= first <= second <= 4


@pytest.mark.parametrize("bad", [{"rate": 1.5}, {"rate": -0.1}, {"spm_rate": 2}, {"rate": float("nan")}, {"seed": -1}])
def test_settings_that_make_no_sense(bad):
    with pytest.raises(ValueError, match="="):
        Fim(**bad)
