"""fastText's models without fastText: our reader and kernel say what the library says, of lines of any bytes."""

from __future__ import annotations

import json
import platform
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fast_text_models as models
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.fast_text import file as files
from gristmill.filters.fast_text.file import read_bytes, read_file
from gristmill.filters.fast_text.model import FastTextModel
from gristmill.filters.fast_text.words import WordTable, word_hashes
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


def raw(lines: Sequence[bytes | str]) -> pa.LargeStringArray:
    """Lines as Arrow has them, whatever their bytes."""
    return pa.array(lines, pa.large_binary()).view(pa.large_string())


def by_kernel(model: FastTextModel, lines: Sequence[bytes | str], k: int) -> list[tuple[tuple[str, ...], list[float]]]:
    """As `models.answers` has it."""
    labels, scores = model.best(raw(lines), k)
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


QUANTISED = json.dumps({"qnorm": True, "dsub": 2})
PRUNED = json.dumps({"cutoff": 1000, "qnorm": True, "dsub": 2})
KINDS: dict[str, dict[str, Any]] = {
    f"{loss}, {name}": {"loss": loss, **extra}
    for loss in ("hs", "softmax", "ova", "ns")
    for name, extra in (
        ("characters", {"minn": 2, "maxn": 4}),
        ("single characters", {"minn": 1, "maxn": 3, "wordNgrams": 2}),
        ("words", {"wordNgrams": 2}),
    )
}
KINDS |= {
    "words alone": {"loss": "softmax", "wordNgrams": 1, "dim": 600},  # as large as fresh memory is
    "rare words": {"loss": "softmax", "minCount": 30, "minn": 3, "maxn": 5},
    "wide": {"loss": "softmax", "dim": 48, "minn": 2, "maxn": 5, "wordNgrams": 3},
    "quantised": {"loss": "softmax", "wordNgrams": 2, "dim": 3, "quantise": QUANTISED},
    "pruned": {"loss": "hs", "minn": 2, "maxn": 4, "quantise": PRUNED},
    "pruned words": {"loss": "softmax", "wordNgrams": 2, "quantise": PRUNED},
    "quantised labels": {
        "loss": "hs",
        "labels": 300,
        "dim": 64,  # a matrix large enough for fresh memory
        "quantise": json.dumps({"qnorm": False, "qout": True, "dsub": 2}),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_probabilities_are_the_librarys(kind: str) -> None:
    data = models.model_bytes(**KINDS[kind])
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
    labels, scores = model.best(raw(lines)[7:31], 2)
    assert [model.labels[label] for label in labels[:, 0]] == [labels[0] for labels, _ in together[7:31]]
    assert scores.tolist() == [row for _, row in together[7:31]]
    with ThreadPoolExecutor(4) as pool:
        assert all(answered == together for answered in pool.map(lambda _: by_kernel(model, lines, 2), range(8)))
    assert model.best(pa.array([], pa.string()), 2)[0].shape == (0, 2)


def test_lines_that_are_none_are_refused(shipped: tuple[FastTextModel, Any]) -> None:
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        shipped[0].best(pa.array(["a", None]), 2)


# Files of strangers


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    data = models.model_bytes(**KINDS["pruned"])
    read_bytes(data)
    for size in (*range(400), *range(400, len(data), 97), len(data) - 1):
        with pytest.raises(ValueError):
            read_bytes(data[:size])
    with pytest.raises(ValueError, match="1 bytes follow its end"):
        read_bytes(data + b"\0")


def test_a_file_with_any_byte_changed_is_refused_or_answers(shipped: tuple[FastTextModel, Any]) -> None:
    """Whatever a damaged file says, nothing is made of a size that the file does not have, and no row is missing."""
    data = models.model_bytes(**KINDS["pruned"])
    refused = 0
    for place in (*range(150), *range(150, len(data), 499)):
        for value in (0x7F, data[place] ^ 0x81):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                model = FastTextModel.of(read_bytes(changed))
            except ValueError:
                refused += 1
                continue
            model.best(raw(PLAIN[:3]), 2)
    assert refused > 100


def patched(data: bytes, place: int, form: str, *values: Any) -> bytes:
    """The bytes with these numbers in place of what stood there."""
    patch = struct.pack("<" + form, *values)
    return data[:place] + patch + data[place + len(patch) :]


DICTIONARY = 8 + 12 * 4 + 8
"""Where a file's dictionary begins."""


@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (0, "i", 7, "does not begin as one does"),
        (4, "i", 13, "does not begin as one does"),
        (8, "i", 0, "settings cannot be"),
        (8, "i", 11, "its settings say 11 dimensions"),
        (8 + 5 * 4, "i", 2**30, "settings cannot be"),  # words of an n-gram
        (8 + 6 * 4, "i", 5, "settings cannot be"),  # loss
        (8 + 7 * 4, "i", 1, "vectors of words"),
        (8 + 8 * 4, "i", 0, "settings cannot be"),  # buckets
        (8 + 8 * 4, "i", 2**31 - 1, "cannot be all"),
        (8 + 10 * 4, "i", 2**31 - 1, "settings cannot be"),  # characters of an n-gram
        (DICTIONARY, "i", 2**31 - 1, "it counts"),
        (DICTIONARY + 8, "i", 2**31 - 1, "it counts"),
        (DICTIONARY + 20, "q", 2**62, "it ends after"),  # n-grams that are left
        (DICTIONARY + 20, "q", 0, "pruned and its matrix is not quantised"),
    ],
)
def test_what_a_file_says_is_held_against_what_it_has(place: int, form: str, value: int, message: str) -> None:
    data = models.model_bytes(**KINDS["softmax, characters"])
    with pytest.raises(ValueError, match=message):
        read_bytes(patched(data, place, form, value))


