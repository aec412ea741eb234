"""Questions about clips: about what is said in them, and about how it sounds. Notable choices:

- of digits it is asked how many, which is first or last, and whether one is among them: half of these answers are yes;
- what is asked about the sound (fast or slow, higher, louder) is certain: it is how the clip was made, and the two that
  are compared are far apart;
- a report says of shapes, again and again, which colour they have now; its summary is what holds at its end, so that a
  long clip has a short answer that no single sentence of it gives.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import COLOURS, SHAPES
from gristmill.synth.scenes.frames import ORDINALS
from gristmill.synth.scenes.questions import yes_or_no
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.sentences import Part, drawn_digits, part_of
from gristmill.synth.speech.tts import Waveform
from gristmill.synth.speech.voices import Manner, joined, spoken

SLOW, FAST = (90, 120), (220, 260)
"""Words a minute."""
LOW, HIGH = (5, 25), (75, 95)
"""Pitches."""
REPORT = (6, 12)
"""Sentences of a report, and of a long one:"""
LONG_REPORT, LONG_SHARE = (60, 90), 0.02


class Listened(NamedTuple):
    """A clip; `fields`: what is said in it, `text`, and what is asked, or its summary."""

    kind: str
    clip: Waveform
    fields: dict[str, str]


def about_words(draw: Draw, part: Part, engine: Espeak, manner: Manner) -> Listened:
    """A question about digits that are said."""
    sentence = drawn_digits(draw, part)
    digits = sentence.fields["text"].split()
    kind = draw.below(4)
    if kind == 0:
        question, answer = "How many digits?", str(len(digits))
    elif kind < 3:
        question, answer = (("Which is first?", digits[0]), ("Which is last?", digits[-1]))[kind - 1]
    else:
        others = [str(digit) for digit in range(10) if str(digit) not in digits]
        among = draw.chance(0.5)
        question, answer = f"Is {draw.pick(digits if among else others)} among them?", yes_or_no(among)
    return Listened(
        "words", spoken(engine, sentence.words, manner), {**sentence.fields, "question": question, "answer": answer}
    )


def about_sound(draw: Draw, part: Part, engine: Espeak, manner: Manner) -> Listened:
    """A question that a transcript does not answer."""
    sentence = drawn_digits(draw, part)
    kind = draw.pick(("pace", "higher", "louder"))
    answer = draw.below(2)
    if kind == "pace":
        clip = spoken(engine, sentence.words, manner._replace(rate=draw.between(*(SLOW, FAST)[answer])))
        asked = {"question": "Fast or slow?", "answer": ("slow", "fast")[answer]}
        return Listened(kind, clip, sentence.fields | asked)
    manners = [manner, manner]
    if kind == "higher":
        manners = [manner._replace(pitch=draw.between(*pitch)) for pitch in (LOW, HIGH)]
    else:
        manners = [manner._replace(gain=gain) for gain in (0.15, 0.9)]
    twice = [spoken(engine, sentence.words, each) for each in (manners if answer else reversed(manners))]
    text = f"{sentence.fields['text']} {sentence.fields['text']}"
    return Listened(kind, joined(twice), {"text": text, "question": f"Which is {kind}?", "answer": ORDINALS[answer]})


def report(draw: Draw, part: Part, engine: Espeak, manner: Manner) -> Listened:
    """Sentences about two or three shapes, and their summary: which colour each has at the end."""
    while True:
        shapes = draw.shuffled(SHAPES)[: draw.between(2, 3)]
        count = draw.between(*(LONG_REPORT if draw.chance(LONG_SHARE) else REPORT))
        now: dict[str, str] = {}
        sentences = []
        for number in range(count):
            shape = shapes[number] if number < len(shapes) else draw.pick(shapes)
            now[shape] = draw.pick([colour for colour in COLOURS if colour != now.get(shape)])
            sentences.append(f"The {shape} is {now[shape]}.")
        if part_of(" ".join(sentences)) == part:
            break
    summary = " ".join(f"The {shape} is {now[shape]}." for shape in shapes)
    clip = joined(spoken(engine, sentence, manner) for sentence in sentences)
    return Listened("report", clip, {"text": " ".join(sentences), "summary": summary})
