"""One row of each kind of generated speech, without its id, which follows from its place in a file.

Every row says in which language it is and whose voice it is; its other fields are those that the speech pipeline reads
by default for the task that it is meant for (stages/speech/tasks.py).
"""

from __future__ import annotations

from collections.abc import Callable

from gristmill.synth.draw import Draw
from gristmill.synth.speech.containers import Row
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.languages import LANGUAGES, drawn_translation
from gristmill.synth.speech.listening import Listened, about_sound, about_words
from gristmill.synth.speech.listening import report as drawn_report
from gristmill.synth.speech.pictures import drawn_shown
from gristmill.synth.speech.sentences import Part, Spoken, drawn_digits, drawn_phrase, drawn_question
from gristmill.synth.speech.voices import Manner, Speaker, drawn_manner, spoken


def digits(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """Digits to transcribe."""
    return _sentence(drawn_digits(draw, part), draw, speaker)


def phrase(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """Words for scenes to transcribe."""
    return _sentence(drawn_phrase(draw, part), draw, speaker)


def question(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """A spoken question about digits."""
    return _sentence(drawn_question(draw, part), draw, speaker)


def scene(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """A spoken question about a picture."""
    shown = drawn_shown(draw, part)
    picture = shown.picture(draw)
    sentence = Spoken(shown.kind, shown.question, {"question": shown.question, "answer": shown.answer})
    return _sentence(sentence, draw, speaker)._replace(picture=picture)


def translation(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """A list of words to translate, in a voice of its language."""
    translated = drawn_translation(draw, part)
    manner = drawn_manner(draw, LANGUAGES[translated.language].voices)
    fields = {"text": translated.text, "translation": translated.translation, "target_language": translated.target}
    clip = spoken(speaker.engine, translated.text, manner)
    return Row("", "translation", clip, {**fields, "language": translated.language, "voice": manner.voice})


def listening(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """A written question about what is said."""
    return _listened(about_words, draw, part, speaker)


def sound(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """A written question about how it sounds."""
    return _listened(about_sound, draw, part, speaker)


def report(draw: Draw, part: Part, speaker: Speaker) -> Row:
    """Sentences to summarise."""
    return _listened(drawn_report, draw, part, speaker)


def _sentence(sentence: Spoken, draw: Draw, speaker: Speaker) -> Row:
    manner = drawn_manner(draw, speaker.voices)
    clip = spoken(speaker.engine, sentence.words, manner)
    return Row("", sentence.kind, clip, {**sentence.fields, "language": "en", "voice": manner.voice})


def _listened(drawn: Callable[[Draw, Part, Espeak, Manner], Listened], draw: Draw, part: Part, speaker: Speaker) -> Row:
    manner = drawn_manner(draw, speaker.voices)
    listened = drawn(draw, part, speaker.engine, manner)
    return Row("", listened.kind, listened.clip, {**listened.fields, "language": "en", "voice": manner.voice})
