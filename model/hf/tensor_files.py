"""safetensors files: what is in one, one tensor of it at a time, and many tensors spread over several.

A file is opened anew for each tensor: what was mapped for the last one is given back, so a model's worth of files costs
one model's worth of memory, and the tensors do not lean on files that may be replaced. Same tensors, same bytes.
Source: safetensors 0.8, its format and its Python binding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, dtype: torch.dtype | None, device: torch.device | str) -> Tensor:
        """In memory of its own; `dtype` None: as stored."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(self.key).to(device, dtype, copy=True)


def contents(path: Path, ignored: Callable[[str], bool] = lambda key: False) -> list[Stored]:
    """All tensors of a file, by its header, but those `ignored` by their keys. Raises ValueError if it is damaged or
    holds other than floating values."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys() if not ignored(key)}  # noqa: SIM118 - no mapping
            kinds = {key: of_tensor.get_dtype() for key, of_tensor in slices.items()}
            shapes = {key: tuple(of_tensor.get_shape()) for key, of_tensor in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file, or cut short: {error}; fetch it again") from error
    for key, kind in kinds.items():
        if kind not in _FLOATS:
            raise ValueError(f"{path}: {key} holds {kind}; allowed are {', '.join(_FLOATS)}: nothing quantised")
    return [Stored(path, key, shape, _FLOATS[kinds[key]]) for key, shape in shapes.items()]


def by_name(tensors: Iterable[tuple[str, Stored]]) -> dict[str, Stored]:
    """Stored tensors by name. Raises ValueError for a name that comes twice."""
    named: dict[str, Stored] = {}
    for name, tensor in tensors:
        if (other := named.setdefault(name, tensor)) is not tensor:
            raise ValueError(
                f"{name} is stored twice: in {other.path} as {other.key}, in {tensor.path} as {tensor.key}"
            )
    return named


def write(
    tensors: Mapping[str, Tensor], folder: Path, file_name: Callable[[int, int], str], limit: int
) -> dict[str, str]:
    """Writes files of up to `limit` bytes of tensors each, or of one larger tensor, in the order given.

    `file_name`: of the number of a file, from 0, and of how many there are. -> The file of each tensor, by its key.
    """
    groups = _groups(tensors, limit)
    written: dict[str, str] = {}
    for number, keys in enumerate(groups):
        name = file_name(number, len(groups))
        values = {key: tensors[key].detach().cpu().contiguous() for key in keys}
        save_file(values, folder / name, metadata={"format": "pt"})
        _share(folder / name)
        written |= dict.fromkeys(keys, name)
    return written


def _share(file: Path) -> None:
    """Gives the file the mode of a new one: safetensors writes so that nobody else can read it."""
    new = file.with_name(f".{file.name}.new")
    new.touch()
    file.chmod(new.stat().st_mode & 0o777)
    new.unlink()


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _groups(tensors: Mapping[str, Tensor], limit: int) -> list[list[str]]:
    """Keys of tensors by file, in their order: each file as full as it can be."""
    groups: list[list[str]] = []
    room = 0  # bytes left in the last group
    for key, tensor in tensors.items():
        room -= size([tensor])
        if not groups or room < 0:
            groups.append([])
            room = limit - size([tensor])
        groups[-1].append(key)
    return groups
