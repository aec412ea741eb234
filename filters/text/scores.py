"""The least score of a language's label, a number a language: what the model is as sure of as of most text in it.

By FineWeb-2's formula, max(.3, min(.9, median - standard deviation)) of the scores of text that is labelled as the
language (arXiv 2506.20920, section 3.2), on our scores: lid.176 by `filters.language`, on 100 sentences a language of
lingua's test data. Made by `python -m benchmarks.language_scores`, of languages of which at least 50 sentences are
labelled as what they are. One number for all is too much for languages that the model tells badly from their kin:
.65 drops most Croatian and much Afrikaans, Irish, Slovenian and Swahili.
"""

from __future__ import annotations

OTHERS = 0.65
"""Of a label without a row: FineWeb's for English, arXiv 2406.17557."""

# fmt: off
LEAST_SCORES: dict[str, float] = {
    "af": 0.45, "ar": 0.9, "az": 0.9, "be": 0.82, "bg": 0.8, "bn": 0.9, "ca": 0.79, "cs": 0.79, "cy": 0.66,
    "da": 0.62, "de": 0.9, "el": 0.9, "en": 0.84, "eo": 0.86, "es": 0.8, "et": 0.74, "eu": 0.69, "fa": 0.9,
    "fi": 0.85, "fr": 0.86, "ga": 0.36, "gu": 0.9, "he": 0.9, "hi": 0.86, "hr": 0.36, "hu": 0.9, "hy": 0.9,
    "id": 0.63, "is": 0.78, "it": 0.9, "ja": 0.9, "ka": 0.9, "kk": 0.84, "ko": 0.9, "la": 0.41, "lt": 0.84,
    "lv": 0.78, "mk": 0.83, "mn": 0.68, "mr": 0.82, "nl": 0.9, "nn": 0.53, "pa": 0.9, "pl": 0.9, "pt": 0.87,
    "ro": 0.7, "ru": 0.9, "sk": 0.58, "sl": 0.4, "sq": 0.86, "sr": 0.87, "sv": 0.88, "sw": 0.3, "ta": 0.9,
    "te": 0.9, "th": 0.9, "tl": 0.87, "tr": 0.88, "uk": 0.9, "ur": 0.69, "vi": 0.9, "zh": 0.9,
}
# fmt: on
