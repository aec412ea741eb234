"""The command `grist ask`: what a model says of words, pictures and clips, and how it says what it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluations
import pytest
from mixtures import documents, texts, tokenizer
from models import greedy
from serving import seeing_parts
from speech import clip
from typer.testing import CliRunner
from vision import picture

from gristmill.lake.store.opening import open_store
from gristmill.model.generate.engine import Request
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.processing.segments import Segment, placeholder
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Medium
from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.cli.models.serve import exact_name

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a picture and a clip."""
    folder = tmp_path_factory.mktemp("ask")
    tokenizer, model = seeing_parts()
    save_hf(model, folder / "nano", tokenizer=tokenizer)
    (folder / "a.png").write_bytes(picture(1))
    (folder / "a.flac").write_bytes(clip(1, "FLAC"))
    (folder / "none.wav").write_bytes(b"no clip")
    return folder


def asked(folder: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["ask", str(folder / "nano"), *arguments])


@pytest.mark.parametrize(
    ("options", "kinds", "adapter"),
    [
        ([], [], None),
        (["--audio", "a.flac"], ["audio"], "speech"),
        (["--audio", "a.flac", "--image", "a.png"], ["image", "audio"], "vision"),
    ],
)
def test_the_answer_is_that_of_the_model_without_a_cache(
    folder: Path, options: list[str], kinds: list[str], adapter: str | None
) -> None:
    given = [str(folder / text) if "." in text else text for text in options]
    result = asked(folder, "what grinds?", "--max-tokens", "6", "--max-crops", "4", "--json", *given)
    assert result.exit_code == 0, result.output
    reply = json.loads(result.output)
    model = load_hf(folder / "nano")
    tokenizer = Tokenizer.from_bytes((folder / "nano" / "tokenizer.json").read_bytes())
    prompts = Prompts(tokenizer, cut_of(model.config, tokenizer, 4), log_mel=log_mel_of(model.config, tokenizer))
    files = {"image": picture(1), "audio": clip(1, "FLAC")}
    parts = [
        Segment("<|user|>", special=True),
        *(placeholder(kind, 1) for kind in kinds),
        Segment("what grinds?"),
        Segment("<|end|>", special=True),
        Segment("<|assistant|>", special=True),
    ]
    prompt = prompts.of(parts, [Medium(kind, files[kind]) for kind in kinds])
    written, _ = greedy(model, Request("", prompt.tokens, media=prompt.media), 6)
    ends = [place for place, token in enumerate(written) if token in model.config.text.eos_token_id]
    assert reply["text"] == tokenizer.decode(written[: ends[0]] if ends else written)
    assert (reply["prompt_tokens"], reply["adapter"]) == (len(prompt.tokens), adapter)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ([], "there is nothing to ask", 2),
        (["--audio", "none.wav"], "none.wav: libsndfile does not read it", 2),
        (["--audio", "missing.wav"], "missing.wav", 1),
        (["x", "--max-tokens", "200000"], "the model's context is 131072", 2),
        (["x", "--dtype", "int3"], "--dtype int3: allowed are", 2),
    ],
)
def test_what_cannot_be_asked_is_one_line(folder: Path, arguments: list[str], words: str, code: int) -> None:
    given = [str(folder / text) if "." in text else text for text in arguments]
    result = asked(folder, *given)
    assert result.exit_code == code and words in result.output
    assert len(result.output.splitlines()) == 1 and result.output.startswith("error: ")


def test_a_name_alone_is_its_newest_version(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    documents(store, "web", texts(40))
    tokenizer(store, "web@v1")
    first, second = (evaluations.model(store, tmp_path / f"{seed}", "base", seed) for seed in (1, 2))
    assert (str(first), str(second)) == ("base@v1", "base@v2")
    assert exact_name("base", store.uri) == "base@v2" and exact_name("base@v1", store.uri) == "base@v1"
    assert exact_name(str(tmp_path), None) == str(tmp_path)
    replies = [
        CliRunner().invoke(app, ["ask", name, "what grinds?", "--max-tokens", "6", "--lake", store.uri, "--json"])
        for name in ("base", "base@v2")
    ]
    assert replies[0].exit_code == 0, replies[0].output
    assert replies[0].stdout == replies[1].stdout
    absent = CliRunner().invoke(app, ["ask", "bass", "what grinds?", "--lake", store.uri])
    assert absent.exit_code == 1 and absent.stderr == "error: bass: no such folder, and no dataset of the lake\n"
