"""Questions about several pictures: two frames, or three pictures. Notable choices:

- a frame is asked for by number, about a place where both show different figures, so that one frame is not enough to
  guess by;
- what changed is one of two figures, which became another figure, went, or came to an empty place;
- what is compared is read first, place by place or picture by picture, as a thought before the answer;
- of three pictures exactly one has the shape in the colour that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import (
    NOTHING,
    PLACES,
    Part,
    Scene,
    drawn_figure,
    drawn_scene,
    part_of,
    shown_at,
)
from gristmill.synth.scenes.questions import Asked, judged, shapes, yes_or_no

ORDINALS = ("first", "second", "third")


class Frames(NamedTuple):
    """Scenes in order and questions about them; `is_video`: frames of one scene share its background."""

    scenes: tuple[Scene, ...]
    asked: tuple[Asked, ...]
    is_video: bool = False


def drawn_frames(draw: Draw, part: Part, count: int) -> Frames:
    """Of one of the kinds, with up to `count` questions; every scene is of `part`, which is not withheld."""
    frames = draw.pick(_KINDS)(draw, part)
    return frames._replace(asked=frames.asked[:count])


def _frame(draw: Draw, part: Part) -> Frames:
    while True:
        scenes = drawn_scene(draw, part), drawn_scene(draw, part)
        if questions := _of_frames(scenes):
            return Frames(scenes, tuple(draw.shuffled(questions)))


def _of_frames(scenes: tuple[Scene, Scene]) -> list[Asked]:
    """What is in either, at every place where both show a figure, and not the same."""
    return [
        Asked("frame", f"What is {PLACES[figure.place]} in the {ordinal}?", shown_at(scene, figure.place))
        for figure in scenes[0]
        if shown_at(scenes[1], figure.place) not in (NOTHING, str(figure))
        for ordinal, scene in zip(ORDINALS, scenes, strict=False)
    ]


def _change(draw: Draw, part: Part) -> Frames:
    """What changed, and whether a place is the same. Each is the first question as often as the other."""
    before, after, place = _changed_scene(draw, part)
    answer = f"{PLACES[place]} {shown_at(before, place)} became {shown_at(after, place)}"
    thought = "\n".join(_compared(before, after, at) for at in range(len(PLACES)))
    changed = Asked("changed", "What changed?", answer, thought)
    other = draw.pick([figure.place for figure in (*before, *after) if figure.place != place])
    first, second = draw.shuffled([_same(before, after, place), _same(before, after, other)])
    asked = *draw.shuffled([changed, first]), second, *draw.shuffled(_of_frames((before, after)))
    return Frames((before, after), asked, is_video=True)


def _same(before: Scene, after: Scene, place: int) -> Asked:
    answer = yes_or_no(shown_at(before, place) == shown_at(after, place))
    return Asked("same", f"Is {PLACES[place]} the same in both?", answer, _compared(before, after, place))


def _compared(before: Scene, after: Scene, place: int) -> str:
    """What both show at a place, and whether it is the same."""
    first, second = shown_at(before, place), shown_at(after, place)
    return f"{PLACES[place]} first {first} second {second} {yes_or_no(first == second)}"


def _which(draw: Draw, part: Part) -> Frames:
    while True:
        scenes = tuple(drawn_scene(draw, part) for _ in ORDINALS)
        pairs = [set(map(str, shapes(scene))) for scene in scenes]
        asked = [
            Asked("which", f"Which has a {pair}?", ORDINALS[number], _searched(scenes, pair))
            for number, own in enumerate(pairs)
            for pair in sorted(own.difference(*pairs[:number], *pairs[number + 1 :]))
        ]
        if asked:
            return Frames(scenes, tuple(draw.shuffled(asked)))


def _searched(scenes: Sequence[Scene], wanted: str) -> str:
    """Every picture's figures, and whether each is the one that is wanted."""
    return "\n".join(f"{ordinal} {judged(scene, wanted)}" for ordinal, scene in zip(ORDINALS, scenes, strict=True))


def _changed_scene(draw: Draw, part: Part) -> tuple[Scene, Scene, int]:
    """A scene before and after a change, and its place."""
    while True:
        scene = drawn_scene(draw, part)
        place = draw.pick(scene).place
        other = tuple(figure for figure in scene if figure.place != place)
        if draw.chance(0.8):  # else the figure is missing in the other frame
            other = tuple(sorted((*other, drawn_figure(draw, place)), key=lambda figure: figure.place))
        if part_of(other) == part and shown_at(scene, place) != shown_at(other, place):
            return (scene, other, place) if draw.chance(0.5) else (other, scene, place)


_KINDS: tuple[Callable[[Draw, Part], Frames], ...] = (_frame, _frame, _change, _change, _which)
