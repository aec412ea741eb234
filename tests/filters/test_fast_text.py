"""fastText's models without fastText: our reader and kernel say what the library says, of lines of any bytes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fast_text_models as models
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.fast_text.file import read_bytes, read_file
from gristmill.filters.fast_text.model import FastTextModel
from gristmill.filters.lid import SHIPPED

PLAIN = [words for _, words in models.sentences(40, seed=1)]
ODD = (
    *(
        "",
        " ",
        "\t \x0b\x0c\r",
        "\x00",
        "a\x00b",
        "a\u00a0b",
        "a\u2028b",
        "\x85",
        "12 34",
        "...",
        "<",
        ">",
        "<>",
        "</s>",
    ),
    *("the </s> miller", "</s>x", "__label__en", "__label__ xx", "__label__none grain", "x__label__en", "__labe"),
    *("é", "e\u0301", "\u0301a", "ﬁn ½", "\U0010ffff", "😀 grain", "中文", "粉屋は", "ß" * 300, "a" * 5000, "б" * 3000),
    *("grain " * 400, "g r a i n", "\ufeffgrain", "grain\u00adgrain", "\u200b"),
)
_SAMPLES = (
    "alle menschen sind frei und gleich an würde und rechten geboren",
    "tous les êtres humains naissent libres et égaux en dignité et en droits",
    "все люди рождаются свободными и равными в своём достоинстве и правах",
    "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "人人生而自由 在尊嚴和權利上一律平等",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다",
)
"""Article 1 of the Universal Declaration of Human Rights."""
RAW = (
    b"\xff",
    b"\x80\x80 a",
    b"gr\xc3",
    b"\xed\xa0\x80 \xed\xb0\x80",
    b"\xf5\x90\x80\x80",
    b"\xe4\xb8",
    bytes(range(1, 10)),
)
"""Not UTF-8: Arrow takes bytes from Parquet unseen."""


BUILD = 0.0 if platform.machine() == "x86_64" else 2e-6
"""How far the library may be: elsewhere its build may join a product and a sum, which rounds once less."""


def by_kernel(model: FastTextModel, lines: Sequence[bytes | str], k: int) -> list[tuple[tuple[str, ...], list[float]]]:
    """As `models.answers` has it."""
    labels, scores = model.best(models.raw(lines), k)
    return [
        (tuple(model.labels[label] for label in of_line if label >= 0), row[of_line >= 0].tolist())
        for of_line, row in zip(labels, scores, strict=True)
    ]


def require_same(answered: list[Any], expected: list[Any], tolerance: float) -> None:
    """The same labels, and probabilities within `tolerance`; in one order, but for equals."""
    for (labels, scores), (others, other_scores) in zip(answered, expected, strict=True):
        np.testing.assert_allclose(scores, other_scores, rtol=0, atol=tolerance)
        of_others = dict(zip(others, other_scores, strict=True))
        assert set(labels) == set(of_others)
        np.testing.assert_allclose(scores, [of_others[label] for label in labels], rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", models.KINDS)
def test_labels_and_probabilities_are_the_librarys(kind: str) -> None:
    data = models.model_bytes(**models.KINDS[kind])
    model, library = FastTextModel.of(read_bytes(data)), models.library(data)
    assert list(model.labels) == library.get_labels()
    lines = [*PLAIN, *ODD, *(words for _, words in models.many(50))]
    for k in (1, 2, len(model.labels), 1000):  # of equals beyond the second the library's heap keeps the order
        answered, expected = by_kernel(model, lines, k), models.answers(library, lines, k)
        require_same(answered, expected, BUILD)
    assert len({labels for labels, _ in by_kernel(model, lines, 1)}) > 2, "a model that answers one label tells nothing"


@pytest.fixture(scope="module")
def shipped() -> tuple[FastTextModel, Any]:
    """lid.176 as ours and as the library's."""
    return FastTextModel.of(read_file(SHIPPED)), models.library(SHIPPED.read_bytes())


def test_the_shipped_models_answers_are_the_librarys_to_the_last_bit(shipped: tuple[FastTextModel, Any]) -> None:
    model, library = shipped
    for lines in ([*PLAIN, *ODD, *RAW], [*_SAMPLES]):
        for k in (1, 2, 176):
            require_same(by_kernel(model, lines, k), models.answers(library, lines, k), BUILD)


@given(st.lists(st.text(max_size=200).map(lambda text: text.replace("\n", " ")), max_size=20))
@settings(deadline=None, max_examples=150)
def test_of_any_text_too(shipped: tuple[FastTextModel, Any], lines: list[str]) -> None:
    model, library = shipped
    require_same(by_kernel(model, lines, 2), models.answers(library, lines, 2), BUILD)


@given(st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b" ")), max_size=20))
@settings(deadline=None, max_examples=150)
def test_of_any_bytes_too(shipped: tuple[FastTextModel, Any], lines: list[bytes]) -> None:
    model, library = shipped
    require_same(by_kernel(model, lines, 2), models.answers(library, lines, 2), BUILD)


def test_a_lines_end_is_a_blank(shipped: tuple[FastTextModel, Any]) -> None:
    model, _ = shipped
    assert by_kernel(model, ["der müller\nmahlt das korn"], 2) == by_kernel(model, ["der müller mahlt das korn"], 2)


def test_a_line_has_the_same_answer_alone_in_a_slice_and_beside_others(shipped: tuple[FastTextModel, Any]) -> None:
    model, _ = shipped
    lines = [*PLAIN, *ODD, *RAW]
    together = by_kernel(model, lines, 2)
    assert [by_kernel(model, [line], 2)[0] for line in lines] == together
    labels, scores = model.best(models.raw(lines)[7:31], 2)
    assert [model.labels[label] for label in labels[:, 0]] == [labels[0] for labels, _ in together[7:31]]
    assert scores.tolist() == [row for _, row in together[7:31]]
    with ThreadPoolExecutor(4) as pool:
        assert all(answered == together for answered in pool.map(lambda _: by_kernel(model, lines, 2), range(8)))
    assert model.best(pa.array([], pa.string()), 2)[0].shape == (0, 2)


def test_lines_that_are_none_are_refused(shipped: tuple[FastTextModel, Any]) -> None:
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        shipped[0].best(pa.array(["a", None]), 2)
