"""Lists of words in eight languages with their translations: digits and colours, which have one word each.

A list is said in one language and translated into another, word by word, which for a list is a true translation: no
grammar, no gender, no choice of words. The tags are those of the speech pipeline. Japanese is in kana, which is what
the engine reads; which lists are held out is decided by the words, hence the same in every language.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.speech.sentences import Part, part_of

SHORTEST, LONGEST = 3, 5
"""Words of a list."""


class Language(NamedTuple):
    """`voices`: of espeak-ng; `separator`: between words; `words`: in the same order in every language."""

    voices: tuple[str, ...]
    separator: str
    words: tuple[str, ...]


def _language(voice: str, words: str, separator: str = ", ") -> Language:
    return Language(tuple(f"{voice}{variant}" for variant in ("", "+m3", "+f2")), separator, tuple(words.split()))


LANGUAGES = {
    "en": _language(
        "en-us",
        "zero one two three four five six seven eight nine red blue green yellow black white pink brown",
    ),
    "zh": _language("cmn", "零 一 二 三 四 五 六 七 八 九 红色 蓝色 绿色 黄色 黑色 白色 粉色 棕色", "，"),
    "fr": _language(
        "fr", "zéro un deux trois quatre cinq six sept huit neuf rouge bleu vert jaune noir blanc rose brun"
    ),
    "de": _language(
        "de", "null eins zwei drei vier fünf sechs sieben acht neun rot blau grün gelb schwarz weiß rosa braun"
    ),
    "it": _language(
        "it",
        "zero uno due tre quattro cinque sei sette otto nove rosso blu verde giallo nero bianco rosa marrone",
    ),
    "ja": _language(
        "ja", "ぜろ いち に さん よん ご ろく なな はち きゅう あか あお みどり きいろ くろ しろ ピンク ちゃいろ", "、"
    ),
    "pt": _language(
        "pt",
        "zero um dois três quatro cinco seis sete oito nove vermelho azul verde amarelo preto branco rosa castanho",
    ),
    "es": _language(
        "es",
        "cero uno dos tres cuatro cinco seis siete ocho nueve rojo azul verde amarillo negro blanco rosa marrón",
    ),
}
WORDS = len(LANGUAGES["en"].words)


class Translated(NamedTuple):
    """A list in two languages, and tags of these."""

    text: str
    translation: str
    language: str
    target: str


def drawn_translation(draw: Draw, part: Part) -> Translated:
    """From any language into any other."""
    spoken_in, target = draw.shuffled(tuple(LANGUAGES))[:2]
    while True:
        numbers = [draw.below(WORDS) for _ in range(draw.between(SHORTEST, LONGEST))]
        if part_of(in_language(numbers, "en")) == part:
            return Translated(in_language(numbers, spoken_in), in_language(numbers, target), spoken_in, target)


def in_language(numbers: list[int], tag: str) -> str:
    """The list of these words."""
    language = LANGUAGES[tag]
    return language.separator.join(language.words[number] for number in numbers)
