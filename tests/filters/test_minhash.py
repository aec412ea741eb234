"""MinHash: the kernel against plain Python and datasketch, and the statistics of what it makes."""

from __future__ import annotations

import hashlib
import random

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from minhash_texts import ANY_TEXT, MIXED, PIECES, SMALL, sign

from gristmill.filters.signatures.minhash import MinHash, Signatures, band_hashes, shingle_hashes, words


def by_datasketch(text: str, settings: MinHash) -> list[int]:
    oracle = datasketch.MinHash(
        num_perm=settings.bands * settings.rows, seed=settings.seed, scheme="affine32", hashfunc=int
    )
    if hashes := shingle_hashes(text, settings.ngram):
        oracle.update_batch(hashes)
    return oracle.hashvalues.tolist()  # type: ignore[no-any-return]


def check(signed: Signatures, texts: list[str], settings: MinHash) -> None:
    assert signed.values.dtype == np.uint32 and signed.values.flags.c_contiguous
    assert signed.values.shape == (len(texts), settings.bands * settings.rows)
    assert signed.n_words.tolist() == [len(words(text)) for text in texts]
    assert signed.n_shingles.tolist() == [len(shingle_hashes(text, settings.ngram)) for text in texts]
    assert signed.values.tolist() == [by_datasketch(text, settings) for text in texts]


# The kernel says what Python and datasketch say.


@settings(max_examples=300)
@given(st.lists(ANY_TEXT, max_size=4), st.booleans(), st.integers(0, 3), st.integers(0, 3))
@example([], False, 0, 0)
@example(["", "one", "two words", ""], True, 1, 0)
def test_any_text_in_any_slice_is_signed_as_the_reference_says(
    texts: list[str], large: bool, start: int, cut: int
) -> None:
    array = pa.array(texts, pa.large_string() if large else pa.string())
    end = max(len(texts) - cut, start)
    check(SMALL.sign(array[start:end]), texts[start:end], SMALL)


@pytest.mark.parametrize(
    "settings", [MinHash(), MinHash(1, 1, 1, 0), MinHash(5, 1, 3, 2**32 - 1), MinHash(2, 3, 50)], ids=str
)
def test_all_settings_make_what_datasketch_makes(settings: MinHash) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(0, 400))) for _ in range(20)] + [MIXED, "a b c d e", "a b c d"]
    check(sign(texts, settings), texts, settings)


@pytest.mark.parametrize("unit", ["x", "wörd ", "7", "中", "a中", "e\u0301", "𝐀 ", "w "])
def test_words_and_characters_on_the_edge_of_a_chunk_are_whole(unit: str) -> None:
    texts = ["b" * pad + " " * (pad % 2) + unit * (9000 // len(unit.encode())) + " end of it" for pad in range(7)]
    check(sign(texts), texts, SMALL)


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"a\xe0\x81\xa1b \xf0\x80\x81\xa1 \xed\xa0\x80 \xf4\x90\x80\x80 \xc1\xa1 \xe2\x82A \xf0\x9f\x98")
@example(b"w\xc3")
def test_bytes_that_are_no_utf8_end_words_and_nothing_else(data: bytes) -> None:
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int32))
    array = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data))
    check(SMALL.sign(array), [data.decode(errors="replace")], SMALL)


def test_an_array_that_never_had_data_is_signed() -> None:
    assert SMALL.sign(pa.array([], pa.string())).values.shape == (0, 9)
    assert SMALL.sign(pa.array(["", ""], pa.large_string())).n_words.tolist() == [0, 0]
    assert band_hashes(np.zeros((0, 9), dtype=np.uint32), 3, 3).shape == (0, 3)


def test_a_text_without_a_shingle_has_no_signature() -> None:
    signed = sign(["a b c d", "", "a b c d e"], MinHash())
    assert signed.n_shingles.tolist() == [0, 0, 1]
    assert (signed.values[:2] == 2**32 - 1).all() and (signed.values[2] < 2**32 - 1).all()


# Statistics.


def one_shingle_hashes(n: int) -> np.ndarray:
    """Values of n texts of one shingle each, which count in letters: one permutation, a bijection of their hashes."""
    letters = [chr(97 + i) for i in range(26)]
    names = [a + b for a in letters for b in letters]
    texts = [f"{names[i // 676 % 676]} {names[i % 676]} same old text" for i in range(n)]
    return sign(texts, MinHash(1, 1)).values[:, 0]


