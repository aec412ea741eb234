"""The functions of `import gristmill`: versions of a lake as Python has them. Each imports what it needs when called.

A function takes a version by name (`web@v3`, `web@some-tag`, `web` for the latest) and a lake by its address, which is
$GRIST_LAKE where none is given. Errors are those of the packages below, and say what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gristmill.lake.query.dataset import Dataset
    from gristmill.model.generate.engine import Engine, Options
    from gristmill.model.phi4.multimodal import Multimodal
    from gristmill.model.processing.text import Tokenizer
    from gristmill.model.shards.files import ShardReader


def open(ref: str, lake: str | None = None) -> Dataset:
    """A version of a dataset: `len`, iteration, `to_arrow`, `to_pandas`, `to_torch`, `to_hf`, `to_ray`, `ledger`,
    `manifest`.

    >>> web = gristmill.open("web@v3", lake="s3://bucket/lake")
    >>> web.to_pandas(columns=["url", "text"])

    Raises ValueError (no lake, or an address that is none) and NoSuchVersion, for a version that was withdrawn too.
    """
    from gristmill.lake.query.dataset import open as open_version

    return open_version(ref, lake)


def windows(version: str | Dataset, lake: str | None = None, *, seed: int = 0) -> ShardReader:
    """The packed windows of a mixture, for a trainer: by number, or by position in an endless order of epochs.

    >>> windows = gristmill.windows("mix@v1", seed=0)
    >>> for position, window in windows.iterate(90_000, rank=3, world=8, ahead=16):
    ...     window.arrays["input_ids"], window.arrays["loss_mask"], window.arrays["cu_seqlens"]

    `input_ids` int32 [tokens], `loss_mask` bool [tokens] (what the loss counts), `cu_seqlens` int32 [samples + 1]. The
    state of a run is the next position, one integer, whatever the number of ranks. Raises ValueError for a version
    that has no windows, DamagedShard for one that is not what its manifest says.
    """
    from gristmill.stages.mix.windows import read_windows

    dataset = open(version, lake) if isinstance(version, str) else version
    return read_windows(dataset.store, dataset.manifest, seed=seed)


@dataclass(frozen=True)
class Model:
    """A model in evaluation. `tokenizer`: None where it came without one. `sidecars`: name -> text of the files that
    lay beside its weights (chat template, sampling defaults). `name`: the version, or the folder."""

    name: str
    network: Multimodal
    tokenizer: Tokenizer | None
    sidecars: Mapping[str, str] = field(default_factory=dict, repr=False)


def load_model(name: str, lake: str | None = None, *, dtype: str | None = None, device: str = "cpu") -> Model:
    """A model by its version (`base@v1`), or of a folder in transformers' format (`./checkpoint`).

    >>> model = gristmill.load_model("base@v1", dtype="bfloat16", device="cuda")
    >>> logits = model.network(token_ids).logits          # [batch, length] -> [batch, length, vocabulary]

    `dtype` as torch names it; None: as stored. A name is a folder if there is one of this name. Every byte of a version
    is compared with its digest. Raises NoSuchVersion, LookupError for a version that is no model, and ValueError that
    names the file and what is wrong with it.
    """
    if Path(name).is_dir():
        return _model_of_folder(Path(name), dtype, device)

    from gristmill.lake.query.dataset import lake_of
    from gristmill.stages.models.model_versions import load_model as load_version

    loaded = load_version(lake_of(lake), name, dtype=dtype, device=device)
    return Model(str(loaded.manifest), loaded.model, loaded.tokenizer, loaded.sidecars)


def _model_of_folder(folder: Path, dtype: str | None, device: str) -> Model:
    import torch

    from gristmill.model.hf import sidecars
    from gristmill.model.hf.checkpoint import load_hf
    from gristmill.model.phi4.config import DTYPES
    from gristmill.model.processing.text import Tokenizer

    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype={dtype!r}: allowed are {', '.join(DTYPES)}")
    network = load_hf(folder, dtype=getattr(torch, dtype) if dtype else None, device=device)
    tokenizer = None
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_bytes((folder / "tokenizer.json").read_bytes())
        tokenizer.check_fits(network.config.text.vocab_size)
    return Model(str(folder), network, tokenizer, sidecars.read(folder))


def engine(model: str | Model, options: Options | None = None, lake: str | None = None) -> Engine:
    """An engine that generates by continuous batching, with `model` or the one of this name.

    >>> engine = gristmill.engine("base@v1")
    >>> settings = gristmill.Sampling(max_tokens=256)
    >>> for completion in engine.run([gristmill.Request("gsm8k/17", tokens, settings, n=8)]):  # tokens: of the prompt
    ...     completion.tokens, completion.finish_reason

    `options`: how many completions at a time and how long; None: `Options()`, no longer than the model's context. What
    a completion is follows from its request alone, whatever runs beside it. Raises as `load_model`, and ValueError for
    options that do not fit the model.
    """
    from gristmill.model.generate.engine import Engine
    from gristmill.model.processing.detokenize import decoder

    loaded = load_model(model, lake) if isinstance(model, str) else model
    chosen = options or fitting(loaded.network.config.text.max_position_embeddings)
    return Engine(loaded.network, chosen, decoder(loaded.tokenizer) if loaded.tokenizer else None)


def fitting(context: int) -> Options:
    """The default options, or those of the longest sequences that a short context has room for."""
    from gristmill.model.generate.engine import Options

    default = Options()
    if default.max_model_len <= context:
        return default
    block = min(default.block_size, 1 << (context.bit_length() - 1))  # a power of two, as lengths are multiples of it
    return Options(
        max_model_len=context - context % block,
        prefill_chunk_size=min(default.prefill_chunk_size, block),
        block_size=block,
    )
