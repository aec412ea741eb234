"""The engine `vllm`: a model of the lake on vLLM, which a worker starts for itself and asks as any server.

The language model alone is written out for it, as transformers loads it, with the project's chat template, so that a
prompt is the same tokens as with the engine `compact`. Sampling parameters are those of the request: a checkpoint's own
(generation_config.json) would be added to them by vLLM, and are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import scratch
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.phi4.parts import Part
from gristmill.model.processing.chat.conversation import Conversation, Turn, prompt
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.generate.engines.compact import EngineStopped
from gristmill.stages.generate.engines.endpoint import Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation, Load
from gristmill.stages.generate.engines.vllm_server import Server, Vllm, installed
from gristmill.stages.models.model_versions import load_weights, part_shards, shape_of

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{{ '<|assistant|>' }}"
)
"""`model.processing.chat.template` for what problems are posed with: a text of the system, a text of the user."""


@dataclass(frozen=True)
class Hosted:
    """What vLLM is given: a model version with a tokenizer.json; `dtype` of the weights, None: as stored; `context`:
    tokens of prompt and answer; `max_num_seqs`: samples side by side."""

    model: Manifest
    tokenizer: bytes
    dtype: str | None
    context: int
    max_num_seqs: int


class VllmEngine:
    """Starts vLLM, and asks it as `endpoint` says, whose address and key are not used. Raises BadServer, MissingToken
    for a tokenizer without the template's tokens, and as `load_model`."""

    def __init__(self, store: Store, hosted: Hosted, draws: Draws, settings: Vllm, endpoint: Endpoint) -> None:
        self._about = f"{hosted.model} on vLLM {installed(settings.python)}"
        with ExitStack() as started:
            folder = started.enter_context(scratch())
            flags = _written(store, hosted, folder)
            self._server = Server(settings, flags, folder)
            started.callback(self._server.close)
            self._server.wait()
            own = replace(endpoint, url=self._server.url, key_env="", batch_folder="")
            self.client = OpenAIEngine(own, str(hosted.model), draws)
            started.callback(self.client.close)
            self._started = started.pop_all()

    @property
    def about(self) -> str:
        """The model's version, and vLLM's."""
        return self._about

    def generate(self, asks: Iterable[Ask]) -> Iterator[Generation]:
        """As `Engine.generate`. Raises EngineStopped where the server has ended, BadEndpoint as `OpenAIEngine`."""
        for generation in self.client.generate(asks):
            if generation.failure is not None and not self._server.alive:
                raise EngineStopped(f"vLLM ended{self._server.last_words()}")
            yield generation

    def load(self) -> Load:
        """As `Engine.load`."""
        return Load()

    def close(self) -> None:
        """Ends the client, the server, and removes what was written for it."""
        self._started.close()


def _written(store: Store, hosted: Hosted, folder: Path) -> list[str]:
    """Writes the checkpoint and the chat template. -> vLLM's flags for them."""
    from gristmill.model.hf.checkpoint import save_hf

    tokenizer = Tokenizer.from_bytes(hosted.tokenizer)
    tokenizer.encode([prompt(Conversation((Turn("system", "a"), Turn("user", "b"))))])  # raises MissingToken
    shape = shape_of(store, hosted.model)
    tokenizer.check_fits(shape.config.text.vocab_size)
    language = replace(shape.config, vision=None, audio=None, adapters=())
    weights = part_shards(hosted.model)[Part.LANGUAGE]
    model = load_weights(store, language, weights, dtype=hosted.dtype)
    save_hf(model, folder / "model", tokenizer=hosted.tokenizer)
    template = folder / "chat.jinja"
    template.write_text(CHAT_TEMPLATE)
    dtype = str(model.language.norm.weight.dtype).removeprefix("torch.")
    flags = ["--model", str(folder / "model"), "--served-model-name", str(hosted.model), "--dtype", dtype]
    flags += ["--max-model-len", str(hosted.context), "--max-num-seqs", str(hosted.max_num_seqs)]
    # Each request has a seed of its own; that of the server draws nothing.
    flags += ["--seed", "0", "--generation-config", "vllm", "--chat-template", str(template)]
    return [*flags, "--disable-uvicorn-access-log"]