def test_numbers_that_are_none_are_refused() -> None:
    data = models.model_bytes(**KINDS["softmax, characters"])
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="none, or infinite"):
            read_bytes(patched(data, len(data) - 4, "f", value))


def test_rows_of_pruned_n_grams_that_are_not_there_are_refused() -> None:
    file = read_bytes(models.model_bytes(**KINDS["pruned"]))
    assert file.pruned is not None
    for column, value in ((0, -1), (0, file.settings.buckets), (1, -1), (1, len(file.matrix) - len(file.words))):
        pruned = file.pruned.copy()
        pruned[3, column] = value
        with pytest.raises(ValueError, match="cannot be all"):
            files._check_rows(file._replace(pruned=pruned))


def test_nothing_is_made_of_a_size_that_the_file_does_not_have() -> None:
    """A byte stands for a few columns; without a bound, for as many as the file has kilobytes."""
    data = models.model_bytes(**KINDS["pruned"])
    file = read_bytes(data)
    wide = data.replace(struct.pack("<4i", 10, 5, 2, 2), struct.pack("<4i", 10, 1, 10**6, 10))
    assert wide != data
    with pytest.raises(ValueError, match="a quantiser cuts 10 columns in 1 of 1000000 and 10"):
        read_bytes(wide)
    huge = file.settings._replace(buckets=2**31 - 1)
    with pytest.raises(ValueError, match="cannot be all"):
        files._check_rows(file._replace(settings=huge))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    for name, data in (
        ("empty.bin", b""),
        ("text.ftz", b"nothing of the kind"),
        ("cut.ftz", SHIPPED.read_bytes()[:-1]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is no fastText model"):
            read_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent.ftz")


def test_a_word_is_found_by_its_bytes() -> None:
    words = [b"", b"a", b"the", "müller".encode(), b"</s>", b"a" * 1000, *(str(n).encode() for n in range(500))]
    assert word_hashes([b"", b"foobar", b"a"]).tolist() == [
        0x811C9DC5,
        0xBF9CF968,
        0xE40C292C,
    ]  # FNV's own test vectors
    table = WordTable.of(words)
    numbers = [number for number in table.slots.tolist() if number >= 0]
    assert sorted(numbers) == list(range(len(words)))
    assert word_hashes([]).shape == (0,) and (WordTable.of([]).slots == -1).all()
