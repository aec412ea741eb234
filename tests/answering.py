"""What a model in a lake answers to rows with images and clips, and to the same rows without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.samples import Rules, item_of
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.processing.detokenize import decoder
from gristmill.model.processing.segments import Segment, placeholder_of
from gristmill.model.windows.placeholders import LogMel, Medium
from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.text.instruct import parts_of


def answers(
    lake: str, model: str, data: str, without: str | None = None, exchanged: str | None = None
) -> list[tuple[str, str]]:
    """(expected, answered) of each row of a dataset, greedily. `without`: the kind of media that is left out;
    `exchanged`: the kind of which each row has that of the row before it."""
    store = open_store(lake)
    loaded = load_model(store, model)
    tokenizer, config = loaded.tokenizer, loaded.model.config
    assert tokenizer is not None
    log_mel = log_mel_of(config, tokenizer, LogMel(exact=False))
    prompts = Prompts(tokenizer, cut_of(config, tokenizer, 4), log_mel=log_mel)
    expected: list[str] = []

    def requests() -> Iterator[Request]:
        rows = list(_rows(lake, data))
        for number, row in enumerate(rows):
            item = item_of(parts_of(row["text"], row["parts"]), Rules(), "answer")
            shown = [part for part in item.prompt if _kind(part) is None or _kind(part) != without]
            media = [
                Medium(own["kind"], (before if own["kind"] == exchanged else own)["data"])
                for own, before in zip(row["media"], rows[number - 1]["media"], strict=True)
            ]
            asked = prompts.of(shown, media)
            sampling = Sampling(max_tokens=24, temperature=0)
            yield Request(str(len(expected)), asked.tokens, sampling, media=asked.media or None)
            expected.append(item.expected)

    engine = Engine(loaded.model, Options(max_num_seqs=32, max_model_len=256, block_size=64))
    decode, ends = decoder(tokenizer), config.text.eos_token_id
    texts = {int(each.request.key): each.text(decode, ends).strip() for each in engine.run(requests())}
    return [(text, texts[number]) for number, text in enumerate(expected)]


def _rows(lake: str, data: str) -> Iterator[dict[str, Any]]:
    store = open_store(lake)
    for ref in Versions(store).resolve(data).shards:
        yield from read_table(store, ref).to_pylist()


def _kind(part: Segment) -> str | None:
    """Of the medium that a part stands for; None: it is text."""
    medium = placeholder_of(part)
    return None if medium is None else medium.kind
