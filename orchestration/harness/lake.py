"""A model of the lake in lm-evaluation-harness: `lm_eval.simple_evaluate(model=lake_lm("base@v1"), tasks=[...])`."""

from __future__ import annotations

from typing import Any

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.harness.answering import Answering
from gristmill.pipelines.settings.config import lake_uri
from gristmill.stages.evaluate.settings import PAGE
from gristmill.stages.models.model_versions import load_model

LENGTH = 4096


def lake_lm(
    version: str,
    lake: str | None = None,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    max_num_seqs: int = 16,
) -> Any:
    """A version such as base@v1 as an `lm_eval.api.model.LM`. `lake`: its address, by default $GRIST_LAKE.

    `max_length`: tokens of context and answer, whole pages of 128; by default 4,096, or the model's context.
    Raises ImportError without the extra `lm-eval`, what `load_model` raises, and ValueError for a model without a
    tokenizer.
    """
    try:
        from gristmill.orchestration.harness.lm import LakeLM
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: lm-evaluation-harness is an extra, `pip install 'gristmill[lm-eval]'`") from error

    loaded = load_model(open_store(lake_uri(lake, "", in_job=False), probe=False), version, dtype=dtype, device=device)
    if loaded.tokenizer is None:
        raise ValueError(f"{version} has no tokenizer: it cannot be asked")
    context = loaded.model.config.text.max_position_embeddings
    length = max_length or min(LENGTH, context - context % PAGE)
    answering = Answering(loaded.model, loaded.tokenizer, length, max_num_seqs)
    return LakeLM(answering, f"{loaded.manifest} {loaded.manifest.digest}", max_gen_toks)
