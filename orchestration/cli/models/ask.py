"""`grist ask`: one question to a model, about images and clips if there are any, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.model.phi4.config import DTYPES
from gristmill.orchestration.cli.models.serve import check_device, check_dtype, exact_name, load_with_tokenizer
from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer

if TYPE_CHECKING:
    from gristmill.model.phi4.multimodal import Multimodal
    from gristmill.model.processing.text import Tokenizer
    from gristmill.model.windows.prompts import Prompted

_PAGE = 128


@dataclass(frozen=True)
class Answered:
    """What a model said. `adapter` that it said it with; `finish_reason`: "stop", or "length": it was cut off."""

    text: str
    prompt_tokens: int
    tokens: int
    adapter: str | None
    finish_reason: str


def ask(
    model: Annotated[str, typer.Argument(metavar="FOLDER|NAME[@vN]", help="A checkpoint's folder, or a version.")],
    question: Annotated[str, typer.Argument(help="What is asked; nothing where a clip asks.")] = "",
    image: Annotated[list[Path] | None, typer.Option(help="A file with a picture. Repeatable.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="A file with a clip. Repeatable.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="0: greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is drawn above temperature 0.")] = 0,
    max_crops: Annotated[int, typer.Option(min=1, help="Crops that an image is cut into.")] = 36,
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. Default: as stored.")] = None,
    device: Annotated[str, typer.Option(help="As torch names it: cpu, cuda, cuda:1.")] = "cpu",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model one thing. Images stand before clips, and both before the question, as in training data."""
    # long: a parameter for each option
    if not (question.strip() or image or audio):
        raise ValueError("there is nothing to ask: give a question, --image or --audio")
    check_device(device)
    check_dtype(dtype)
    network, tokenizer = load_with_tokenizer(exact_name(model, lake), dtype, device, lake)

    from gristmill.model.generate.engine import Engine, Options, Request
    from gristmill.model.generate.sampling import Sampling
    from gristmill.model.processing.detokenize import decoder

    prompt = _prompt(network, tokenizer, question, image or (), audio or (), max_crops)
    context = network.config.text.max_position_embeddings
    if (needed := len(prompt.tokens) + max_tokens) > context:
        raise ValueError(f"{needed} tokens of question and answer: the model's context is {context}")
    page = _PAGE if context % _PAGE == 0 else 4
    options = Options(4, -(-needed // page) * page, 4, prefill_chunk_size=page, block_size=page)
    decode = decoder(tokenizer)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    (done,) = Engine(network, options, decode).run([Request(str(seed), prompt.tokens, sampling, media=prompt.media)])
    text = done.text(decode, network.config.text.eos_token_id)
    reply = Answered(text, len(prompt.tokens), len(done.tokens), done.adapter, done.finish_reason or "length")
    answer(reply, as_json, lambda console: console.print(reply.text, markup=False, highlight=False, soft_wrap=True))


def _prompt(
    network: Multimodal,
    tokenizer: Tokenizer,
    question: str,
    images: Sequence[Path],
    clips: Sequence[Path],
    max_crops: int,
) -> Prompted:
    """Raises OSError for a file that is not there, ValueError for one that the model does not take."""
    from gristmill.model.processing.chat.template import answered
    from gristmill.model.processing.chat.turns import Conversation, Shown, Turn
    from gristmill.model.windows.placeholders import BadMedium, Medium
    from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of

    config = network.config
    cut = cut_of(config, tokenizer, max_crops) if images else None
    log_mel = log_mel_of(config, tokenizer) if clips else None
    media = [
        *(Medium("image", path.read_bytes()) for path in images),
        *(Medium("audio", path.read_bytes()) for path in clips),
    ]
    shown = (*(Shown("image", 0, None) for _ in images), *(Shown("audio", 0, None) for _ in clips))
    parts = answered(Conversation((Turn("user", question, media=shown),)))
    try:
        return Prompts(tokenizer, cut, log_mel=log_mel).of(parts, media)
    except BadMedium as error:
        path = (images if error.kind == "image" else clips)[error.number - 1]
        raise ValueError(f"{path}: {error.message}") from error
