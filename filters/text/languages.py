"""What a text of a language looks like: stop words and thresholds, a row a language, each number with its source.

Thresholds are those that FineWeb-2 published, one file a language (arXiv 2506.20920;
github.com/huggingface/fineweb-2, configs/deu_Latn.yml and so on, commits 05e67295 and baedee44), made of quantiles of
Wikipedia and of the web. Its words are those of a tokenizer a language, ours are plain ones (filters/text/plain.py):
- French and Italian elisions are words as FineWeb-2 has them (`l'`), here with either apostrophe;
- Chinese and Japanese words are single characters: what FineWeb-2 says of n-grams of words says nothing of those, and
  is left out. Where words are counted, one of jieba is taken for 1.7 characters and one of SudachiPy for 1.6: counted
  with jieba 0.42.1 (4,224 words, 1.68) and SudachiPy 0.7.0, mode B (5,598 words, 1.65) on the sentences of lingua and
  Tatoeba in ../shared/data/6_langid.
A language without a row has what Gopher and FineWeb ask of any, without what depends on words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Of one language; None: not asked. Shares of n-grams and lines are of the text's characters and lines.

    stop_words: of which two are asked for. top: the most frequent 2-, 3- and 4-gram; repeated: 5- to 10-grams that
    stood before. min_ending_lines: lines that end a sentence. words: how many tokens a word is.
    """

    stop_words: tuple[str, ...] = ()
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    min_alpha_words: float | None = 0.8  # Gopher, arXiv 2112.11446, A1.1
    max_repeated_lines: float | None = 0.3  # this and the next two: Gopher, table A1
    top: tuple[float | None, ...] = (0.2, 0.18, 0.16)
    repeated: tuple[float | None, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    min_ending_lines: float | None = None
    max_newlines_per_word: float | None = 0.3  # FineWeb, arXiv 2406.17557
    words: float = 1.0


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_NO_TOP, _NO_REPEATED = (None,) * 3, (None,) * 6
OTHERS = Thresholds(min_alpha_words=0.7, top=_NO_TOP, repeated=_NO_REPEATED)
"""For a language without a row: .7 is below every row's share of words with a letter; words of unknown length make no
n-grams to compare."""

LANGUAGES: dict[str, Thresholds] = {
    "de": Thresholds(  # configs/deu_Latn.yml
        stop_words=_listed("der und die in von im den des mit das er dem als wurde für"),
        min_mean_word_length=0,
        max_mean_word_length=15,
        min_alpha_words=0.774,
        max_repeated_lines=0.263,
        top=(0.169, 0.153, 0.137),
        repeated=(0.141, 0.134, 0.126, 0.117, 0.108, 0.098),
        min_ending_lines=0.0,
        max_newlines_per_word=0.152,
    ),
    "fr": Thresholds(  # configs/fra_Latn.yml
        stop_words=_listed("de la le et à en l' l’ des du les est d' d’ un une il dans par au"),
        min_mean_word_length=2,
        max_mean_word_length=11,
        min_alpha_words=0.812,
        max_repeated_lines=0.264,
        top=(0.161, 0.149, 0.134),
        repeated=(0.15, 0.141, 0.131, 0.121, 0.111, 0.1),
        min_ending_lines=0.1,
        max_newlines_per_word=0.185,
    ),
    "es": Thresholds(  # configs/spa_Latn.yml
        stop_words=_listed("de la en el y a que del los se por un con una las su"),
        min_mean_word_length=4,
        max_mean_word_length=14,
        min_alpha_words=0.825,
        max_repeated_lines=0.265,
        top=(0.077, 0.097, 0.112),
        repeated=(0.152, 0.137, 0.123, 0.114, 0.107, 0.099),
        min_ending_lines=0.3,
        max_newlines_per_word=0.171,
    ),
    "it": Thresholds(  # configs/ita_Latn.yml
        stop_words=_listed("di e il la in a del che è della un per nel l' l’ con da i una"),
        min_mean_word_length=3,
        max_mean_word_length=21,
        min_alpha_words=0.807,
        max_repeated_lines=0.246,
        top=(0.198, 0.156, 0.133),
        repeated=(0.144, 0.136, 0.127, 0.118, 0.109, 0.1),
        min_ending_lines=0.025,
        max_newlines_per_word=0.2,
    ),
    "pt": Thresholds(  # configs/por_Latn.yml
        stop_words=_listed("de a e o em do da que um no uma com para na é foi"),
        min_mean_word_length=3,
        max_mean_word_length=13,
        min_alpha_words=0.814,
        max_repeated_lines=0.325,
        top=(0.093, 0.117, 0.139),
        repeated=(0.19, 0.172, 0.154, 0.142, 0.131, 0.12),
        min_ending_lines=0.154,
        max_newlines_per_word=0.23,
    ),
    "zh": Thresholds(  # configs/cmn_Hani.yml
        stop_words=_listed("的 年 在 月 是 和 日 了 於 為 有 被 人 中 为 他 與 後 也 而 由"),
        min_mean_word_length=1,
        max_mean_word_length=5,
        min_alpha_words=0.735,
        max_repeated_lines=0.287,
        top=_NO_TOP,
        repeated=_NO_REPEATED,
        min_ending_lines=0.106,
        max_newlines_per_word=0.178,
        words=1.7,
    ),
    "ja": Thresholds(  # configs/jpn_Jpan.yml
        stop_words=_listed("の に を は た て が と で 年 し 月 れ さ"),
        min_mean_word_length=1,
        max_mean_word_length=5,
        min_alpha_words=0.759,
        max_repeated_lines=0.375,
        top=_NO_TOP,
        repeated=_NO_REPEATED,
        min_ending_lines=0.167,
        max_newlines_per_word=0.162,
        words=1.6,
    ),
}


def thresholds(language: str | None) -> Thresholds:
    """The row of a language (ISO 639-1), or what is asked of others."""
    return LANGUAGES.get(language or "", OTHERS)
