"""Spoken questions about generated pictures: neither picture nor question alone has the answer. Notable choices:

- of the two figures of a scene one is asked about: what is at its place, its colour, or where it is; so whoever does
  not hear the question has up to six answers to choose from, and whoever does not see has those of all scenes;
- scenes are held out as they are in synth/scenes, so that a model that learned those has seen none of them.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import PLACES, Figure, Scene, drawn_scene
from gristmill.synth.scenes.picture import background, png, scene_pixels
from gristmill.synth.speech.sentences import Part


class Shown(NamedTuple):
    """A scene, and a question about it as it is written."""

    kind: str
    scene: Scene
    question: str
    answer: str

    def picture(self, draw: Draw) -> bytes:
        """A PNG file of the scene."""
        return png(scene_pixels(self.scene, draw, background(draw)))


def drawn_shown(draw: Draw, part: Part) -> Shown:
    """About one of the figures of a scene."""
    while True:
        scene = drawn_scene(draw, part)
        figure = draw.pick(scene)
        kind = draw.pick(("place", "colour", "where"))
        name = figure.shape or "text"
        if kind == "place":
            return Shown(kind, scene, f"What is {PLACES[figure.place]}?", str(figure))
        if not _is_alone(figure, scene):
            continue
        if kind == "where":
            return Shown(kind, scene, f"Where is the {name}?", PLACES[figure.place])
        if figure.colour:
            return Shown(kind, scene, f"What colour is the {name}?", figure.colour)


def _is_alone(figure: Figure, scene: Scene) -> bool:
    """Whether no other figure of the scene has its shape, or is a text too."""
    return sum(other.shape == figure.shape for other in scene) == 1
