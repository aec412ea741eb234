"""Which parts of a model nothing goes through where a mixture has no images, or no clips.

Training such a part costs a run and leaves it as the seed made it, or decays it: so it is refused before the run.
"""

from __future__ import annotations

from collections.abc import Collection

from gristmill.model.phi4.parts import Part

_ARRAYS = {"images": "tiles", "clips": "mel"}
"""What windows hold where there are media of a kind."""
_NEEDED = {
    Part.VISION_ENCODER: ("images",),
    Part.VISION_PROJECTOR: ("images",),
    Part.LORA_VISION: ("images",),
    Part.AUDIO_ENCODER: ("clips",),
    Part.AUDIO_PROJECTOR_SPEECH: ("clips",),
    Part.AUDIO_PROJECTOR_VISION: ("images", "clips"),  # sound goes through it where there is an image too
    Part.LORA_SPEECH: ("clips",),
}
"""Media without which nothing goes through a part."""


def check_reached(trainable: Collection[Part], arrays: Collection[str], data: str) -> None:
    """Raises ValueError where parts that are to be trained would get no gradient. `arrays`: what windows of the mixture
    `data` hold."""
    absent = {kind for kind, array in _ARRAYS.items() if array not in arrays}
    unreached = [part for part in sorted(trainable) if absent.intersection(_NEEDED.get(part, ()))]
    if not unreached:
        return
    lacking = sorted(absent.intersection(kind for part in unreached for kind in _NEEDED[part]))
    raise ValueError(
        f"trainable: {', '.join(unreached)} would get no gradient from data={data}, whose windows have no"
        f" {' and no '.join(lacking)}: train them on a mixture with {' and '.join(lacking)}, or leave them out"
    )
