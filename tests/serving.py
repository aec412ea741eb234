"""A tiny model with random weights on a real server, whose engine can be slowed, held, scripted and broken."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import httpx
import openai
import pytest
import torch
import uvicorn
from models import NANO, enlivened
from waiting import PATIENCE, until

from gristmill.model.generate.engine import Completion, Engine, Options
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.detokenize import decoder
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import SPECIAL_TOKENS, train_tokenizer
from gristmill.orchestration.serve.engine import HostedEngine
from gristmill.orchestration.serve.server import make_app
from gristmill.orchestration.serve.wire import PATIENCE as WITH_CLIENTS
from gristmill.orchestration.serve.wire import server_config

LINES = ["the cat sat on the mat and the dog ran to the sea, où l'été finit", "numbers 1 2 3 and more of them"] * 20
Parts = Callable[[], tuple[bytes, Multimodal]]
OPTIONS = Options(max_num_seqs=4, max_model_len=512, max_num_partial_prefills=4, prefill_chunk_size=32, block_size=64)


HELLO: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Où est the cat?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class ToyEngine(Engine):
    """`delay`: seconds before each step; `hold`: no step begins; `script`: what every sample writes;
    `broken`: the next step raises; `steps` counts them."""

    delay, script, broken, steps = 0.0, (), False, 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate = threading.Event()
        self.held = threading.Event()
        self.gate.set()

    def hold(self) -> None:
        """Until `gate.set()`, from the next step on, which has to come: returns when it is reached."""
        self.held.clear()
        self.gate.clear()
        assert self.held.wait(PATIENCE), "an idle engine makes no step"

    def step(self) -> list[Completion]:
        if not self.gate.is_set():
            self.held.set()
        assert self.gate.wait(PATIENCE), "a test has left the gate closed"
        time.sleep(self.delay)
        self.steps += 1
        if self.broken:
            raise RuntimeError("out of memory")
        return super().step()

    def _settle(self, completion: Completion) -> None:
        if 0 < len(completion.tokens) <= len(self.script):
            completion.tokens[-1] = self.script[len(completion.tokens) - 1]
        super()._settle(completion)


@cache
def toy_parts() -> tuple[bytes, Multimodal]:
    """A tokenizer.json trained on LINES, and a seeded `nano` model of its vocabulary."""
    data = train_tokenizer(LINES, 400)
    return data, _model_for(data)


@cache
def seeing_parts() -> tuple[bytes, Multimodal]:
    """A `nano` model that takes images, and in which every part moves what is written."""
    data = train_tokenizer(LINES, 400)
    text = dataclasses.replace(NANO.text, vocab_size=Tokenizer.from_bytes(data).vocab_size)
    return data, enlivened(dataclasses.replace(NANO, text=text), 0)


@cache
def fallback_parts() -> tuple[bytes, Multimodal]:
    """As of Llama: spaces are letters, and what has no token is written as bytes."""
    special = list(SPECIAL_TOKENS)
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz,.12", "▁the", "▁cat", "▁sat", "é", "▁où"]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    steps += [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": [], "byte_fallback": True}
    marks = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    data = json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": name} | flags for i, name in enumerate(special)],
            "normalizer": {"type": "Sequence", "normalizers": marks},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": steps},
            "model": model | {"dropout": None, "unk_token": None, "fuse_unk": True},
        }
    ).encode()
    return data, _model_for(data)


def _model_for(data: bytes) -> Multimodal:
    tokenizer = Tokenizer.from_bytes(data)
    ends = tuple(tokenizer.special(name) for name in ("<|endoftext|>", "<|end|>"))
    # Ten ids more than the tokenizer has, as in models whose vocabulary is padded.
    text = dataclasses.replace(PRESETS["nano"].text, vocab_size=tokenizer.vocab_size + 10, eos_token_id=ends)
    return Multimodal.seeded(ModelConfig(text), 0).eval()


def toy_engine(parts: Parts = toy_parts) -> tuple[ToyEngine, Tokenizer]:
    """An engine on one thread, so that its sums have one order, and its tokenizer."""
    torch.set_num_threads(1)
    data, model = parts()
    tokenizer = Tokenizer.from_bytes(data)
    return ToyEngine(model, OPTIONS, decoder(tokenizer)), tokenizer


@dataclass
class Running:
    """A server that answers at `url`, and what it is made of, for tests that reach inside."""

    url: str
    engine: ToyEngine
    hosted: HostedEngine
    tokenizer: Tokenizer

    @cached_property  # each makes an SSL context of its own, which takes longer than an answer
    def client(self) -> openai.OpenAI:
        """OpenAI's own client; it never retries, so that a refusal is seen."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)

    def health(self) -> httpx.Response:
        """GET /health."""
        return httpx.get(f"{self.url}/health", timeout=PATIENCE)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first answer of /health that meets the condition."""

        def asked() -> dict[str, Any] | None:
            answer: dict[str, Any] = self.health().json()
            return answer if condition(answer) else None

        answer = until(asked, "an answer of /health that meets the condition")
        assert answer is not None
        return answer

    def script(self, text: Sequence[str]) -> None:
        """What every sample writes from now on: texts, and special tokens by name."""
        tokens: list[int] = []
        for part in text:
            if part.startswith("<|"):
                tokens.append(self.tokenizer.special(part))
            else:
                tokens += self.tokenizer.encode([[Segment(part)]]).ids.tolist()
        self.engine.script = tuple(tokens)


@contextmanager
def serving(max_waiting: int = 64, parts: Parts = toy_parts, **settings: Any) -> Iterator[Running]:
    """A server on a free port of this machine, in a thread. `settings`: of `make_app`."""
    engine, tokenizer = toy_engine(parts)
    with HostedEngine(engine, max_waiting) as hosted:
        app = make_app(hosted, tokenizer, "tiny", **settings)
        patience = settings.get("patience", WITH_CLIENTS)
        config = server_config(app, "127.0.0.1", 0, patience, log_level="error", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield Running(f"http://127.0.0.1:{port}", engine, hosted, Tokenizer.from_bytes(parts()[0]))
        finally:
            engine.gate.set()
            server.should_exit = True
            thread.join()


def chat(server: Running, **settings: Any) -> Any:
    """An answer of /v1/chat/completions to HELLO, or a stream of chunks with `stream=True`."""
    return server.client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 24} | settings)


def text(server: Running, **settings: Any) -> Any:
    """The same of /v1/completions."""
    return server.client.completions.create(**{"model": "tiny", "prompt": "the cat", "max_tokens": 24} | settings)


def texts(answer: Any) -> list[str]:
    """The text of each choice of an answer."""
    return [choice.message.content if hasattr(choice, "message") else choice.text for choice in answer.choices]


def url(data: bytes, kind: str = "image/png") -> str:
    """A data URL of these bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def shown(data: bytes | str, **more: Any) -> dict[str, Any]:
    """A part with an image."""
    return {"type": "image_url", "image_url": {"url": data if isinstance(data, str) else url(data), **more}}


