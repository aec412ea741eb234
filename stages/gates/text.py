"""The gate of text: with its adapters in place, a model makes of text what the language model it started from makes.

What is asked, and how both sides are made equal but for the adapters, `model.gates.text` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gristmill.lake.store.base import Store
from gristmill.model.phi4.parts import Part
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.gates.gate import SHOWN, GateInput, WeightsGate
from gristmill.stages.models.model_versions import load_weights

if TYPE_CHECKING:  # torch takes seconds to import
    from gristmill.model.gates.text import Probe, TextBits


@dataclass(frozen=True)
class TextFinding:
    """`places`: where text stood; `differing`: where it is not what the language model makes of it. `filled`: adapters
    that added nothing as they are stored, and were given values on a copy; `idle`: those that change nothing even so
    of what they are for; `unreached`: those whose modality the model lacks."""

    passed: bool
    why: str
    places: int
    differing: tuple[str, ...]
    filled: tuple[str, ...]
    idle: tuple[str, ...]
    unreached: tuple[str, ...]


@dataclass(frozen=True)
class TextAlone(WeightsGate):
    """Text is what the base's language model makes of it, bit for bit. Not for stages that train the language model."""

    name: ClassVar[str] = "gate_text"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """Facts: TextFinding. Raises DamagedObject, NotFound."""
        from gristmill.model.gates.text import fill_zero_adapters, language_config, probe, text_bits
        from gristmill.stages.train.local import device_of

        payload, device = work.payload, device_of(self.execution.device)
        given = probe(self.config)

        def of_result() -> tuple[TextBits, tuple[str, ...]]:
            model = load_weights(store, self.config, payload.weights, device=device)
            filled = fill_zero_adapters(model)
            return text_bits(model, given), filled

        def of_base() -> TextBits:
            language = payload.given.parts[Part.LANGUAGE]
            return text_bits(load_weights(store, language_config(self.config), language, device=device), given)

        result, filled = of_result()  # one after the other: only one of them is in memory
        return Outcome(outputs=(), facts=self._finding(given, result, of_base(), filled))

    def _finding(self, given: Probe, result: TextBits, base: TextBits, filled: Sequence[str]) -> TextFinding:
        differing = [name for name in base.digests if result.digests.get(name) != base.digests[name]]
        names = [adapter.name for adapter in self.config.adapters]
        unreached = [name for name in names if not given.holds(name)]
        idle = [name for name in names if name not in result.acting and name not in unreached]
        return TextFinding(
            passed=not differing and not idle,
            why=_why(len(base.digests), differing, filled, idle, unreached),
            places=len(base.digests),
            differing=tuple(differing[:SHOWN]),
            filled=tuple(filled),
            idle=tuple(idle),
            unreached=tuple(unreached),
        )


def _why(
    places: int, differing: Sequence[str], filled: Sequence[str], idle: Sequence[str], unreached: Sequence[str]
) -> str:
    if differing:
        return (
            f"in {len(differing)} of {places} places text is not what the base's language model makes of it:"
            f" {'; '.join(differing[:SHOWN])}. Adapters must not touch text: this is a defect of the router, the"
            " adapters or the loader, please report it"
        )
    if idle:
        return (
            f"adapter {', '.join(idle)} changes nothing of the samples that it is for, so that text was not put to the"
            " test: this is a defect of the router, please report it"
        )
    notes = [f"text in {places} places is bit for bit what the base's language model makes of it"]
    if filled:
        notes.append(f"adapter {', '.join(filled)} is zero as it is stored, and was given values on a copy")
    if unreached:
        notes.append(f"nothing that this model can be given takes adapter {', '.join(unreached)}")
    return "; ".join(notes)
