"""A lake with a model that learned to solve word problems for some seconds, and files of new problems."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from benchmarks.adaptive_toy import stepping, story, text
from gristmill.lake.store.base import Store
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.chat.conversation import Conversation, Turn, prompt
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.stages.run.runner import Runner

_VOCAB, _END = 400, 3
BATCH = 32


def problems(path: Path, count: int) -> Path:
    """A file of so many, in GSM8K's form."""
    draw = random.Random("posed")
    tales = [story(draw, True) for _ in range(count)]
    rows = [{"question": text(tale.question), "answer": text(tale.chain)} for tale in tales]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def import_trained(store: Store, folder: Path, steps: int) -> None:
    """`base@v1`: a model that learned for so many steps, with its tokenizer."""
    draw = random.Random("learned")
    texts = [text(tale.question + tale.chain) for tale in (story(draw, True) for _ in range(400))]
    data = train_tokenizer(texts, _VOCAB)
    tokenizer = Tokenizer.from_bytes(data)
    language = replace(PRESETS["nano"].text, vocab_size=tokenizer.vocab_size, num_hidden_layers=3)
    model = Multimodal.seeded(ModelConfig(language), 0)
    step = stepping(model, steps)
    for _ in range(steps):
        ids, targets = _batch(tokenizer, draw)
        cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        step()
    save_hf(model.eval(), folder / "hf", tokenizer=data)
    config = ModelRunConfig.model_validate({"recipe": {"dataset": "base", "folder": str(folder / "hf")}})
    run_pipeline(config, store, Runner(store, workers=0))


def _batch(tokenizer: Tokenizer, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and what follows each of a chain, -100 elsewhere."""
    tales = [story(draw, True) for _ in range(BATCH)]
    asked = [prompt(Conversation((Turn("user", text(tale.question)),))) for tale in tales]
    questions = [tokenizer.encode([question]).ids.tolist() for question in asked]
    chains = [[*tokenizer.encode([[Segment(text(tale.chain))]]).ids.tolist(), _END] for tale in tales]
    return _padded(questions, chains)


def _padded(questions: Sequence[list[int]], chains: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(question) + len(chain) for question, chain in zip(questions, chains, strict=True))
    ids = torch.zeros(len(questions), longest, dtype=torch.long)
    targets = torch.full_like(ids, -100)
    for row, (question, chain) in enumerate(zip(questions, chains, strict=True)):
        first, end = len(question), len(question) + len(chain)
        ids[row, :end] = torch.tensor(question + chain)
        targets[row, first - 1 : end - 1] = torch.tensor(chain)
    return ids, targets
