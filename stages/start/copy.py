"""CopyPart: the weights of a part under the names of another that is built alike, as objects of their own.

So a part that starts as a copy is stored, shared, frozen and compared as any other; what it was copied from is in the
sources of the version. The audio projector for clips beside images starts so from the one for clips alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, scratch
from gristmill.model.phi4.parts import Part
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.models.model_versions import WEIGHTS, fetched


@dataclass(frozen=True)
class CopyInput:
    """The weights of the part that is copied."""

    shards: tuple[ObjectRef, ...]


@dataclass(frozen=True)
class CopyPart(Stage[CopyInput]):
    """`source`: the part that is copied; `target`: the part that it becomes."""

    name: ClassVar[str] = "copy_part"
    VERSION: ClassVar[int] = 1

    source: Part
    target: Part

    def run(self, store: Store, work: Work[CopyInput]) -> Outcome:
        """Outputs `weights`, an object for each that is copied. Raises DamagedObject, NotFound, ValueError for weights
        of another part."""
        from safetensors.torch import load_file, save_file  # takes torch, seconds to import

        refs: list[ObjectRef] = []
        with scratch() as folder:
            for ref in work.payload.shards:
                tensors = load_file(fetched(store, ref, folder))
                if foreign := [name for name in tensors if name.partition(".")[0] != self.source]:
                    raise ValueError(f"{ref.sha256[:12]}: holds {foreign[0]}, and is to be a shard of {self.source}")
                named = {f"{self.target}.{name.partition('.')[2]}": tensor for name, tensor in tensors.items()}
                path = folder / "copy.safetensors"
                save_file(named, path, metadata={"format": "pt"})
                refs.append(put_file(store, WEIGHTS, path, len(named), first=min(named), last=max(named)))
        return Outcome(outputs=tuple(refs))
