"""Questions about several pictures: two frames, or three pictures. Notable choices:

- a frame is asked for by number, about a place where both show different figures, so that one frame is not enough to
  guess by;
- what changed is one of two figures, which became another figure, went, or came to an empty place;
- of three pictures exactly one has the shape in the colour that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import (
    NOTHING,
    PLACES,
    Part,
    Scene,
    drawn_scene,
    drawn_thing,
    part_of,
    shown_at,
)
from gristmill.synth.scenes.questions import Asked, shapes

ORDINALS = ("first", "second", "third")


class Frames(NamedTuple):
    """Scenes in order and a question about them; `is_video`: frames of one scene share its background."""

    scenes: tuple[Scene, ...]
    asked: Asked
    is_video: bool = False


def drawn_frames(draw: Draw, part: Part) -> Frames:
    """Of one of the kinds; every scene is of `part`, which is not withheld."""
    return draw.pick(_KINDS)(draw, part)


def _frame(draw: Draw, part: Part) -> Frames:
    while True:
        scenes = drawn_scene(draw, part), drawn_scene(draw, part)
        differ = [
            figure.place for figure in scenes[0] if shown_at(scenes[1], figure.place) not in (NOTHING, str(figure))
        ]
        if differ:
            break
    place, number = draw.pick(differ), draw.below(2)
    question = f"What is {PLACES[place]} in the {ORDINALS[number]}?"
    return Frames(scenes, Asked("frame", question, shown_at(scenes[number], place)))


def _same(draw: Draw, part: Part) -> Frames:
    before, after, place = _changed_scene(draw, part)
    if draw.chance(0.5):
        place = draw.pick([figure.place for figure in (*before, *after) if figure.place != place])
    same = shown_at(before, place) == shown_at(after, place)
    question = f"Is {PLACES[place]} the same in both?"
    return Frames((before, after), Asked("same", question, "yes" if same else "no"), is_video=True)


def _changed(draw: Draw, part: Part) -> Frames:
    before, after, place = _changed_scene(draw, part)
    answer = f"{PLACES[place]} {shown_at(before, place)} became {shown_at(after, place)}"
    return Frames((before, after), Asked("changed", "What changed?", answer), is_video=True)


def _which(draw: Draw, part: Part) -> Frames:
    while True:
        scenes = tuple(drawn_scene(draw, part) for _ in ORDINALS)
        pairs = [{(figure.colour, figure.shape) for figure in shapes(scene)} for scene in scenes]
        number = draw.below(len(scenes))
        others = set[tuple[str, str]]().union(*pairs[:number], *pairs[number + 1 :])
        if wanted := sorted(pairs[number] - others):
            break
    question = f"Which has a {' '.join(draw.pick(wanted))}?"
    return Frames(scenes, Asked("which", question, ORDINALS[number]))


def _changed_scene(draw: Draw, part: Part) -> tuple[Scene, Scene, int]:
    """A scene before and after a change, and its place."""
    while True:
        scene = drawn_scene(draw, part)
        place = draw.pick(scene).place
        other = tuple(figure for figure in scene if figure.place != place)
        if draw.chance(0.8):  # else the figure is missing in the other frame
            other = tuple(sorted((*other, drawn_thing(draw, place)), key=lambda figure: figure.place))
        if part_of(other) == part and shown_at(scene, place) != shown_at(other, place):
            return (scene, other, place) if draw.chance(0.5) else (other, scene, place)


_KINDS: tuple[Callable[[Draw, Part], Frames], ...] = (_frame, _frame, _same, _changed, _which)