def test_shingle_hashes_are_uniform_and_collide_no_more_than_chance() -> None:
    n = 200_000
    values = one_shingle_hashes(n)
    assert n - len(np.unique(values)) < 20  # 4.7 expected
    for shift in (0, 12, 24):
        counts = np.bincount((values >> np.uint32(shift)) & np.uint32(255), minlength=256)
        chi = float(((counts - n / 256) ** 2 / (n / 256)).sum())
        assert 255 - 5 * 22.6 < chi < 255 + 5 * 22.6
    bits = (values[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    flips = (bits[1:] ^ bits[:-1]).mean(axis=0)  # neighbours differ in one letter
    assert (abs(flips - 0.5) < 5 * 0.5 / n**0.5).all()


def test_the_order_of_letters_and_of_words_and_the_gaps_between_words_matter() -> None:
    signed = sign(["a b c d e", "e d c b a", "a b c e d", "ab c d e f", "a bc d e f", "abc d e f g"], MinHash())
    assert len({row.tobytes() for row in signed.values}) == 6


def pair(rng: random.Random, shared: int, own: int) -> tuple[str, str]:
    """Two texts with `shared` shingles of 5 words in common, and `own` of each one's own."""
    drawn = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(shared + 4 + 2 * own)]
    both, left, right = drawn[: shared + 4], drawn[shared + 4 : shared + 4 + own], drawn[shared + 4 + own :]
    return " ".join(both + left), " ".join(both + right)


def signed_pairs(count: int, shared: int, own: int) -> np.ndarray:
    rng = random.Random(1)
    texts = [text for _ in range(count) for text in pair(rng, shared, own)]
    return sign(texts, MinHash()).values.reshape(count, 2, 112)


@pytest.mark.parametrize(("shared", "own"), [(80, 10), (50, 25), (20, 40)])
def test_agreement_estimates_jaccard(shared: int, own: int) -> None:
    jaccard = shared / (shared + 2 * own)
    values = signed_pairs(400, shared, own)
    agree = (values[:, 0] == values[:, 1]).mean(axis=1)
    assert abs(agree.mean() - jaccard) < 4 * (jaccard * (1 - jaccard) / (112 * 400)) ** 0.5
    assert abs(agree.std() / (jaccard * (1 - jaccard) / 112) ** 0.5 - 1) < 0.2  # permutations are independent


def test_bands_find_pairs_at_jaccard_point_8_as_often_as_theory_says() -> None:
    values = signed_pairs(1500, 160, 20)
    bands = band_hashes(values.reshape(-1, 112), 14, 8).reshape(-1, 2, 14)
    recall = (bands[:, 0] == bands[:, 1]).any(axis=1).mean()
    theory = 1 - (1 - 0.8**8) ** 14
    assert abs(recall - theory) < 4 * (theory * (1 - theory) / 1500) ** 0.5


def test_datasketch_lsh_finds_in_our_signatures_what_our_bands_find() -> None:
    values = signed_pairs(150, 60, 10).reshape(-1, 112)
    lsh = datasketch.MinHashLSH(num_perm=112, params=(14, 8))
    sketches = [datasketch.MinHash(seed=1, hashvalues=row, scheme="affine32") for row in values]
    for row, sketch in enumerate(sketches):
        lsh.insert(row, sketch)
    bands = band_hashes(values, 14, 8)
    neighbours = [set(np.flatnonzero((bands == row).any(axis=1)).tolist()) for row in bands]
    assert [set(lsh.query(sketch)) for sketch in sketches] == neighbours
    assert 100 < sum(len(near) - 1 for near in neighbours) < 300  # some pairs, not all


# Band hashes.


def test_a_band_hash_is_of_its_values_their_order_and_its_number() -> None:
    values = np.array([[1, 2, 1, 2], [2, 1, 1, 2], [1, 2, 1, 3]], dtype=np.uint32)
    hashes = band_hashes(values, 2, 2)
    assert hashes.dtype == np.uint64 and hashes.shape == (3, 2)
    assert hashes[0, 1] == hashes[1, 1] and hashes[0, 0] == hashes[2, 0]
    assert len(np.unique(hashes)) == 4
    strided = np.asfortranarray(np.repeat(values, 2, axis=1))[:, ::2]
    assert (band_hashes(strided, 2, 2) == hashes).all()


def test_band_hashes_are_uniform() -> None:
    values = np.arange(1 << 16, dtype=np.uint32).reshape(-1, 1)
    hashes = band_hashes(values, 1, 1)[:, 0]
    assert len(np.unique(hashes)) == 1 << 16
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert (abs((bits[1:] ^ bits[:-1]).mean(axis=0) - 0.5) < 5 * 0.5 / 256).all()


# Errors.


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"bands": 0}, ValueError),
        ({"rows": -1}, ValueError),
        ({"ngram": 0}, ValueError),
        ({"ngram": 2.0}, TypeError),
        ({"seed": True}, TypeError),
        ({"seed": -1}, ValueError),
        ({"seed": 1 << 32}, ValueError),
        ({"bands": 1 << 10, "rows": 1 << 10}, ValueError),
    ],
)
def test_settings_without_sense_are_refused_by_name(fields: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(fields))):
        MinHash(**fields)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="pyarrow string array"):
        MinHash().sign(["text"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Int64Array"):
        MinHash().sign(pa.array([1]))
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        MinHash().sign(pa.array(["text", None]))
    with pytest.raises(TypeError, match="uint32"):
        band_hashes(np.zeros((1, 4)), 2, 2)
    with pytest.raises(ValueError, match="shape"):
        band_hashes(np.zeros((1, 5), dtype=np.uint32), 2, 2)


# Pinned.


def test_signatures_are_what_version_1_made() -> None:
    signed = sign([MIXED], MinHash())
    bands = band_hashes(signed.values, 14, 8)
    digest = hashlib.sha256(signed.values.astype("<u4").tobytes() + bands.astype("<u8").tobytes()).hexdigest()
    assert digest == "d94347e0d2cbce6027a2c1346f54d07b75bcc80c19e057dfb15f68db845e48d3", (
        "raise MinHash.VERSION: stored signatures would be compared with other ones"
    )