def heard(data: bytes, format: str = "wav", **more: Any) -> dict[str, Any]:
    """A part with a clip."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": format, **more}}


def worded(text: str) -> dict[str, Any]:
    """A part with a text."""
    return {"type": "text", "text": text}


def asked(*parts: dict[str, Any]) -> list[Any]:
    """Messages of a user who says and shows this."""
    return [{"role": "user", "content": list(parts)}]


def answer(server: Running, *parts: dict[str, Any], **more: Any) -> str:
    """What the model says to such a message, greedily."""
    (text,) = texts(chat(server, messages=asked(*parts), temperature=0, **more))
    return str(text)


def refused(server: Running, *parts: dict[str, Any], **more: Any) -> str:
    """Why such a message is a bad request."""
    with pytest.raises(openai.BadRequestError) as info:
        answer(server, *parts, **more)
    assert info.value.param == "messages"
    return str(info.value.body["message"])  # type: ignore[index]


def connected(server: Running, data: bytes) -> socket.socket:
    """A connection over which this was sent."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(data)
    return connection


def posted(path: str, **fields: Any) -> bytes:
    """A request, as it is sent."""
    body = json.dumps({"model": "tiny"} | fields).encode()
    return b"POST /v1/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes, which this waits for."""
    data = b""
    try:
        while received := connection.recv(1 << 16):
            data += received
    except ConnectionResetError:
        pass
    return data
