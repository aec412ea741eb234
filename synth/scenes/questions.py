"""Questions about one scene, with their answers, and what may be thought before one. Notable choices:

- a question is only asked where it has one answer: of a shape that is there once, of the only digits;
- half of the answers to "is there" are yes, and half of the pairs that are not there have a colour or a shape that is;
- where figures have to be compared with what is asked for, a thought reads them one by one and says of each whether it
  is the one: that is within the reach of a small model, which a comparison in one step is not;
- a withheld pair is asked for where withheld scenes are asked about, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import (
    COLOURS,
    PLACES,
    SHAPES,
    WITHHELD_PAIRS,
    Figure,
    Part,
    Scene,
    drawn_pair,
    shown_at,
)


class Asked(NamedTuple):
    """A question of a kind, its answer, and the thought that leads there, if one is needed. A caption is the answer to
    the picture alone: its question is empty."""

    kind: str
    question: str
    answer: str
    thought: str = ""


def asked(scene: Scene, draw: Draw, part: Part, count: int) -> tuple[Asked, ...]:
    """Up to `count` different ones of the questions that the scene can be asked, at least one. `part`: which pairs may
    be named."""
    different: dict[str, Asked] = {}
    for kind in draw.shuffled(_QUESTIONS):
        question = kind(scene, draw, part)
        if question is not None:
            different.setdefault(question.question, question)
    return tuple(different.values())[:count]


def judged(scene: Scene, wanted: str) -> str:
    """A caption that says of each figure whether it has all the words that are wanted, which stand beside it again:
    `top left red circle is red star no bottom right red star is red star yes`."""
    return " ".join(
        f"{PLACES[figure.place]} {figure} is {wanted} {yes_or_no(set(wanted.split()) <= set(str(figure).split()))}"
        for figure in scene
    )


def yes_or_no(right: bool) -> str:
    """As a word."""
    return "yes" if right else "no"


def shapes(scene: Scene) -> list[Figure]:
    """Those of a scene."""
    return [figure for figure in scene if figure.shape]


def _place(scene: Scene, draw: Draw, part: Part) -> Asked:
    place = draw.below(len(PLACES)) if draw.chance(0.2) else draw.pick(scene).place
    return Asked("place", f"What is {PLACES[place]}?", shown_at(scene, place))


def _colour(scene: Scene, draw: Draw, part: Part) -> Asked | None:
    alone = _of_one_shape(scene)
    if not alone:
        return None
    figure = draw.pick(alone)
    return Asked("colour", f"What colour is the {figure.shape}?", figure.colour, judged(scene, figure.shape))


def _where(scene: Scene, draw: Draw, part: Part) -> Asked | None:
    texts = [figure for figure in scene if figure.digits]
    alone = _of_one_shape(scene) + (texts if len(texts) == 1 else [])
    if not alone:
        return None
    figure = draw.pick(alone)
    wanted = figure.shape or "text"
    return Asked("where", f"Where is the {wanted}?", PLACES[figure.place], judged(scene, wanted))


def _digits(scene: Scene, draw: Draw, part: Part) -> Asked | None:
    texts = [figure for figure in scene if figure.digits]
    return Asked("digits", "Which digits?", " ".join(texts[0].digits)) if len(texts) == 1 else None


def _there(scene: Scene, draw: Draw, part: Part) -> Asked | None:
    there = shapes(scene)
    if not there:
        return None
    shown = {(figure.colour, figure.shape) for figure in there}
    pair = draw.pick(sorted(shown))
    if draw.chance(0.5):
        while pair in shown:
            pair = _other_pair(pair, draw, withheld=part == "withheld")
    wanted = " ".join(pair)
    return Asked("there", f"Is there a {wanted}?", yes_or_no(pair in shown), judged(scene, wanted))


def _other_pair(pair: tuple[str, str], draw: Draw, *, withheld: bool) -> tuple[str, str]:
    """Half of the time of the same colour or shape; withheld pairs share neither with each other."""
    if withheld or draw.chance(0.5):
        return drawn_pair(draw, withheld=withheld)
    colour, shape = pair
    other = (draw.pick(tuple(COLOURS)), shape) if draw.chance(0.5) else (colour, draw.pick(SHAPES))
    return pair if other in WITHHELD_PAIRS else other


def _of_one_shape(scene: Scene) -> list[Figure]:
    """Figures whose shape no other figure of the scene has."""
    there = shapes(scene)
    return [figure for figure in there if sum(other.shape == figure.shape for other in there) == 1]


_QUESTIONS: tuple[Callable[[Scene, Draw, Part], Asked | None], ...] = (
    _place,
    _place,
    _colour,
    _where,
    _digits,
    _there,
)
