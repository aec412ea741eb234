"""The gates of kinds: of text, of images, of sound a model makes what the model it started from made of them.

A stage that trains nothing that samples of a kind go through may not change what comes of them: text after every stage
but those of the language model, images after the stages of speech, sound after those that learn with images. What is
asked, and how both sides are made equal but for what is new, `model.gates.kinds` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gristmill.lake.store.base import Store
from gristmill.model.assembly.shapes import SECTIONS, parts_of
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import ADAPTERS, Part
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.gates.gate import SHOWN, GateInput, WeightsGate
from gristmill.stages.models.model_versions import load_weights

if TYPE_CHECKING:  # torch takes seconds to import
    from gristmill.model.gates.kinds import KindBits, Probe

READS: Mapping[str, frozenset[Part]] = {
    "text": frozenset({Part.LANGUAGE}),
    "vision": frozenset({Part.LANGUAGE, Part.VISION_ENCODER, Part.VISION_PROJECTOR, Part.LORA_VISION}),
    "speech": frozenset({Part.LANGUAGE, Part.AUDIO_ENCODER, Part.AUDIO_PROJECTOR_SPEECH, Part.LORA_SPEECH}),
}
"""The parts that samples of a kind go through: of images alone, of sound alone."""
_CALLED = {"text": "text", "vision": "images", "speech": "sound"}


@dataclass(frozen=True)
class KindFinding:
    """`places`: where a sample of the kind stood; `differing`: where it is not what the base makes of it. `filled`:
    adapters that added nothing as they are stored, and were given values on a copy; `idle`: those that change nothing
    even so of what they are for; `unreached`: those whose modality the model lacks."""

    passed: bool
    why: str
    places: int
    differing: tuple[str, ...]
    filled: tuple[str, ...]
    idle: tuple[str, ...]
    unreached: tuple[str, ...]


@dataclass(frozen=True)
class KindAlone(WeightsGate):
    """Samples of a kind are what the base makes of them, bit for bit. Not for stages that train what they go through
    (`not_for`)."""

    kind: ClassVar[str]

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """Facts: KindFinding. Raises DamagedObject, NotFound."""
        from gristmill.model.gates.kinds import base_config, fill_zero_adapters, kind_bits, probe
        from gristmill.stages.train.local import device_of

        payload, device = work.payload, device_of(self.execution.device)
        given = probe(self.config)

        def of_result() -> tuple[KindBits, tuple[str, ...]]:
            model = load_weights(store, self.config, payload.weights, device=device)
            filled = fill_zero_adapters(model)
            return kind_bits(model, given, self.kind), filled

        def of_base() -> KindBits:
            config = base_config(self.config, self.kind)
            # What is new of it, samples of the kind do not go through: it only makes the batch the same.
            refs = [payload.given.parts.get(part) or payload.of_part(part) for part in sorted(parts_of(config))]
            model = load_weights(store, config, [ref for own in refs for ref in own], device=device)
            return kind_bits(model, given, self.kind)

        result, filled = of_result()  # one after the other: only one of them is in memory
        return Outcome(outputs=(), facts=self._finding(given, result, of_base(), filled))

    def _finding(self, given: Probe, result: KindBits, base: KindBits, filled: Sequence[str]) -> KindFinding:
        differing = [name for name in base.digests if result.digests.get(name) != base.digests[name]]
        names = [adapter.name for adapter in self.config.adapters]
        unreached = [name for name in names if not given.holds(name)]
        idle = [name for name in names if name not in result.acting and name not in unreached]
        return KindFinding(
            passed=not differing and not idle,
            why=_why(_CALLED[self.kind], len(base.digests), differing, filled, idle, unreached),
            places=len(base.digests),
            differing=tuple(differing[:SHOWN]),
            filled=tuple(filled),
            idle=tuple(idle),
            unreached=tuple(unreached),
        )


class TextAlone(KindAlone):
    """Text is what the language model makes of it."""

    name: ClassVar[str] = "gate_text"
    VERSION: ClassVar[int] = 1
    kind: ClassVar[str] = "text"


class VisionAlone(KindAlone):
    """Images, and text with them, are what the model without sound makes of them."""

    name: ClassVar[str] = "gate_vision"
    VERSION: ClassVar[int] = 1
    kind: ClassVar[str] = "vision"


class SpeechAlone(KindAlone):
    """Sound without images is what it was before."""

    name: ClassVar[str] = "gate_speech"
    VERSION: ClassVar[int] = 1
    kind: ClassVar[str] = "speech"


_NOT_FOR_LANGUAGE = "does not apply: the stage trains the language model, so that what it makes of text has to change"


def not_for(kind: str, stage: TrainStage, config: ModelConfig) -> str | None:
    """Why the gate of a kind does not apply to a stage with a model of this config; None: it does."""
    called = _CALLED[kind]
    if kind == "text":
        return _NOT_FOR_LANGUAGE if Part.LANGUAGE in stage.trainable else None
    if trained := sorted(READS[kind] & stage.trainable):
        return f"does not apply: the stage trains {', '.join(trained)}, so that what it makes of {called} has to change"
    if any(getattr(config, SECTIONS[part]) is None for part in READS[kind] & set(SECTIONS)):
        return f"does not apply: the model takes no {called}"
    needed = READS[kind] - set(ADAPTERS.values())
    if new := sorted(needed - set(stage.init_from)):
        return f"does not apply: {', '.join(new)} is new, and nothing took {called} before"
    return None


def _why(
    called: str,
    places: int,
    differing: Sequence[str],
    filled: Sequence[str],
    idle: Sequence[str],
    unreached: Sequence[str],
) -> str:
    if differing:
        return (
            f"in {len(differing)} of {places} places {called} is not what {_base(called)} makes of it:"
            f" {'; '.join(differing[:SHOWN])}. What was trained must not touch {called}: this is a defect of the"
            " router, the adapters or the loader, please report it"
        )
    if idle:
        return (
            f"adapter {', '.join(idle)} changes nothing of the samples that it is for, so that {called} was not put"
            " to the test: this is a defect of the router, please report it"
        )
    notes = [f"{called} in {places} places is bit for bit what {_base(called)} makes of it"]
    if filled:
        notes.append(f"adapter {', '.join(filled)} is zero as it is stored, and was given values on a copy")
    if unreached:
        notes.append(f"nothing that this model can be given takes adapter {', '.join(unreached)}")
    return "; ".join(notes)


def _base(called: str) -> str:
    return "the base's language model" if called == "text" else "the base"
